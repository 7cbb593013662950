"""Clips from a frame store: which frames a batch needs, in one order on any number of hosts.

The order of examples is a pure function of (store, sampler, seed), and a position in it is one
integer, the number of examples consumed: that is all a checkpoint keeps to resume.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import grain.python as grain
import numpy as np
from absl import flags, logging

from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.inputs.latent_cache import Moments

CONTENTS = ("frames", "pairs", "keys", "clip")
SAMPLINGS = ("video", "clip")
_ENDLESS = 2**48  # Examples.


def keyframe_indices(num_frames: int, num_keyframes: int) -> np.ndarray:
  """Keyframes at equal intervals from first frame to last: [0, 5, 10, 15] for 16 and 4."""
  if not 1 <= num_keyframes <= num_frames:
    raise ValueError(
      f"A clip of {num_frames} frames has 1 to {num_frames} keyframes, not {num_keyframes}."
    )
  return np.linspace(0, num_frames - 1, num_keyframes).round().astype(np.int64)


@dataclasses.dataclass(frozen=True)
class ClipSampler:
  """What is drawn from a video.

  Attributes:
    num_frames: F, frames of a clip.
    stride: stored frames from one frame of the clip to the next.
    stride_multiples: of `stride`; a training clip draws one of those its video is long enough for.
    num_keyframes: K, frames that the video encoder sees.
    num_targets: frames drawn at random out of the clip, all different.
    flip: mirror half of the clips, each as a whole.
    content: what a batch holds: 'frames' (targets alone), 'pairs' (keyframes and targets),
      'keys' (keyframes alone) or 'clip' (all F frames).
    sampling: one item is a 'video', its start drawn anew each epoch, or a 'clip', so that an
      epoch visits every start of every video.
    frame_time_divisor: frame time is index / divisor: F in the paper's configurations (the
      default), F - 1 where the last frame is to be time 1.
  """

  num_frames: int
  stride: int = 1
  num_keyframes: int = 4
  num_targets: int = 2
  flip: bool = False
  content: Literal["frames", "pairs", "keys", "clip"] = "pairs"
  sampling: Literal["video", "clip"] = "video"
  frame_time_divisor: int | None = None
  stride_multiples: tuple[int, ...] = (1,)

  def __post_init__(self) -> None:
    for name, choices in (("content", CONTENTS), ("sampling", SAMPLINGS)):
      if getattr(self, name) not in choices:
        raise ValueError(f"Unknown {name} {getattr(self, name)!r}; choose {', '.join(choices)}.")
    if self.content in ("pairs", "keys"):
      keyframe_indices(self.num_frames, self.num_keyframes)
    if self.content in ("pairs", "frames") and not 1 <= self.num_targets <= self.num_frames:
      raise ValueError(
        f"A clip of {self.num_frames} frames has 1 to {self.num_frames} target frames, "
        f"not {self.num_targets}."
      )

  @property
  def span(self) -> int:
    """Stored frames from a clip's first to its last, both counted."""
    return (self.num_frames - 1) * self.stride + 1


def count_starts(store: FrameStore, sampler: ClipSampler) -> np.ndarray:
  """How many clips start in each video, (num_videos,): 0 where a video is too short.

  Raises:
    ValueError: no video is long enough.
  """
  frames = np.array([video["frames"] for video in store.videos], np.int64)
  starts = np.maximum(frames - sampler.span + 1, 0)
  if not starts.any():
    raise ValueError(
      f"No video of the {store.split} split has the {sampler.span} frames of a clip "
      f"({sampler.num_frames} at stride {sampler.stride}); the longest has {frames.max()}. "
      "Choose fewer frames or a smaller stride."
    )
  if short := int((starts == 0).sum()):
    logging.info(
      "%d of %d %s videos are shorter than a clip of %d frames and are left out.",
      short, len(starts), store.split, sampler.span,
    )  # fmt: skip
  return starts


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_items: int) -> np.ndarray:
  """One epoch's order. Grain's own shuffle takes 4 ms an item where these are few."""
  return np.random.default_rng([0, seed, epoch]).permutation(num_items)


def _position(rows: Sequence[int], global_batch: int, start: int, index: int) -> int:
  """The place in the endless order of the index-th example that one host reads."""
  step, row = divmod(index, len(rows))
  return start + step * global_batch + rows[row]


