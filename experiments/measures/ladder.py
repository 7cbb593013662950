"""The ladder: sets of clips that are drawn, measured and dropped part by part.

Memory holds one part of every set, whatever the number of clips. Only features and scores of a
clip are kept, and a few clips of each set to be shown.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.measures import nearest, set_scores
from videodiff_jax import shares
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.clips import Places
from videodiff_jax.metrics import baselines, frechet, i3d, images, kid, motion, resampling
from videodiff_jax.metrics.digit_reader import DigitReader

SHOWN = 6  # clips per set
_PART_BYTES = 2**26  # per set
_DECODERS = ("kl_vae", "reconstruction")
_OF_MOTION = ("real", "kl_vae", "reconstruction", "generated", "frozen")
_OF_DIGITS = ("real", "kl_vae", "reconstruction", "generated", "blurred")
_SEARCHED = ("generated", "real")

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """The clips that are encoded, and the conditions of their generated counterparts.

  Attributes:
    places: places of n clips.
    labels: (n,) classes, or None.
    prompts: n texts, or None.
  """

  places: Places
  labels: np.ndarray | None
  prompts: list[str] | None


@dataclasses.dataclass(frozen=True)
class Reading:
  """How digits are read.

  Attributes:
    reader: reader of digits.
    digits: (n,) classes of the held-out clips.
    conditioned: whether generated clips are given their class, by label or prompt.
  """

  reader: DigitReader
  digits: np.ndarray
  conditioned: bool


@dataclasses.dataclass
class Ladder:
  """Features, scores and a few clips that are kept of the sets.

  Attributes:
    reference: (m, 400), `i3d.features` of the clips that sets are compared with.
    features: set -> (n, 400).
    frames: prediction of the true frames -> 'psnr' and 'ssim' of each clip, (f,) each.
    motion: set -> 'jitter' and the other figures of `metrics.motion`, for each clip.
    paths: `motion.centroid` of each clip of 'real', of 'reconstruction' and of 'half', which is
      drawn half a frame later.
    edges: set -> `images.gradient_energy` of each clip.
    readings: set -> `digit_reader.Readings.figures` of each part.
    shown: set -> its first clips.
    searched: 'real' and 'generated' -> the first clips, whose nearest training clips are searched.
  """

  reference: np.ndarray | None = None
  features: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  frames: dict[str, list[Figures]] = dataclasses.field(default_factory=dict)
  motion: dict[str, list[Figures]] = dataclasses.field(default_factory=dict)
  paths: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
  edges: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  readings: dict[str, list[Figures]] = dataclasses.field(default_factory=dict)
  shown: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  searched: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def extend(self, part: "Ladder") -> None:
    """Adds the scores of further clips."""
    for field in ("frames", "motion", "paths", "edges", "readings"):
      for name, rows in getattr(part, field).items():
        getattr(self, field).setdefault(name, []).extend(rows)


def measure(
  pipeline: Pipeline,
  reference: Places,
  held_out: HeldOut,
  seed: int,
  with_motion: bool,
  reading: Reading | None = None,
) -> Ladder:
  """Draws and measures every set, all from the same held-out clips and noise."""
  found = Ladder()
  owners: list[str] = []  # set of each feature, in the order in which clips are given away
  size = _part_size(pipeline)

  def given_away() -> Iterator[np.ndarray]:
    for rows, count in _parts(len(reference), size):
      owners.extend(["reference"] * count)
      yield reference.read(rows[:count])
    shuffling = np.random.default_rng(seed)
    for rows, count in _parts(len(held_out.places), size):
      yield from sets_of(rows, count, shuffling)

  def sets_of(rows: np.ndarray, count: int, shuffling: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the sets of one part; afterwards nothing holds them, so the next part fits."""
    sets, at_half = _draw(pipeline, held_out, rows, seed, shuffling, with_motion)
    sets = {name: videos[:count] for name, videos in sets.items()}

    def score(mine: slice) -> Figures:
      """Scores this host's share of the clips."""
      part, of_share = Ladder(), {name: videos[mine] for name, videos in sets.items()}
      _score(part, of_share, None if at_half is None else at_half[mine], pipeline.config.data)
      if reading is not None:
        _read(part, of_share, reading, rows[mine])
      return vars(part)

    for part in shares.split(score, count):
      found.extend(Ladder(**part))
    for name, videos in sets.items():
      _show(found, name, videos)
      owners.extend([name] * count)
      yield videos

  features = i3d.features(given_away())
  by_set = {name: features[np.array(owners) == name] for name in dict.fromkeys(owners)}
  return dataclasses.replace(found, reference=by_set.pop("reference"), features=by_set)


