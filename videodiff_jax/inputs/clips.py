"""Reads batches of clips from a frame store, in the same order on any number of hosts.

The order of examples is a pure function of (store, sampler, seed). A position in it is one integer,
the number of examples consumed, which is all that a checkpoint keeps to resume.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import grain.python as grain
import numpy as np
from absl import flags, logging

from videodiff_jax.choices import check_choice
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.inputs.latent_cache import Moments

Content = Literal["frames", "pairs", "keys", "clip"]
Sampling = Literal["video", "clip"]
CONTENTS, SAMPLINGS = get_args(Content), get_args(Sampling)
_ENDLESS = 2**48  # examples


def keyframe_indices(num_frames: int, num_keyframes: int) -> np.ndarray:
  """Returns keyframes at equal intervals, first and last included: [0, 5, 10, 15] for (16, 4)."""
  if not 1 <= num_keyframes <= num_frames:
    raise ValueError(
      f"A clip of {num_frames} frames has 1 to {num_frames} keyframes, not {num_keyframes}."
    )
  return np.linspace(0, num_frames - 1, num_keyframes).round().astype(np.int64)


@dataclasses.dataclass(frozen=True)
class ClipSampler:
  """How clips are sampled from videos, and what a batch holds.

  Attributes:
    num_frames: F, frames of a clip.
    stride: stored frames from one frame of the clip to the next.
    stride_multiples: multiples of `stride`; each training clip draws one at random among those
      that its video is long enough for.
    num_keyframes: K, frames that the video encoder sees.
    num_targets: T, distinct frames drawn at random from the clip.
    flip: if True, mirrors half of the clips, each as a whole.
    content: what a batch holds: 'frames' (targets only), 'pairs' (keyframes and targets),
      'keys' (keyframes only) or 'clip' (all F frames).
    sampling: 'video' visits each video once per epoch, with a random start; 'clip' visits every
      start of every video once per epoch.
    frame_time_divisor: frame time is index / divisor. The default is F, as in the paper's
      configurations; F - 1 gives the last frame time 1.
  """

  num_frames: int
  stride: int = 1
  num_keyframes: int = 4
  num_targets: int = 2
  flip: bool = False
  content: Content = "pairs"
  sampling: Sampling = "video"
  frame_time_divisor: int | None = None
  stride_multiples: tuple[int, ...] = (1,)

  def __post_init__(self) -> None:
    check_choice("content", self.content, CONTENTS)
    check_choice("sampling", self.sampling, SAMPLINGS)
    if self.content in ("pairs", "keys"):
      keyframe_indices(self.num_frames, self.num_keyframes)
    if self.content in ("pairs", "frames") and not 1 <= self.num_targets <= self.num_frames:
      raise ValueError(
        f"A clip of {self.num_frames} frames has 1 to {self.num_frames} target frames, "
        f"not {self.num_targets}."
      )

  @property
  def span(self) -> int:
    """Number of stored frames from a clip's first frame to its last, both included."""
    return (self.num_frames - 1) * self.stride + 1