class _Draw:
  """Position in the endless order to one clip's places: a pure function of (seed, position)."""

  def __init__(self, sampler: ClipSampler, starts: np.ndarray, seed: int):
    """`starts` (multiples, num_videos): how many clips there are."""
    self._sampler, self._starts, self._seed = sampler, starts, seed
    self._usable, self._ends = np.flatnonzero(starts.any(axis=0)), np.cumsum(starts)
    self._num_items = int(starts.sum() if sampler.sampling == "clip" else len(self._usable))

  def __call__(self, position: int) -> dict[str, Any]:
    sampler = self._sampler
    epoch, place = divmod(position, self._num_items)
    item = _epoch_order(self._seed, epoch, self._num_items)[place]
    rng = np.random.default_rng([1, self._seed, position])
    if sampler.sampling == "video":
      video = self._usable[item]
      fitting = np.flatnonzero(self._starts[:, video])
      multiple = rng.choice(fitting) if len(fitting) > 1 else fitting[0]
      start = rng.integers(self._starts[multiple, video])
    else:
      row = np.searchsorted(self._ends, item, side="right")
      multiple, video = np.unravel_index(row, self._starts.shape)
      start = item - self._ends[row] + self._starts[multiple, video]
    flip = sampler.flip and rng.random() < 0.5
    targets = np.arange(sampler.num_frames if sampler.content == "clip" else 0)
    if sampler.content in ("pairs", "frames"):
      targets = np.sort(rng.choice(sampler.num_frames, sampler.num_targets, replace=False))
    stride = sampler.stride * sampler.stride_multiples[multiple]
    return {"video": video, "start": start, "stride": stride, "flip": flip, "targets": targets}


class _Read:
  """A clip's places to its arrays; runs in the loader's threads."""

  def __init__(self, store: FrameStore, sampler: ClipSampler, moments: Moments | None):
    self._store, self._sampler, self._moments = store, sampler, moments
    self._keys = np.zeros(0, np.int64)
    if sampler.content in ("pairs", "keys"):
      self._keys = keyframe_indices(sampler.num_frames, sampler.num_keyframes)

  def __call__(self, draw: dict[str, Any]) -> dict[str, np.ndarray]:
    sampler, keys, targets = self._sampler, self._keys, draw["targets"]
    example = {
      "video": np.int32(draw["video"]),
      "start": np.int32(draw["start"]),
      "label": np.int32(self._store.videos[draw["video"]]["label"]),
    }
    if sampler.content in ("frames", "clip"):
      return example | {"frames": self._frames(draw, targets)}
    if sampler.content == "pairs":
      divisor = sampler.frame_time_divisor or sampler.num_frames
      example["target_times"] = (targets / divisor).astype(np.float32)
    if self._moments is not None:
      return example | self._of_moments(draw)
    frames = self._frames(draw, np.concatenate([keys, targets]))
    example["key_frames"] = frames[: len(keys)]
    if sampler.content == "pairs":
      example["target_frames"] = frames[len(keys) :]
    return example

  def _frames(self, draw: dict[str, Any], indices: np.ndarray) -> np.ndarray:
    wanted, places = np.unique(indices, return_inverse=True)
    frames = self._store.read(draw["video"], draw["start"] + wanted * draw["stride"])[places]
    return frames[:, :, ::-1] if draw["flip"] else frames

  def _of_moments(self, draw: dict[str, Any]) -> dict[str, np.ndarray]:
    moments, video, flip = self._moments, draw["video"], draw["flip"]
    if moments.kind == "global_features":
      return {"global_features": moments.read(video, draw["start"], flip)}
    read = {"key_moments": self._keys}
    if self._sampler.content == "pairs":
      read["target_moments"] = draw["targets"]
    example = {
      name: moments.read(video, draw["start"] + indices * draw["stride"], flip)
      for name, indices in read.items()
    }
    if moments.target_frames and "target_moments" in read:
      example["target_frames"] = self._frames(draw, draw["targets"])
    return example