def _part_size(pipeline: Pipeline) -> int:
  """Returns the number of clips in a part, a multiple of the devices."""
  data, devices = pipeline.config.data, pipeline.mesh.devices.size
  clip = data.num_frames * data.image_size**2 * data.channels
  return max(_PART_BYTES // clip // devices, 1) * devices


def _parts(total: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
  """Yields the clips of each part and how many of them count.

  The last part repeats its last clip, so that all parts have one shape and one compiled program.
  """
  size = min(size, total)
  for begin in range(0, total, size):
    yield np.minimum(np.arange(begin, begin + size), total - 1), min(size, total - begin)


def _draw(
  pipeline: Pipeline,
  held_out: HeldOut,
  rows: np.ndarray,
  seed: int,
  shuffling: np.random.Generator,
  with_motion: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
  """Draws a part of each set (n, f, h, w, c), and reconstructions at times between frames."""
  labels = None if held_out.labels is None else held_out.labels[rows]
  prompts = None if held_out.prompts is None else [held_out.prompts[row] for row in rows]
  given: dict[str, Any] = {
    "labels": labels,
    "prompts": prompts,
    "seed": seed,
    "first": int(rows[0]),
  }
  real = held_out.places.read(rows)
  features = pipeline.encode(real)

  def redraw(times: np.ndarray | None) -> np.ndarray:
    drawn = pipeline.redraw(features, frame_times=times, **given)
    return drawn.videos

  sets = {
    "real": real,
    "kl_vae": pipeline.reconstruct_frames(real),
    "reconstruction": redraw(None),
    "generated": pipeline.generate(len(rows), **given).videos,
    "shuffled": baselines.shuffled_frames(real, shuffling),
    "frozen": baselines.frozen_first_frame(real),
    # One clip at a time: blurring takes twelve times the clip's memory.
    "blurred": np.stack([baselines.blurred(clip) for clip in real]),
  }
  times = pipeline.frame_times
  return sets, redraw((times[:-1] + times[1:]) / 2) if with_motion else None


def _show(found: Ladder, name: str, videos: np.ndarray) -> None:
  """Keeps the first clips of a set."""
  _add_first(found.shown, name, videos, SHOWN)
  if name in _SEARCHED:
    _add_first(found.searched, name, videos, nearest.searched(videos[0].nbytes, SHOWN))


def _score(
  found: Ladder, sets: dict[str, np.ndarray], at_half: np.ndarray | None, data: Any
) -> None:
  """Adds the figures of a part, clip by clip."""
  keys = clips.keyframe_indices(data.num_frames, data.num_keyframes)
  for name, videos in sets.items():
    found.edges.setdefault(name, []).extend(images.gradient_energy(videos).mean(axis=-1))
  for i, true in enumerate(sets["real"]):
    predictions = {name: sets[name][i] for name in _DECODERS} | {
      "black": baselines.black(true),
      "mean frame": baselines.mean_frame(true),
      "nearest true keyframe": baselines.nearest_keyframe(true, keys),
      "cross-faded true keyframes": baselines.crossfaded_keyframes(true, keys),
    }
    for name, prediction in predictions.items():
      # An exact copy (a keyframe) would be infinite; 60 dB keeps the mean a number.
      psnr = np.minimum(images.psnr(prediction, true), 60.0)
      scores = {"psnr": psnr, "ssim": images.ssim(prediction, true)}
      found.frames.setdefault(name, []).append(scores)
    if at_half is None:
      continue
    for name in _OF_MOTION:
      clip = sets[name][i]
      scores = {"jitter": motion.jitter(clip), "identity_flicker": motion.identity_flicker(clip)}
      if name != "generated":
        scores["position_error"] = motion.position_error(clip, true)
      found.motion.setdefault(name, []).append(scores)
    for name, clip in (("real", true), ("reconstruction", sets["reconstruction"][i]),
                       ("half", at_half[i])):  # fmt: skip
      found.paths.setdefault(name, []).append(motion.centroid(clip))


def _add_first(kept: dict[str, np.ndarray], name: str, videos: np.ndarray, most: int) -> None:
  before = kept.get(name, videos[:0])
  kept[name] = np.concatenate([before, videos[: most - len(before)]])


def _read(found: Ladder, sets: dict[str, np.ndarray], reading: Reading, rows: np.ndarray) -> None:
  """Reads the digits in a part's clips and adds the figures."""
  for name in _OF_DIGITS:
    labels = reading.digits[rows] if name != "generated" or reading.conditioned else None
    figures = reading.reader.read(sets[name]).figures(labels)
    found.readings.setdefault(name, []).append(figures)


def set_figures(found: Ladder, seed: int) -> tuple[dict[str, Figures], dict[str, Figures]]:
  """Returns the groups of figures of the sets, and their intervals.

  'fvd', 'i3d_kernel_distance', 'i3d_precision' and 'i3d_recall' are against the reference clips;
  'i3d_inception_score' needs none. Only the named protocols compute the distance of frames, which
  takes too long for so many sets.
  """
  known, sets = found.reference, found.features
  assert known is not None  # `measure` has put it there
  counts = len(known), len(sets["real"])
  inside = {name: set_scores.Manifolds(known, x) for name, x in sets.items()}

  def figures(of_reference: np.ndarray, of_sets: np.ndarray) -> dict[tuple[str, str], float]:
    real, drawn = known[of_reference], {name: x[of_sets] for name, x in sets.items()}
    rows = {name: inside[name].figures(of_reference, of_sets) for name in sets}
    return {
      **{("fvd", name): frechet.fvd(real, x) for name, x in drawn.items()},
      **{("i3d_kernel_distance", n): kid.kernel_distance(real, x) for n, x in drawn.items()},
      **{(group, name): value for name, row in rows.items() for group, value in row.items()},
      **{("i3d_inception_score", n): set_scores.inception_score(x) for n, x in drawn.items()},
    }

  def again(rng: np.random.Generator) -> dict[tuple[str, str], float]:
    return figures(*(resampling.with_replacement(rng, count) for count in counts))

  def grouped(values: dict[tuple[str, str], Any]) -> dict[str, Figures]:
    groups = dict.fromkeys(group for group, _ in values)
    return {g: {n: value for (of, n), value in values.items() if of == g} for g in groups}

  scores = figures(*map(np.arange, counts))
  return grouped(scores), grouped(resampling.intervals(scores, again, seed))


def frame_figures(found: Ladder, seed: int) -> tuple[Figures, Figures, Figures]:
  """Returns means of 'psnr' and 'ssim', their intervals over clips, and the decoders' per frame."""
  scores, spread, curves = {}, {}, {}
  for name, rows in found.frames.items():
    each = {key: np.stack([row[key] for row in rows]) for key in rows[0]}  # (n, f)
    scores[name] = {key: float(values.mean()) for key, values in each.items()}

    def again(rng: np.random.Generator, each: dict[str, np.ndarray] = each) -> dict[str, float]:
      chosen = resampling.with_replacement(rng, len(each["psnr"]))
      return {key: values[chosen].mean() for key, values in each.items()}

    spread[name] = resampling.intervals(scores[name], again, seed)
    if name in _DECODERS:
      curves[name] = {key: values.mean(axis=0).round(5).tolist() for key, values in each.items()}
  return scores, spread, curves


def motion_figures(found: Ladder) -> Figures:
  """Returns each set's means over clips of `metrics.motion`, and the half-index slope."""
  sets = {
    name: {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    for name, rows in found.motion.items()
  }
  paths = {name: np.stack(of_clips) for name, of_clips in found.paths.items()}
  slope = motion.half_index_slope(paths["reconstruction"], paths["half"], paths["real"])
  return {"sets": sets, "half_index_slope": slope}


def sharpness_figures(found: Ladder, seed: int) -> tuple[Figures, Figures]:
  """Returns each set's `images.gradient_energy` relative to the real clips', and the intervals."""
  real = np.mean(found.edges["real"])
  ratios = {name: np.array(edges) / real for name, edges in found.edges.items()}
  return resampling.of_means(ratios, seed)
