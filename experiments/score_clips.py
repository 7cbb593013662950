"""GLOBER's --mode=evaluate --protocol=NAME: FVD of a named protocol and more, in evaluations/.

What is measured, and on what, says videodiff_jax/metrics/clip_protocols.py. Without --protocol the
ladder of evaluate.py is what an evaluation is.
"""

import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import logging
from PIL import Image

from experiments import checks, sample, score_files, set_scores, train
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import images, resampling
from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, ClipProtocol
from videodiff_jax.training.workdir import unused

CHUNK = 64  # clips drawn and held in memory at once; a chunk's number is added to the seed
_SHOWN = 6

Place = tuple[FrameStore, int, int]  # a store, a video of it, the clip's first frame


def evaluate(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict | None,
  name: str | ClipProtocol,
  reuse: bool = False,
) -> dict[str, Any]:
  """Scores a set of drawn clips against one of real clips.

  Args:
    workdir: of the run; an earlier evaluation there is kept.
    config: its `sample` replaces the workdir's own; or None.
    name: of the protocol, or the protocol itself.
    reuse: returns an evaluation found there of the same weights, settings and protocol.

  Raises:
    UserError: an unknown protocol, or one that this run, data set or machine cannot do.
  """
  protocol = find_protocol(name) if isinstance(name, str) else name
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  data = pipeline.config.data
  if data.num_frames != protocol.num_frames:
    raise checks.UserError(
      f"Protocol {protocol.name!r} is of clips of {protocol.num_frames} frames, but this run was "
      f"trained on {data.num_frames}: choose another protocol, or train with "
      f"--config.data.num_frames={protocol.num_frames}."
    )
  set_scores.locate()  # told now, not after the drawing
  stores = [train.open_store(pipeline.config, split) for split in protocol.splits]
  made_with = score_files.settings(workdir, pipeline.config, stores[0])
  out = workdir / "evaluations"
  if reuse and (record := score_files.find(out, protocol, made_with)):
    return record
  places = choose(stores, train.clip_sampler(pipeline.config, "clip"), protocol)
  with checks.told():
    drawing = _Drawing(pipeline, protocol, stores, places)
  reals = set_scores.features(read(places, data.stride, protocol), protocol.i3d_resize)
  fakes = set_scores.features(drawing.clips(), protocol.i3d_resize)
  scores, spread = score(reals, fakes, drawing.frames, protocol)
  record = {
    "protocol": dataclasses.asdict(protocol),
    "scores": {protocol.drawn: scores},
    "intervals": {protocol.drawn: spread},
    "settings": {
      **made_with,
      **set_scores.SETTINGS,
      "num_real": len(reals),
      "num_drawn": len(fakes),
      "clips_per_seed": CHUNK,
    },
    **score_files.provenance(pipeline.config),
  }
  write(out, protocol, record, next(read(places[:_SHOWN], data.stride, protocol)), drawing.shown)
  return record


def find_protocol(name: str) -> ClipProtocol:
  """The protocol of a name; UserError lists those there are."""
  if name not in CLIP_PROTOCOLS:
    raise checks.UserError(f"No protocol {name!r}. Choose one of: {', '.join(CLIP_PROTOCOLS)}.")
  return CLIP_PROTOCOLS[name]


def choose(
  stores: list[FrameStore], sampler: clips.ClipSampler, protocol: ClipProtocol
) -> list[Place]:
  """A random clip of each of the protocol's number of random videos, or of all there are.

  Raises:
    UserError: fewer than two videos are long enough.
  """
  rng = np.random.default_rng(protocol.seed)
  found = [
    (store, video, int(rng.integers(count)))
    for store in stores
    for video, count in enumerate(clips.count_starts(store, sampler))
    if count
  ]
  if len(found) < 2:
    raise checks.UserError(
      f"Protocol {protocol.name!r} needs videos of {sampler.span} frames; the splits "
      f"{', '.join(protocol.splits)} have {len(found)}."
    )
  return [found[i] for i in rng.permutation(len(found))[: protocol.num_real]]


def as_jpeg(videos: np.ndarray, quality: int) -> np.ndarray:
  """(n, f, h, w, c) uint8 through JPEG in 4:2:0, frame by frame."""
  frames = videos.reshape(-1, *videos.shape[2:])
  read = np.empty_like(frames)
  for i, frame in enumerate(frames):
    file = io.BytesIO()
    picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as image:
      read[i] = np.asarray(image).reshape(frame.shape)
  return read.reshape(videos.shape)


def read(places: list[Place], stride: int, protocol: ClipProtocol) -> Iterator[np.ndarray]:
  """The clips at these places, in chunks (n, f, h, w, c)."""
  at = np.arange(protocol.num_frames) * stride
  for begin in range(0, len(places), CHUNK):
    chunk = places[begin : begin + CHUNK]
    yield np.stack([store.read(video, start + at) for store, video, start in chunk])


