"""GLOBER's --mode=evaluate --protocol=NAME: FVD and more by a named protocol, in evaluations/.

videodiff_jax/metrics/clip_protocols.py defines the clips and the measures of each protocol. Without
--protocol an evaluation is the ladder of glober_ladder.py.
"""

import functools
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import logging
from PIL import Image

from experiments.measures import digits, nearest, set_scores
from experiments.measures.looks import Looks
from experiments.sampling import glober_samples
from experiments.scoring import score_files
from experiments.setup import checks, errors, frame_stores
from experiments.workdirs import outputs
from videodiff_jax import shares
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import images, resampling
from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, ClipProtocol

CHUNK = 64  # clips drawn and held in memory at once; a chunk's index is added to the seed
_SHOWN = 6
_NEAREST = "nearest_training_clip"

Place = tuple[FrameStore, int, int]  # store, video of it, first frame of the clip
# Clips (n, f, h, w, c) uint8; scores beside FVD, name -> (n, f); and the classes (n,) that the
# clips were conditioned on, None without classes.
Chunks = Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray | None]]
Draw = Callable[[list[FrameStore], list[Place]], Chunks]


def evaluate(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict | None,
  name: str | ClipProtocol,
  reuse: bool = False,
) -> dict[str, Any]:
  """Scores a set of drawn clips against a set of real clips.

  Args:
    workdir: folder of the run; earlier evaluations there are kept.
    config: configuration whose `sample` replaces the workdir's own; or None.
    name: name of the protocol, or the protocol itself.
    reuse: whether to return an earlier evaluation of the same weights, settings and protocol.

  Raises:
    UserError: the protocol is unknown, or does not suit this run, data set or machine.
  """
  protocol = find_protocol(name) if isinstance(name, str) else name
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  data = pipeline.config.data
  if data.num_frames != protocol.num_frames:
    raise checks.UserError(
      f"Protocol {protocol.name!r} needs clips of {protocol.num_frames} frames, but this run was "
      f"trained on {data.num_frames}: choose another protocol, or train with "
      f"--config.data.num_frames={protocol.num_frames}."
    )
  sampler = frame_stores.clip_sampler(pipeline.config, "clip")
  draw = functools.partial(_draw, pipeline, protocol)
  read_digits = (config or pipeline.config).evaluate.digits
  return against_real(workdir, pipeline.config, protocol, sampler, draw, read_digits, reuse)