def count_starts(store: FrameStore, sampler: ClipSampler) -> np.ndarray:
  """Counts the clips that start in each video, (num_videos,); 0 where a video is too short.

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
  """Returns one epoch's order. Grain's own shuffle takes 4 ms per item where items are few."""
  return np.random.default_rng([0, seed, epoch]).permutation(num_items)


def _position(rows: Sequence[int], global_batch: int, start: int, index: int) -> int:
  """Returns the position in the endless order of the index-th example that one host reads."""
  step, row = divmod(index, len(rows))
  return start + step * global_batch + rows[row]


class _Draw:
  """Maps a position in the endless order to one clip's place; a pure function of both and seed."""

  def __init__(self, sampler: ClipSampler, starts: np.ndarray, seed: int):
    """`starts` (multiples, num_videos) counts the clips at each stride of each video."""
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
  """Maps a clip's place to its arrays; runs in the loader's threads."""

  def __init__(self, store: FrameStore, sampler: ClipSampler, moments: Moments | None):
    self._store, self._sampler, self._moments = store, sampler, moments
    self._keys = np.zeros(0, np.int64)
    if sampler.content in ("pairs", "keys"):
      self._keys = keyframe_indices(sampler.num_frames, sampler.num_keyframes)

  def __call__(self, draw: dict[str, Any]) -> dict[str, Any]:
    sampler, keys, targets = self._sampler, self._keys, draw["targets"]
    example: dict[str, Any] = {
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
      return example | self._of_moments(self._moments, draw)
    frames = self._frames(draw, np.concatenate([keys, targets]))
    example["key_frames"] = frames[: len(keys)]
    if sampler.content == "pairs":
      example["target_frames"] = frames[len(keys) :]
    return example

  def _frames(self, draw: dict[str, Any], indices: np.ndarray) -> np.ndarray:
    wanted, places = np.unique(indices, return_inverse=True)
    frames = self._store.read(draw["video"], draw["start"] + wanted * draw["stride"])[places]
    return frames[:, :, ::-1] if draw["flip"] else frames

  def _of_moments(self, moments: Moments, draw: dict[str, Any]) -> dict[str, np.ndarray]:
    video, flip = draw["video"], draw["flip"]
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
  """Yields endless batches in a fixed order; with `rows`, only this host's rows of each batch.

  Row n of a batch is the same example on any number of hosts, so that it gets the same noise.
  Each epoch has its own shuffle. A batch may span two epochs, and a store smaller than a batch
  repeats within it.

  Args:
    store: where frames come from; only the frames that a batch needs are read.
    sampler: how clips are sampled, and what a batch holds.
    seed: seed of the order and of all random choices.
    global_batch: examples per step, over all hosts.
    start_examples: examples consumed before, over all hosts; reading resumes exactly there.
    rows: this host's b rows among 0 .. global_batch - 1; all of them by default.
    num_workers: processes that read ahead. With few cores, threads without processes are faster.
      Each worker keeps its own frames in memory.
    num_threads: threads that read ahead, one batch each; they bound the memory used.
    moments: cached moments that replace the frames of 'pairs' and 'keys'.

  Returns:
    An iterator over dicts with `video`, `start` (in stored frames) and `label`, each int32 (b,).
    By content they also hold `frames` uint8 (b, n, h, w, c), `key_frames` uint8 (b, K, h, w, c),
    `target_frames` uint8 (b, T, h, w, c), and with the latter `target_times` float32 (b, T),
    strictly increasing. With moments they hold `key_moments` (b, K, H', W', 2 C') and
    `target_moments` (b, T, H', W', 2 C'), or only `global_features` (b, H'', W'', 2 C'').

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
      flags.FLAGS.mark_as_parsed()  # grain reads an absl flag even where absl's main did not run
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
  """Reads one clip as an example of `batches`; the content must be 'keys' or 'clip'."""
  places = np.arange(sampler.num_frames if sampler.content == "clip" else 0)
  draw = {"video": video, "start": start, "flip": flip, "stride": sampler.stride, "targets": places}
  return _Read(store, sampler, moments)(draw)


@dataclasses.dataclass(frozen=True)
class Places:
  """The places of n whole clips in a store.

  Attributes:
    store: a split.
    sampler: gives the clips' length and stride.
    videos: int32 (n,), indices of the clips' videos.
    starts: int32 (n,), indices of the clips' first stored frames.
  """

  store: FrameStore
  sampler: ClipSampler
  videos: np.ndarray
  starts: np.ndarray

  def __len__(self) -> int:
    return len(self.videos)

  def read(self, chosen: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
    """Reads the chosen clips, all by default: uint8 (m, F, h, w, c)."""
    at = np.arange(self.sampler.num_frames) * self.sampler.stride
    places = zip(self.videos[chosen], self.starts[chosen])
    return np.stack([self.store.read(video, start + at) for video, start in places])


def evaluation_clips(
  store: FrameStore, sampler: ClipSampler, num_clips: int, seed: int, spaced: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Reads the clips of `evaluation_places` into memory.

  Returns:
    (clips uint8 (n, F, h, w, c), videos int32 (n,), starts int32 (n,)).
  """
  places = evaluation_places(store, sampler, num_clips, seed, spaced)
  return places.read(), places.videos, places.starts


def shown_clips(
  store: FrameStore, sampler: ClipSampler, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Reads clips (n, F, h, w, c) to look at, and the indices (n,) of their videos.

  n is `most`, or fewer where the split has fewer videos or clips.

  Raises:
    ValueError: no video is long enough.
  """
  count = min(most, store.num_videos, int(count_starts(store, sampler).sum()))
  clips, videos, _ = evaluation_clips(store, sampler, count, seed)
  return clips, videos


def evaluation_places(
  store: FrameStore, sampler: ClipSampler, num_clips: int, seed: int, spaced: bool = False
) -> Places:
  """Chooses distinct whole clips for scores, the same ones at every call.

  The clips are never mirrored and have the sampler's own `stride`. Every video gives one clip
  before any video gives a second, so that the clips are as independent as possible.

  Args:
    store: a split.
    sampler: gives the clips' length and stride.
    num_clips: n, the number of clips.
    seed: seed of the choice of videos and starts.
    spaced: if True, takes one clip from each of n videos that are evenly spaced over the videos
      long enough, instead of random videos.

  Raises:
    ValueError: the split holds fewer distinct clips, or `spaced` and it has fewer videos.
  """
  starts = count_starts(store, sampler)
  if num_clips > starts.sum():
    raise ValueError(
      f"{num_clips} clips were asked for, but the {store.split} split holds only "
      f"{starts.sum()} distinct clips of {sampler.span} frames: ask for fewer."
    )
  usable = np.flatnonzero(starts)
  if spaced and num_clips > len(usable):
    raise ValueError(
      f"{num_clips} videos were asked for, but only {len(usable)} are long enough: ask for fewer."
    )
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