def write(
  folder: pathlib.Path,
  protocol: ClipProtocol,
  record: dict[str, Any],
  real: np.ndarray,
  drawn: np.ndarray,
) -> None:
  """NAME.json, last of all, with NAME.png (a strip) and NAME.gif of some of the clips."""
  folder.mkdir(exist_ok=True)
  name = protocol.name
  file, strip_file, clips_file = unused(folder, f"{name}.json", f"{name}.png", f"{name}.gif")
  real, drawn = (clips[: min(len(real), len(drawn), _SHOWN)] for clips in (real, drawn))
  rows = {"real": real, protocol.drawn: drawn}
  video_io.write_strip(
    strip_file, {f"{what} {i}": row[i] for i in range(len(drawn)) for what, row in rows.items()}
  )
  video_io.write_gif(clips_file, video_io.mosaic([real, drawn]))
  # Whole or not at all: an evaluation that is there is one that was finished.
  half = file.with_name(f".{file.name}")
  half.write_text(json.dumps(record, indent=2) + "\n")
  half.replace(file)
  figures = record["scores"][protocol.drawn].items()
  logging.info(
    "%s of %d clips against %d real ones: %s. Written to %s.",
    protocol.drawn, record["settings"]["num_drawn"], record["settings"]["num_real"],
    ", ".join(f"{key} {value:.4g}" for key, value in figures), file,
  )  # fmt: skip


class _Drawing:
  """Draws the protocol's clips chunk by chunk, and keeps what is scored beside FVD.

  Attributes:
    frames: name -> (n, f) of every chunk so far, where clips are reconstructions.
    shown: the first clips, of which a strip and a GIF are made.
  """

  def __init__(
    self,
    pipeline: Pipeline,
    protocol: ClipProtocol,
    stores: list[FrameStore],
    places: list[Place],
  ):
    self._pipeline, self._protocol, self._places = pipeline, protocol, places
    told = [sample.told_of(pipeline, store, np.arange(store.num_videos)) for store in stores]
    labels, prompts = zip(*told)
    self._labels = None if labels[0] is None else np.concatenate(labels)
    self._prompts = None if prompts[0] is None else [p for some in prompts for p in some]
    if self._prompts:
      pipeline.encode_prompts(self._prompts[:1])  # what is missing is told now
    counts = [store.num_videos for store in stores]
    self._first = dict(zip(map(id, stores), np.cumsum([0, *counts[:-1]]).tolist()))
    self._num_videos = sum(counts)
    self.frames: dict[str, list[np.ndarray]] = {}
    self.shown = np.empty(0)

  def clips(self) -> Iterator[np.ndarray]:
    """(n, f, h, w, c) uint8, a chunk at a time."""
    protocol = self._protocol
    stride = self._pipeline.config.data.stride
    real = read(self._places[: protocol.num_drawn], stride, protocol)
    generated = protocol.drawn == "generated"
    total = protocol.num_drawn if generated else min(protocol.num_drawn, len(self._places))
    for number, begin in enumerate(range(0, total, CHUNK)):
      count, seed = min(CHUNK, total - begin), protocol.seed + number
      if generated:
        random = np.random.default_rng(seed).integers(0, self._num_videos, count)
        drawn = self._pipeline.generate(count, seed=seed, **self._told(random)).videos
      else:
        true = next(real)
        chunk = self._places[begin : begin + count]
        videos = np.array([self._first[id(store)] + video for store, video, _ in chunk])
        drawn = self._pipeline.reconstruct(true, seed=seed, **self._told(videos)).videos
      if protocol.jpeg_quality is not None:
        drawn = as_jpeg(drawn, protocol.jpeg_quality)
      if not generated:
        psnr = np.minimum(images.psnr(drawn, true), 60.0)  # an exact copy would be infinite
        for name, values in (("psnr", psnr), ("ssim", images.ssim(drawn, true))):
          self.frames.setdefault(name, []).append(values)
      if not number:
        self.shown = drawn[:_SHOWN]
      yield drawn

  def _told(self, videos: np.ndarray) -> dict[str, Any]:
    """The condition of videos, numbered through all splits."""
    labels = None if self._labels is None else self._labels[videos]
    prompts = None if self._prompts is None else [self._prompts[video] for video in videos]
    return {"labels": labels, "prompts": prompts}


def score(
  reals: set_scores.Features,
  fakes: set_scores.Features,
  frames: dict[str, list[np.ndarray]],
  protocol: ClipProtocol,
) -> tuple[dict[str, float], dict[str, list[float]]]:
  """Figures of the drawn set and means over frames, and their intervals over clips."""
  each = {name: np.concatenate(chunks).mean(axis=1) for name, chunks in frames.items()}

  def row(of_real: np.ndarray, of_drawn: np.ndarray) -> dict[str, float]:
    real = reals.take(of_real)
    figures = set_scores.figures(real, fakes.take(of_drawn), protocol.covariance)
    figures["i3d_inception_score_of_real"] = set_scores.inception_score(real.logits)
    return figures | {name: float(values[of_drawn].mean()) for name, values in each.items()}

  def again(rng: np.random.Generator) -> dict[str, float]:
    return row(*(resampling.with_replacement(rng, len(clips)) for clips in (reals, fakes)))

  scores = row(np.arange(len(reals)), np.arange(len(fakes)))
  return scores, resampling.intervals(scores, again, protocol.seed)