def against_real(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  protocol: ClipProtocol,
  sampler: clips.ClipSampler,
  draw: Draw,
  read_digits: bool,
  reuse: bool,
) -> dict[str, Any]:
  """Scores a system's clips against real ones, and writes the score file.

  Args:
    workdir: folder of the run.
    config: configuration of the pipeline that draws.
    protocol: which clips are scored, how many, and how they are compared.
    sampler: sampler with the length and stride of the real clips.
    draw: starts drawing; called after the checks for missing parts.
    read_digits: whether to add 'digits', `digit_reader.Readings.figures` of both sets.
    reuse: as in `evaluate`.
  """
  set_scores.locate()  # reported before the long sampling, not after it
  stores = [frame_stores.open_store(config, split) for split in protocol.splits]
  made_with = score_files.settings(workdir, config, stores[0])
  out = outputs.folder(workdir) / "evaluations"
  if reuse and (record := score_files.find(out, protocol, made_with)):
    return record
  places = choose(stores, sampler, protocol)
  training = frame_stores.open_store(config, "train")
  reader = digits.reader(training) if read_digits else None
  clip = protocol.num_frames * training.image_size**2 * training.channels
  most = nearest.searched(clip, _SHOWN)
  with checks.as_user_error():
    bank = nearest.one_of_each(training, sampler)
    # Real clips that the model has not seen; the protocol's own clips may be training clips.
    unseen = nearest.one_of_each(frame_stores.open_store(config, "test"), sampler, most)
    chunks = draw(stores, places)
  looks = {"real": Looks(reader, most), protocol.drawn: Looks(reader, most)}
  frames: dict[str, list[np.ndarray]] = {}

  def real() -> Iterator[np.ndarray]:
    labels = np.array([store.videos[video]["label"] for store, video, _ in places])
    for videos in read(places, stride, protocol):
      of_chunk, labels = labels[: len(videos)], labels[len(videos) :]
      looks["real"].add(videos, of_chunk)
      yield videos

  def drawn() -> Iterator[np.ndarray]:
    for videos, of_frames, classes in chunks:
      for name, values in of_frames.items():
        frames.setdefault(name, []).append(values)
      looks[protocol.drawn].add(videos, classes)
      yield videos

  stride = config.data.stride
  reals = set_scores.features(real(), protocol.i3d_resize)
  fakes = set_scores.features(drawn(), protocol.i3d_resize)
  edges = np.array(looks["real"].edges), np.array(looks[protocol.drawn].edges)
  scores, spread = score(reals, fakes, frames, edges, protocol)
  groups: dict[str, Any] = {protocol.drawn: scores}
  spreads: dict[str, Any] = {protocol.drawn: spread}
  if reader is not None:
    parts = {name: look.readings for name, look in looks.items()}
    groups["digits"], spreads["digits"] = digits.summary(parts, protocol.seed)
  shown = {name: look.first for name, look in looks.items()}
  if protocol.drawn == "generated":
    searched = {"generated": shown["generated"], "real": unseen.read()}
    near, groups[_NEAREST], spreads[_NEAREST] = nearest.search(searched, bank)
    shown["nearest training clip"] = near["generated"]
  record = {
    "protocol": protocol.written(),
    "scores": groups,
    "intervals": spreads,
    "settings": {
      **made_with,
      **set_scores.SETTINGS,
      "num_real": len(reals),
      "num_drawn": len(fakes),
      "clips_per_seed": CHUNK,
    },
    **score_files.provenance(config),
  }
  file = score_files.write(out, record, {what: videos[:_SHOWN] for what, videos in shown.items()})
  logging.info(
    "%s of %d clips against %d real ones: %s. Written to %s.",
    protocol.drawn, len(fakes), len(reals),
    ", ".join(f"{key} {value:.4g}" for key, value in scores.items()), file,
  )  # fmt: skip
  return record


def find_protocol(name: str) -> ClipProtocol:
  """Returns the protocol of a name; UserError for an unknown one lists all."""
  return errors.entry("protocol", name, CLIP_PROTOCOLS)