def batches(
  store: FrameStore,
  sampler: ClipSampler,
  seed: int,
  global_batch: int,
  start_examples: int = 0,
  rows: Sequence[int] | None = None,
  num_workers: int = 0,
  num_threads: int = 4,
  moments: Moments | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches of one order, or of each the rows that this host's devices take.

  Row n of a batch is the same example however many hosts there are, so that it meets the same
  noise. Epochs are shuffled anew; a batch may span two, and a store smaller than a batch repeats
  within it.

  Args:
    store: where frames come from. Only the frames a batch needs are read.
    sampler: what is drawn from a video.
    seed: of order and draws.
    global_batch: examples a step, on all hosts together.
    start_examples: examples consumed before, on all hosts together: resumes there exactly.
    rows: b of the rows 0 .. global_batch - 1; by default all of them.
    num_workers: processes that read ahead. Threads alone are faster on few cores; each worker
      keeps its own frames in memory.
    num_threads: threads that read ahead, a batch each: they bound the memory taken.
    moments: in place of the frames of 'pairs' and 'keys'.

  Returns:
    Iterator over dicts: `video`, `start` (in stored frames), `label`, each int32 (b,), and by
    content `frames` uint8 (b, n, h, w, c), `key_frames` (b, K, h, w, c), `target_frames`
    (b, T, h, w, c) with `target_times` float32 (b, T), strictly increasing. With moments,
    `key_moments` (b, K, H', W', 2 C') and `target_moments`, or `global_features` (b, H'', W'',
    2 C'') alone.

  Raises:
    ValueError: no video is long enough.
  """
  rows = range(global_batch) if rows is None else rows
  strides = [sampler.stride * multiple for multiple in sampler.stride_multiples]
  starts = [count_starts(store, dataclasses.replace(sampler, stride=stride)) for stride in strides]
  draw = _Draw(sampler, np.stack(starts), seed)
  position = functools.partial(_position, rows, global_batch, start_examples)
  examples = grain.MapDataset.range(_ENDLESS).map(position).map(draw)
  examples = examples.map(_Read(store, sampler, moments))
  loader = examples.batch(len(rows)).to_iter_dataset(
    grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
  )
  if num_workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain reads a flag, also outside absl's main.
    loader = loader.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
    )
  return iter(loader)


def read_clip(
  store: FrameStore,
  sampler: ClipSampler,
  video: int,
  start: int,
  flip: bool,
  moments: Moments | None = None,
) -> dict[str, np.ndarray]:
  """The example of `batches` that is one clip, of content 'keys' or 'clip'."""
  places = np.arange(sampler.num_frames if sampler.content == "clip" else 0)
  draw = {"video": video, "start": start, "flip": flip, "stride": sampler.stride, "targets": places}
  return _Read(store, sampler, moments)(draw)


@dataclasses.dataclass(frozen=True)
class Places:
  """Where n whole clips are in a store.

  Attributes:
    store: a split.
    sampler: says how long they are.
    videos: int32 (n,).
    starts: int32 (n,), their first stored frames.
  """

  store: FrameStore
  sampler: ClipSampler
  videos: np.ndarray
  starts: np.ndarray

  def __len__(self) -> int:
    return len(self.videos)

  def read(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
    """The clips of these numbers, by default all: uint8 (m, F, h, w, c)."""
    at = np.arange(self.sampler.num_frames) * self.sampler.stride
    places = zip(self.videos[chosen], self.starts[chosen])
    return np.stack([self.store.read(video, start + at) for video, start in places])


def evaluation_clips(
  store: FrameStore, sampler: ClipSampler, num_clips: int, seed: int, spaced: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The clips of `evaluation_places`, their videos and starts; memory must hold them all."""
  places = evaluation_places(store, sampler, num_clips, seed, spaced)
  return places.read(), places.videos, places.starts


def shown_clips(
  store: FrameStore, sampler: ClipSampler, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Clips to look at (n, F, h, w, c) and their videos: `most`, or as many as the split can give.

  Raises:
    ValueError: no video is long enough.
  """
  count = min(most, store.num_videos, int(count_starts(store, sampler).sum()))
  clips, videos, _ = evaluation_clips(store, sampler, count, seed)
  return clips, videos


def evaluation_places(
  store: FrameStore, sampler: ClipSampler, num_clips: int, seed: int, spaced: bool = False
) -> Places:
  """Different whole clips for scores, the same at every call; never mirrored, at `stride` itself.

  Every video gives one clip before any gives a second, so clips are as independent as can be.

  Args:
    store: a split.
    sampler: says how long they are.
    num_clips: how many.
    seed: of the videos and of where clips begin.
    spaced: one clip each of videos spaced evenly from the first to the last that is long enough,
      in place of random ones.

  Raises:
    ValueError: the split holds fewer different clips.
  """
  starts = count_starts(store, sampler)
  if num_clips > starts.sum():
    raise ValueError(
      f"{num_clips} clips were asked for, but the {store.split} split holds only "
      f"{starts.sum()} different ones of {sampler.span} frames: ask for fewer."
    )
  usable = np.flatnonzero(starts)
  if spaced and num_clips > len(usable):
    raise ValueError(f"{num_clips} videos cannot be spaced over {len(usable)} long enough.")
  rng = np.random.default_rng(seed)
  orders = [rng.permutation(count) for count in starts]
  chosen: list[tuple[int, int]] = []
  if spaced:
    even = np.linspace(0, len(usable) - 1, num_clips).round().astype(int)
    chosen = [(video, orders[video][0]) for video in usable[even]]
  while len(chosen) < num_clips:
    for video in rng.permutation(len(orders)):
      if len(orders[video]):
        chosen.append((video, orders[video][0]))
        orders[video] = orders[video][1:]
  return Places(store, sampler, *np.array(chosen[:num_clips], np.int32).T)
