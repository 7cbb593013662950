"""GLOBER's --mode=sample, redraw and reconstruct, which write into workdir/samples."""

import dataclasses
import importlib.util
import itertools
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags, logging

from data.builder import VideoBuilder
from data.prepare import DATASETS
from experiments.sampling import nearest_clips, saved_samples
from experiments.setup import checks, frame_stores, texts
from experiments.workdirs import numbered, outputs, provenance
from videodiff_jax import copies, storage, text_files, typed, whole_files
from videodiff_jax.config_flag import is_file
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import images
from videodiff_jax.training import hosts

MAX_ROWS = 8  # clips on a strip
_TEXT_SUFFIXES = (".txt", ".text", ".md", ".csv", ".tsv", ".json", ".jsonl")  # of --prompts
FPS = 8.0  # frames per second of videos without a rate of their own


def sample(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Draws new clips."""
  pipeline = load(workdir, config, options)
  labels = None
  if options.class_label is not None:
    labels = np.array([options.class_label])
  prompts, count = prompts_of(pipeline, options)
  times = frame_times(pipeline, options)
  training = None
  if options.nearest:
    if times is not None and not _are_times_of(pipeline, times):
      raise checks.UserError(
        "--nearest compares clips with training clips, which takes their frame times: remove "
        "--num_frames, --frame_times, --start and --end."
      )
    training = nearest_clips.training_clips(pipeline.config)
  with place_for(workdir, "sample", options.seed, pipeline, count, times) as place:
    with checks.as_user_error():
      drawn = pipeline.generate(
        count, frame_times=times, labels=labels, prompts=prompts, seed=options.seed
      )
    near = nearest_clips.find(drawn.videos, training, MAX_ROWS)
    save(place, pipeline.config, dataclasses.asdict(drawn), near=near)


def redraw(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Decodes the global features of a saved sample at other frame times or another rate."""
  given = options.input or hosts.decide(lambda: str(newest_samples(workdir)))
  file = typed.path(given, "--input")
  saved = saved_samples.read(file)
  pipeline = load(workdir, config, options)
  times, count = frame_times(pipeline, options), len(saved.global_features)
  with place_for(workdir, "redraw", saved.seed, pipeline, count, times) as place:
    with checks.as_user_error():
      drawn = pipeline.redraw(
        saved.global_features,
        frame_times=times,
        labels=saved.labels,
        prompts=saved.prompts,
        seed=saved.seed,
      )
    save(place, pipeline.config, dataclasses.asdict(drawn))


def reconstruct(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Reconstructs the clips of a video file or of the test split."""
  pipeline = load(workdir, config, options)
  count = options.num_videos or pipeline.config.sample.num_videos
  if options.input:
    fps, real = clips_of_file(pipeline, typed.path(options.input, "--input"))
    real, labels, prompts = real[:count], None, None
  else:
    store = frame_stores.open_store(pipeline.config, "test")
    sampler = frame_stores.clip_sampler(pipeline.config, "clip")
    with checks.as_user_error():
      real, videos = clips.shown_clips(store, sampler, count, options.seed)
    labels, prompts = conditions_of(pipeline, store, videos)
    fps = rates_of(pipeline.config, store, videos)
  times = frame_times(pipeline, options)
  if times is not None and np.diff(times).any():  # moves as fast as the real clip
    fps = fps * np.diff(pipeline.frame_times).mean() / np.abs(np.diff(times)).mean()
  with place_for(workdir, "reconstruct", options.seed, pipeline, len(real), times) as place:
    with checks.as_user_error():
      drawn = pipeline.reconstruct(
        real, frame_times=times, labels=labels, prompts=prompts, seed=options.seed
      )
    if times is None:
      psnr = images.psnr(drawn.videos, real).mean()
      logging.info("PSNR %.2f dB over %d clips", psnr, len(real))
    save(place, pipeline.config, dataclasses.asdict(drawn), real, fps)


def place_for(
  workdir: pathlib.Path,
  mode: str,
  seed: int,
  pipeline: Pipeline,
  count: int,
  times: np.ndarray | None,
) -> numbered.SampleFolder:
  """Returns the folder for the samples of `count` clips; enter it before drawing."""
  frames = count * len(pipeline.frame_times if times is None else times)
  return numbered.SampleFolder(workdir, mode, seed, bytes_of(pipeline.config, frames))


def bytes_of(config: ml_collections.ConfigDict, frames: int) -> int:
  """Estimates the bytes on disk of drawn frames: as numbers, and about as many as pictures."""
  return 2 * frames * config.data.image_size**2 * config.data.channels + 2**18


def prompts_of(pipeline: Pipeline, options: flags.FlagValues) -> tuple[list[str] | None, int]:
  """Returns the prompts of --prompts or captions of the test split, and the number of clips."""
  count = options.num_videos or pipeline.config.sample.num_videos
  if options.prompts is not None:
    prompts = [prompt.strip() for prompt in _given_prompts(options.prompts) if prompt.strip()]
    if not prompts:
      raise checks.UserError('--prompts is empty. Give "one;another", or a file with one a line.')
    count = options.num_videos or len(prompts)
  elif texts.given_by_videos(pipeline.config):
    store = frame_stores.open_store(pipeline.config, "test")
    prompts = texts.captions(pipeline.config, store)
  else:
    return None, count
  return [prompts[i % len(prompts)] for i in range(count)], count


def _given_prompts(given: str) -> list[str]:
  """Splits --prompts: the lines of a file, or the parts between semicolons.

  A value that looks like a path must be a file: a missing file's name is not taken as a prompt.
  """
  file = typed.path(given, "--prompts") if _is_path(given) else pathlib.Path(given)
  if given and is_file(file):
    return text_files.lines(file)
  if _is_path(given):
    raise checks.UserError(
      f"--prompts: no file {file}. (If it is a prompt, give --prompts='{given};'.)"
    )
  return given.split(";")


def _is_path(given: str) -> bool:
  """Whether a value looks like a path: by its suffix, its beginning, or a / without a space."""
  if ";" in given:
    return False
  one_word = len(given.split()) == 1
  begins = given.startswith(("~/", "/", "./", "../"))
  return given.lower().endswith(_TEXT_SUFFIXES) or begins or ("/" in given and one_word)


def conditions_of(
  pipeline: Pipeline, store: FrameStore, videos: np.ndarray
) -> tuple[np.ndarray | None, list[str] | None]:
  """Returns the labels and the captions of a store's videos; None for unused conditions."""
  labels = prompts = None
  if pipeline.networks.num_classes:
    labels = np.array([store.videos[video]["label"] for video in videos])
  if texts.given_by_videos(pipeline.config):
    captions = texts.captions(pipeline.config, store)
    prompts = [captions[video] for video in videos]
  return labels, prompts


def load(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> Pipeline:
  """Loads the workdir's pipeline; settings of --config, then single flags, replace its own."""
  settings: dict[str, Any] = config.sample.to_dict() if config is not None else {}
  pipeline = Pipeline.from_workdir(workdir, **settings)
  both: dict[str, Any] = {}
  if options.sampler:
    both["kind"] = options.sampler
  if options.steps:
    both["num_steps"] = options.steps
  changes: dict[str, Any] = {"decoder": both, "generator": both} if both else {}
  if options.guidance_scale is not None:
    changes |= dict.fromkeys(("guidance_decoder", "guidance_generator"), options.guidance_scale)
  pipeline = pipeline.with_settings(**changes)
  checks.check_config(ml_collections.ConfigDict(pipeline.config.to_dict()))
  return pipeline


def frame_times(pipeline: Pipeline, options: flags.FlagValues) -> np.ndarray | None:
  """Returns the frame times of --frame_times, or of --num_frames, --start and --end.

  None stands for the times used in training.
  """
  if options.frame_times:
    return np.array(options.frame_times)
  last = pipeline.frame_times[-1] if options.end is None else options.end
  if options.num_frames is None and options.start == 0.0 and options.end is None:
    return None
  return np.linspace(options.start, last, options.num_frames or len(pipeline.frame_times))


def _are_times_of(pipeline: Pipeline, times: np.ndarray) -> bool:
  """Whether frame times are those of training."""
  return len(times) == len(pipeline.frame_times) and np.allclose(times, pipeline.frame_times)


def clips_of_file(pipeline: Pipeline, file: pathlib.Path) -> tuple[float, np.ndarray]:
  """Reads a video as consecutive clips of training length.

  Returns:
    (frames per second, clips (n, F, h, w, c) uint8).
  """
  data = pipeline.config.data
  fps, stream = frames_of_file(pipeline.config, file)
  frames = list(stream)
  count = len(frames) // data.num_frames
  if not count:
    raise checks.UserError(
      f"{file} has {len(frames)} frames at stride {data.stride}; a clip needs {data.num_frames}."
    )
  whole = np.stack(frames[: count * data.num_frames])
  return fps, whole.reshape(count, data.num_frames, *whole.shape[1:])


def frames_of_file(
  config: ml_collections.ConfigDict, file: pathlib.Path
) -> tuple[float, Iterator[np.ndarray]]:
  """Reads a video at the configuration's stride, with frames as its data set's store holds them.

  Returns:
    (frames per second at that stride, 8 if the file has no rate; an iterator over frames uint8
    (h, w, c), cropped, resized and, if the configuration has one channel, grey).

  Raises:
    VideoError: the file is no video; or, during iteration, a frame cannot be decoded or cropped.
  """
  data = config.data
  crop = DATASETS.get(data.name, VideoBuilder).CROP
  stream = video_io.stream_video(copies.local(file))

  def frames() -> Iterator[np.ndarray]:
    for frame in itertools.islice(stream.frames, 0, None, data.stride):
      try:
        frame = video_io.square_crop_resize(frame, data.image_size, crop)
      except ValueError as error:
        raise video_io.VideoError(file, str(error)) from error
      if data.channels == 1:
        frame = np.rint(frame @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
      yield frame

  return stream.fps / data.stride or FPS, frames()


def rates_of(
  config: ml_collections.ConfigDict, store: FrameStore, videos: np.ndarray
) -> np.ndarray:
  """Returns the frames per second (n,) of clips of these videos; 8 if the store knows no rate."""
  rates = np.array([store.videos[video]["fps"] for video in videos], float)
  return np.where(rates > 0, rates / config.data.stride, FPS)


def save(
  place: numbered.SampleFolder,
  config: ml_collections.ConfigDict,
  drawn: Mapping[str, Any],
  real: np.ndarray | None = None,
  fps: float | Sequence[float] | np.ndarray = FPS,
  near: nearest_clips.Neighbours | None = None,
) -> pathlib.Path:
  """Writes a numbered folder: samples.npz, settings.json, strip.png, all.gif and an mp4 per clip.

  Of several hosts, the first writes it.

  Args:
    place: folder of the samples, already entered.
    config: configuration whose `sample` the clips were drawn with.
    drawn: arrays of the .npz: `videos`, (n, f, h, w, c) uint8 or (n, N, f, h, w, c), are also
      written as clips; `prompts`, if present, name the clips; further arrays are kept.
    real: (n, f, h, w, c) clips shown above the drawn ones on the strip.
    fps: frames per second of all clips or of each; all.gif has the rate of the first.
    near: training clips nearest to the drawn ones, for nearest.png and settings.json; or None.
  """
  return storage.path(hosts.decide(lambda: str(_write(place, config, drawn, real, fps, near))))


def _write(
  place: numbered.SampleFolder,
  config: ml_collections.ConfigDict,
  drawn: Mapping[str, Any],
  real: np.ndarray | None,
  fps: float | Sequence[float] | np.ndarray,
  near: nearest_clips.Neighbours | None,
) -> pathlib.Path:
  """Writes what `save` writes, and finishes the folder."""
  folder, videos = place.unfinished, drawn["videos"]
  videos = videos.reshape(-1, *videos.shape[-4:])
  with whole_files.written(folder / numbered.SAMPLES) as half:
    np.savez_compressed(half, **drawn)
  settings = {
    "mode": place.mode,
    "sample": config.sample.to_dict(),
    "code": provenance.code_version(),
  }
  if near is not None:
    settings["nearest_training_clips"] = near.written
    video_io.write_strip(folder / nearest_clips.PICTURE, near.rows)
  whole_files.write_text(folder / "settings.json", json.dumps(settings, indent=2) + "\n")
  prompts = drawn.get("prompts", np.full(len(videos), ""))
  names = [f"{i:03d}_{_slug(prompt)}".rstrip("_") for i, prompt in enumerate(prompts)]
  rows = {}
  for i, video in enumerate(videos[:MAX_ROWS]):
    if real is not None:
      rows[f"real {i}"] = real[i]
    rows[f"{i} {prompts[i]}" if prompts[i] else f"{place.mode} {i}"] = video
  rates = np.broadcast_to(np.asarray(fps, float), len(videos))
  video_io.write_strip(folder / "strip.png", rows)
  write_grid(folder / "all.gif", videos, rates[0])
  if importlib.util.find_spec("av"):
    for i, video in enumerate(videos):
      video_io.write_mp4(folder / f"{names[i]}.mp4", video, rates[i])
  else:
    logging.warning('No mp4 written: PyAV is missing (pip install -e ".[demo]").')
  folder = place.finish()
  logging.info("%d clips of %d frames in %s", *videos.shape[:2], folder)
  return folder


def _slug(prompt: str) -> str:
  """Turns a prompt into part of a file name: letters, digits and _, at most 60."""
  return re.sub(r"\W+", "_", prompt).strip("_")[:60]


def write_grid(path: pathlib.Path, videos: np.ndarray, fps: float = FPS) -> None:
  """Writes one GIF of up to 16 clips side by side, in rows of eight."""
  videos = videos[:16]
  across = min(len(videos), 8)
  videos = videos[: len(videos) // across * across]
  rows = [videos[i : i + across] for i in range(0, len(videos), across)]
  video_io.write_gif(path, video_io.mosaic(rows), fps, upscale=max(64 // videos.shape[2], 1))


def newest_samples(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the samples.npz of the latest sample by time, since numbers may be reused."""
  folders = numbered.sample_folders(outputs.folder(workdir) / "samples")
  for folder in reversed([folder for folder in folders if "_sample_" in folder.name]):
    file = folder / numbered.SAMPLES
    with file.open("rb") as opened:
      whole = zipfile.is_zipfile(opened)
    if whole:
      return file
    logging.warning("%s is damaged and is skipped.", file)
  raise checks.UserError(f"{workdir} has no samples yet: run --mode=sample first.")