def choose(
  stores: list[FrameStore], sampler: clips.ClipSampler, protocol: ClipProtocol
) -> list[Place]:
  """Picks a random clip from each of the protocol's number of random videos, or from all videos.

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
  """Passes clips (n, f, h, w, c) uint8 through JPEG in 4:2:0, frame by frame."""
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
  """Reads the clips at these places, in chunks (n, f, h, w, c)."""
  at = np.arange(protocol.num_frames) * stride
  for begin in range(0, len(places), CHUNK):
    chunk = places[begin : begin + CHUNK]
    yield np.stack([store.read(video, start + at) for store, video, start in chunk])


def _draw(
  pipeline: Pipeline, protocol: ClipProtocol, stores: list[FrameStore], places: list[Place]
) -> Chunks:
  """Draws clips under the conditions of random videos, or reconstructions of the real clips.

  Reconstructions come with the PSNR and SSIM of each frame.
  """
  conditions = [
    glober_samples.conditions_of(pipeline, store, np.arange(store.num_videos)) for store in stores
  ]
  labels, prompts = zip(*conditions)
  labels = None if labels[0] is None else np.concatenate(labels)
  prompts = None if prompts[0] is None else [p for some in prompts for p in some]
  if prompts:
    pipeline.encode_prompts(prompts[:1])  # a missing encoder is reported now
  counts = [store.num_videos for store in stores]
  classes = [digits.labels_of(store, np.arange(store.num_videos)) for store in stores]
  first = dict(zip(map(id, stores), np.cumsum([0, *counts[:-1]]).tolist()))

  def condition(videos: np.ndarray) -> dict[str, Any]:
    """Returns the conditions of videos; their indices count through all splits."""
    return {
      "labels": None if labels is None else labels[videos],
      "prompts": None if prompts is None else [prompts[video] for video in videos],
    }

  def generated() -> Chunks:
    for seed, count in chunks_of(protocol, protocol.num_drawn):
      random = np.random.default_rng(seed).integers(0, sum(counts), count)
      drawn = pipeline.generate(count, seed=seed, **condition(random)).videos
      drawn_classes = np.concatenate(classes)[random] if labels is not None or prompts else None
      yield _coded(drawn, protocol), {}, drawn_classes

  def reconstructed() -> Chunks:
    chosen = places[: protocol.num_drawn]
    videos = np.array([first[id(store)] + video for store, video, _ in chosen])
    real = read(chosen, pipeline.config.data.stride, protocol)
    for (seed, count), true in zip(chunks_of(protocol, len(chosen)), real):
      of_chunk, videos = videos[:count], videos[count:]
      drawn = pipeline.reconstruct(true, seed=seed, **condition(of_chunk)).videos
      drawn = _coded(drawn, protocol)
      yield drawn, _compared(drawn, true), np.concatenate(classes)[of_chunk]

  return generated() if protocol.drawn == "generated" else reconstructed()


def _compared(drawn: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
  """Returns PSNR and SSIM of each frame, (n, f); each host compares its share of the clips."""

  def compare(rows: slice) -> list[np.ndarray]:
    psnr = np.minimum(images.psnr(drawn[rows], true[rows]), 60.0)  # a copy would be infinite
    return [psnr, images.ssim(drawn[rows], true[rows])]

  psnr, ssim = map(np.concatenate, zip(*shares.split(compare, len(drawn))))
  return {"psnr": psnr, "ssim": ssim}


def chunks_of(protocol: ClipProtocol, total: int) -> Iterator[tuple[int, int]]:
  """Yields the seed and the number of clips of each chunk."""
  for number, begin in enumerate(range(0, total, CHUNK)):
    yield protocol.seed + number, min(CHUNK, total - begin)


def _coded(videos: np.ndarray, protocol: ClipProtocol) -> np.ndarray:
  return videos if protocol.jpeg_quality is None else as_jpeg(videos, protocol.jpeg_quality)


def score(
  reals: set_scores.Features,
  fakes: set_scores.Features,
  frames: dict[str, list[np.ndarray]],
  edges: tuple[np.ndarray, np.ndarray],
  protocol: ClipProtocol,
) -> tuple[dict[str, float], dict[str, list[float]]]:
  """Computes figures of the drawn set, means over frames, and their intervals over clips.

  'sharpness' is the drawn clips' `edges` divided by the real ones'.
  """
  each = {name: np.concatenate(chunks).mean(axis=1) for name, chunks in frames.items()}
  inside = set_scores.Manifolds(reals.logits, fakes.logits)

  def row(of_real: np.ndarray, of_drawn: np.ndarray) -> dict[str, float]:
    real = reals.take(of_real)
    figures = set_scores.figures(real, fakes.take(of_drawn), protocol.covariance)
    figures["i3d_inception_score_of_real"] = set_scores.inception_score(real.logits)
    figures |= inside.figures(of_real, of_drawn)
    figures["sharpness"] = float(edges[1][of_drawn].mean() / edges[0][of_real].mean())
    return figures | {name: float(values[of_drawn].mean()) for name, values in each.items()}

  def again(rng: np.random.Generator) -> dict[str, float]:
    return row(*(resampling.with_replacement(rng, len(clips)) for clips in (reals, fakes)))

  scores = row(np.arange(len(reals)), np.arange(len(fakes)))
  return scores, resampling.intervals(scores, again, protocol.seed)
