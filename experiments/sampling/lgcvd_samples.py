"""LGC-VD's --mode=predict, interpolate and sample, which write into workdir/samples."""

import collections
import itertools
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import flags, logging

from experiments.sampling import nearest_clips
from experiments.sampling.glober_samples import (
  FPS,
  MAX_ROWS,
  bytes_of,
  frames_of_file,
  rates_of,
  save,
)
from experiments.setup import checks, frame_stores
from experiments.setup.lgcvd import given_around_gap
from experiments.workdirs import numbered
from videodiff_jax import typed
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.lgcvd.pipeline import Pipeline, Samples
from videodiff_jax.training import hosts


def predict(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Predicts the frames after the last ones of a video file, or the first ones of test videos."""
  pipeline = load(workdir, config, options)
  settings = pipeline.config.sample
  real = None
  if options.input:
    file = typed.path(options.input, "--input")
    fps, past = _last_frames(pipeline, file, settings.past)
    past = past[None]
  else:
    total = settings.past + settings.num_frames
    real, fps = held_out(pipeline, total, settings.num_videos)
    past = real[:, : settings.past]
  count = len(past) * settings.trajectories * (settings.past + settings.num_frames)
  with _place(workdir, "predict", options.seed, pipeline, count) as place:
    with checks.as_user_error():
      drawn = pipeline.predict(
        past,
        num_frames=settings.num_frames,
        trajectories=settings.trajectories,
        seed=options.seed,
      )
    _save(place, pipeline, drawn, real, fps)
  if options.input:
    hosts.decide(lambda: _write_beside(file, "predict", drawn, fps))


def interpolate(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Draws the frames in a gap; the frames around it start a video file or test videos."""
  pipeline = load(workdir, config, options)
  settings = pipeline.config.sample
  p, q = given_around_gap(settings, pipeline.networks.slots)
  total = p + settings.gap + q
  if options.input:
    file = typed.path(options.input, "--input")
    fps, stream = frames_of_file(pipeline.config, file)
    frames = list(itertools.islice(stream, total))
    if len(frames) < total:
      raise checks.UserError(
        f"{file} has {len(frames)} frames at stride {pipeline.config.data.stride}; {p} before a "
        f"gap of {settings.gap} and {q} after it take {total}: give a longer file, or a smaller "
        "--gap."
      )
    real = np.stack(frames)[None]
  else:
    real, fps = held_out(pipeline, total, settings.num_videos)
  count = len(real) * settings.trajectories * total
  with _place(workdir, "interpolate", options.seed, pipeline, count) as place:
    with checks.as_user_error():
      drawn = pipeline.interpolate(
        real[:, :p],
        real[:, total - q :],
        gap=settings.gap,
        trajectories=settings.trajectories,
        seed=options.seed,
      )
    _save(place, pipeline, drawn, real, fps)
  if options.input:
    hosts.decide(lambda: _write_beside(file, "interpolate", drawn, fps))


def sample(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Generates new videos without given frames."""
  pipeline = load(workdir, config, options)
  settings = pipeline.config.sample
  count = settings.num_videos * settings.num_frames
  training = None
  if options.nearest:
    training = nearest_clips.training_clips(pipeline.config, num_frames=settings.num_frames)
  with _place(workdir, "sample", options.seed, pipeline, count) as place:
    with checks.as_user_error():
      drawn = pipeline.generate(
        settings.num_videos, num_frames=settings.num_frames, seed=options.seed
      )
    near = nearest_clips.find(drawn.videos, training, MAX_ROWS)
    _save(place, pipeline, drawn, near=near)


def load(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> Pipeline:
  """Loads the workdir's pipeline; settings of --config, then single flags, replace its own."""
  settings: dict[str, Any] = config.sample.to_dict() if config is not None else {}
  pipeline = Pipeline.from_workdir(workdir, **settings)
  names = ("num_videos", "num_frames", "trajectories", "past", "future", "gap")
  changes: dict[str, Any] = {
    name: getattr(options, name) for name in names if getattr(options, name) is not None
  }
  sampler = {"kind": options.sampler, "num_steps": options.steps}
  changes["sampler"] = {key: value for key, value in sampler.items() if value is not None}
  with checks.as_user_error():
    pipeline = pipeline.with_settings(**changes)
  checks.check_config(ml_collections.ConfigDict(pipeline.config.to_dict()))
  return pipeline


def held_out(
  pipeline: Pipeline, num_frames: int, count: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Reads `count` clips of different test videos, or fewer if the split has fewer videos.

  Returns:
    (clips (n, f, h, w, c) uint8, their frames per second (n,)).
  """
  store = frame_stores.open_store(pipeline.config, "test")
  sampler = frame_stores.clip_sampler(pipeline.config, "clip", num_frames=num_frames)
  with checks.as_user_error():
    real, videos = clips.shown_clips(store, sampler, count, seed)
  return real, rates_of(pipeline.config, store, videos)


def _last_frames(pipeline: Pipeline, file: pathlib.Path, count: int) -> tuple[float, np.ndarray]:
  """Returns a video's rate and its last frames (count, h, w, c), without holding more of it."""
  fps, stream = frames_of_file(pipeline.config, file)
  frames = collections.deque(stream, maxlen=count)
  if len(frames) < count:
    raise checks.UserError(
      f"{file} has {len(frames)} frames at stride {pipeline.config.data.stride}, fewer than the "
      f"{count} given frames needed: give another file, or a smaller --past."
    )
  return fps, np.stack(frames)


def _place(
  workdir: pathlib.Path, mode: str, seed: int, pipeline: Pipeline, frames: int
) -> numbered.SampleFolder:
  return numbered.SampleFolder(workdir, mode, seed, bytes_of(pipeline.config, frames))


def _save(
  place: numbered.SampleFolder,
  pipeline: Pipeline,
  drawn: Samples,
  real: np.ndarray | None = None,
  fps: float | np.ndarray = FPS,
  near: nearest_clips.Neighbours | None = None,
) -> None:
  videos, trajectories = drawn.by_video, drawn.trajectories
  if real is not None:
    real = np.repeat(real, trajectories, axis=0)
  rates = np.repeat(np.broadcast_to(fps, len(videos)), trajectories)
  arrays = {"videos": videos, "positions": drawn.positions, "seed": drawn.seed}
  save(place, pipeline.config, arrays, real, rates, near)


def _write_beside(file: pathlib.Path, mode: str, drawn: Samples, fps: float | np.ndarray) -> None:
  """Writes an mp4 per trajectory beside the input file, at its rate; earlier files are kept."""
  count = drawn.trajectories
  letters = [f"_{i}" for i in range(count)] if count > 1 else [""]
  names = [f"{file.stem}_{mode}{letter}.mp4" for letter in letters]
  try:
    with numbered.files(file.parent, *names) as paths:
      for path, video in zip(paths, drawn.videos):
        video_io.write_mp4(path, video, float(fps))
    logging.info("Written beside %s: %s", file, ", ".join(path.name for path in paths))
  except OSError as error:  # the samples are safe
    logging.warning("No mp4 is written beside %s: %s", file, error)
