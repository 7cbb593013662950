"""The library: a trained LGC-VD that predicts, fills in and generates videos of any length."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from absl import logging
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from videodiff_jax import typed
from videodiff_jax.lgcvd import gaps, stages
from videodiff_jax.lgcvd.conditioning import EMPTY, given_positions
from videodiff_jax.lgcvd.networks import Networks, build, make_objective, make_rollout, strides
from videodiff_jax.lgcvd.rollout import Rollout, sampling_params
from videodiff_jax.models.pixels import to_float, to_uint8
from videodiff_jax.training import exported, partitioning
from videodiff_jax.training.workdir import (
  building,
  load_ema,
  load_state,
  read_config,
  with_settings,
)

# Of (which (b, 2), each trajectory's video and its number there; videos (b, f, h, w, c) uint8).
Chunks = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Samples:
  """Drawn videos.

  Attributes:
    videos: (n N, f, h, w, c) uint8, given frames included: the N trajectories of the first of n
      videos, then those of the second, and so on.
    positions: (p,) where the given frames are among the f.
    seed: of every draw.
    trajectories: N.
  """

  videos: np.ndarray
  positions: np.ndarray
  seed: int
  trajectories: int = 1

  @property
  def by_video(self) -> np.ndarray:
    """(n, N, f, h, w, c): `videos` with the trajectories of each video on an axis of their own."""
    return self.videos.reshape(-1, self.trajectories, *self.videos.shape[1:])


class Pipeline:
  """LGC-VD with trained weights.

  Trajectory j of video n draws from fold_in(fold_in(key(seed), n), j) alone: it is the same
  whatever the numbers of both, the length, the chunks or the devices (up to rounding). Every
  length runs the same compiled function, once a fragment. Given frames where training
  (`config.tasks`) never gave any are told in a warning.

  Settings come from `config.sample`; change them on a copy: `pipeline.with_settings(...)`.
  """

  def __init__(self, config: ml_collections.ConfigDict, weights: dict[str, Any], mesh: Mesh):
    """`weights` has the parameters' average, 'ema', and where they are at hand the 'raw' ones."""
    self.config = ml_collections.FrozenConfigDict(config)
    sampled = ml_collections.ConfigDict(self.config.to_dict())
    sampled.precision = config.sample.precision or config.precision
    self.networks: Networks = build(sampled)
    self.rollout: Rollout = make_rollout(config, self.networks)
    self.params = sampling_params(weights.get("raw"), weights["ema"], config.sample.encoder_weights)
    self.mesh = mesh
    self._weights = weights

  @classmethod
  def from_workdir(cls, workdir: str | pathlib.Path, **settings: Any) -> "Pipeline":
    """Loads the newest complete checkpoint of a workdir, or what was exported of one.

    Args:
      workdir: as given to training, or an exported folder.
      **settings: replace entries of `config.sample`, as in `with_settings`.

    Raises:
      CheckpointError: no workdir, no checkpoint in it, or a configuration whose values nothing can
        be built of.
    """
    workdir = typed.path(workdir)
    config = read_config(workdir)
    mesh = partitioning.make_mesh()
    (name,) = stages.NAMES
    with building(workdir):
      stage = stages.make_stage(config, name)
      if exported.is_one(workdir):
        weights = {"ema": load_ema(config, workdir, stage, mesh)["ema_params"]}
      else:
        state = load_state(config, workdir, stage, mesh)
        weights = {"raw": state.params, "ema": state.ema_params}
      pipeline = cls(config, weights, mesh)
    return pipeline.with_settings(**settings)

  def with_settings(self, **settings: Any) -> "Pipeline":
    """A pipeline with the same weights and other entries of `config.sample`.

    `sampler` takes a dict that replaces single keys (kind, num_steps, grid, eta).
    """
    return Pipeline(with_settings(self.config, settings), self._weights, self.mesh)

  def predict(
    self, frames: np.ndarray, *, num_frames: int, trajectories: int = 1, seed: int = 0
  ) -> Samples:
    """Goes on from given frames.

    Args:
      frames: (n, p, h, w, c) uint8, p from 1 to k: the past.
      num_frames: how many to draw after them.
      trajectories: N, different futures of each video.
      seed: of every draw.
    """
    chunks = self.predict_chunks(
      frames, num_frames=num_frames, trajectories=trajectories, seed=seed
    )
    return _gathered(chunks, len(frames), trajectories, np.arange(frames.shape[1]), seed)

  def predict_chunks(
    self,
    frames: np.ndarray,
    *,
    num_frames: int,
    trajectories: int = 1,
    seed: int = 0,
    begin: int = 0,
  ) -> Chunks:
    """What `predict` draws, in chunks: memory does not grow with the number of trajectories.

    Args:
      frames: as of `predict`, like the next three.
      num_frames: as there.
      trajectories: as there.
      seed: as there.
      begin: trajectories, all videos' counted one after another, that were drawn before: a
        multiple of a chunk's. The rest is as it would have been.

    Yields:
      ((b, 2): each trajectory's video and its number there; (b, f, h, w, c) uint8).
    """
    self._check_length(num_frames)
    past = frames.shape[1]
    positions = given_positions(past, 0, self.networks.num_frames, self.networks.slots)
    rows = _rows(len(frames), trajectories)
    return self._chunks(frames, positions, past + num_frames, rows, seed, begin)

  def stream(self, frames: np.ndarray, *, num_frames: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`predict` for one future a video, yielding frames (n, m, h, w, c) as they are final.

    Memory does not grow with `num_frames`.
    """
    self._check_length(num_frames)
    past = frames.shape[1]
    positions = given_positions(past, 0, self.networks.num_frames, self.networks.slots)
    every = np.tile(positions, (len(frames), 1))
    rows = _rows(len(frames), 1)
    slots = self._in_slots(frames)
    self._tell_untrained([positions], past + num_frames)
    return self._stream(slots, every, past + num_frames, rows, seed)

  def interpolate(
    self, past: np.ndarray, future: np.ndarray, *, gap: int, trajectories: int = 1, seed: int = 0
  ) -> Samples:
    """Fills in the frames between given ones.

    In one fragment where it holds them all. A longer gap is filled between the two frames at its
    ends, first coarsely, then between the frames drawn, each time at a stride that was trained
    (`gaps.plan`): of s the widest, gaps of up to (F - 1) s - 1 frames.

    Args:
      past: (n, p, h, w, c) uint8 frames before the gap.
      future: (n, q, h, w, c) uint8 frames after it; p + q at most k.
      gap: frames between.
      trajectories: N, different fillings of each video.
      seed: of every draw.

    Raises:
      ValueError: a longer gap than the configuration trained strides for; names the longest.
    """
    chunks = self.interpolate_chunks(past, future, gap=gap, trajectories=trajectories, seed=seed)
    p, q = past.shape[1], future.shape[1]
    positions = np.array([*range(p), *range(p + gap, p + gap + q)])
    return _gathered(chunks, len(past), trajectories, positions, seed)

  def interpolate_chunks(
    self,
    past: np.ndarray,
    future: np.ndarray,
    *,
    gap: int,
    trajectories: int = 1,
    seed: int = 0,
    begin: int = 0,
  ) -> Chunks:
    """What `interpolate` draws, as `predict_chunks` gives it."""
    self._check_length(gap)
    self._check_frames(past)
    self._check_frames(future)
    p, q = past.shape[1], future.shape[1]
    num_frames, slots = self.networks.num_frames, self.networks.slots
    total, rows = p + gap + q, _rows(len(past), trajectories)
    if p and q and p + q <= slots and total > num_frames:
      levels = gaps.plan(gap, num_frames, strides(self.config))  # told before anything is drawn
      fragments = [
        given_positions(1, 1, num_frames, slots, len(at) - 2) for level in levels for at in level
      ]
      self._tell_untrained(fragments, num_frames)
      return self._fillings(past, future, gap, rows, seed, begin)
    positions = given_positions(p, q, num_frames, slots, gap)
    frames = np.concatenate([past, future], axis=1)
    chunks = self._chunks(frames, positions, num_frames, rows, seed, begin)
    return ((chunk, videos[:, :total]) for chunk, videos in chunks)

  def _fillings(
    self, past: np.ndarray, future: np.ndarray, gap: int, rows: np.ndarray, seed: int, begin: int
  ) -> Chunks:
    """`interpolate_chunks` of a gap that one fragment cannot hold."""
    size = self.chunk_size(len(rows))
    for at in range(begin, len(rows), size):
      chunk = rows[np.minimum(np.arange(at, at + size), len(rows) - 1)]
      before, after = past[chunk[:, 0]], future[chunk[:, 0]]
      filled = self._fill(before[:, -1], after[:, 0], gap, chunk, seed)
      videos = np.concatenate([before[:, :-1], filled, after[:, 1:]], axis=1)
      count = min(size, len(rows) - at)
      yield chunk[:count], videos[:count]

  def _fill(
    self, first: np.ndarray, last: np.ndarray, gap: int, rows: np.ndarray, seed: int
  ) -> np.ndarray:
    """Videos (r, gap + 2, h, w, c) between two frames (r, h, w, c), by `gaps.plan`.

    Each fragment draws noise of its own: fold_in of its trajectory's key and its number.
    """
    num_frames, slots = self.networks.num_frames, self.networks.slots
    video, done = np.zeros((len(rows), gap + 2, *self.networks.frame_shape), np.uint8), 0
    video[:, 0], video[:, -1] = first, last
    for level in gaps.plan(gap, num_frames, strides(self.config)):
      m = len(level)
      positions = [given_positions(1, 1, num_frames, slots, len(places) - 2) for places in level]
      ends = video[:, [(places[0], places[-1]) for places in level]]
      numbers = np.tile(np.arange(done, done + m), len(rows))
      chunks = self._drawn(
        self._in_slots(ends.reshape(-1, 2, *self.networks.frame_shape)),
        np.tile(positions, (len(rows), 1)),
        np.arange(len(numbers)),
        num_frames,
        np.column_stack([np.repeat(rows, m, axis=0), numbers]),
        seed,
      )
      drawn = np.concatenate([videos for _, videos in chunks])
      drawn = drawn.reshape(len(rows), m, num_frames, *self.networks.frame_shape)
      # The ends of the first fragment are as the rollout leaves given frames.
      new = slice(1, -1) if done else slice(None)
      for i, places in enumerate(level):
        video[:, list(places[new])] = drawn[:, i, : len(places)][:, new]
      done += m
    return video

  def infill(
    self, frames: np.ndarray, positions: ArrayLike, *, trajectories: int = 1, seed: int = 0
  ) -> Samples:
    """Draws one fragment around frames given anywhere in it, the tasks 'infilling' and 'random'.

    Args:
      frames: (n, p, h, w, c) uint8, p from 0 to k.
      positions: p different ones from 0 to F - 1, in any order; the same for all videos.
      trajectories: N, different fillings of each video.
      seed: of every draw.

    Returns:
      Videos of F frames.
    """
    num_frames, slots = self.networks.num_frames, self.networks.slots
    positions = tuple(np.asarray(positions, np.int64).tolist())
    if len(positions) != frames.shape[1]:
      raise ValueError(f"{frames.shape[1]} frames were given, but {len(positions)} positions.")
    if len(positions) > slots:
      raise ValueError(
        f"{len(positions)} frames do not fit the {slots} slots this model was trained with."
      )
    if len({*positions}) < len(positions) or not all(0 <= at < num_frames for at in positions):
      told = ", ".join(map(str, positions))
      raise ValueError(f"Positions are different ones from 0 to {num_frames - 1}, not {told}.")
    filled = positions + (EMPTY,) * (slots - len(positions))
    rows = _rows(len(frames), trajectories)
    chunks = self._chunks(frames, filled, num_frames, rows, seed)
    return _gathered(chunks, len(frames), trajectories, np.array(positions, np.int64), seed)

  def generate(self, num_videos: int = 1, *, num_frames: int, seed: int = 0) -> Samples:
    """Draws new videos from nothing.

    Args:
      num_videos: how many.
      num_frames: frames of each; any number.
      seed: of every draw.
    """
    self._check_length(num_frames)
    slots = self.networks.slots
    rows = _rows(num_videos, 1)
    nothing = np.zeros((num_videos, 0, *self.networks.frame_shape), np.uint8)
    chunks = self._chunks(nothing, (EMPTY,) * slots, num_frames, rows, seed)
    return _gathered(chunks, num_videos, 1, np.array([], np.int64), seed)

  def _check_length(self, num_frames: int) -> None:
    if num_frames < 1:
      raise ValueError(f"{num_frames} frames were asked for; draw at least 1.")

  def _check_frames(self, frames: np.ndarray) -> None:
    shape = self.networks.frame_shape
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[2:] != shape:
      raise ValueError(
        f"Frames must be uint8 of shape (n, p, {', '.join(map(str, shape))}), not "
        f"{frames.dtype} {frames.shape}."
      )

  def _tell_untrained(self, asked: Sequence[tuple[int, ...]], total: int) -> None:
    """Warns of fragments that are given frames at positions which training never drew.

    Args:
      asked: k positions of each fragment that is given frames of the caller.
      total: frames of the video; one longer than a fragment goes on from its own.
    """
    num_frames, slots = self.networks.num_frames, self.networks.slots
    goes_on = [tuple(range(slots))] if total > num_frames else []
    objective = make_objective(self.config, self.networks)
    new = [at for at in dict.fromkeys([*asked, *goes_on]) if not objective.trains(at)]
    if new:
      told = ", ".join(str([j for j in at if j != EMPTY]) for at in new)
      shares = ", ".join(f"{task} {share:g}" for task, share in objective.mix.shares.items())
      logging.warning(
        "This model was never trained with frames given at %s of a fragment's 0 to %d: expect "
        "little. Its tasks were %s (config.tasks.shares).",
        told, num_frames - 1, shares,
      )  # fmt: skip

  def _in_slots(self, frames: np.ndarray) -> np.ndarray:
    """Given frames (n, p, h, w, c) with empty slots after them (n, k, h, w, c)."""
    self._check_frames(frames)
    empty = self.networks.slots - frames.shape[1]
    return np.pad(frames, ((0, 0), (0, empty), (0, 0), (0, 0), (0, 0)))

  def chunk_size(self, count: int) -> int:
    """Of `count` trajectories in all: `config.sample.videos_per_chunk` a device, or fewer."""
    devices = self.mesh.devices.size
    return min(self.config.sample.videos_per_chunk, -(-count // devices)) * devices

  def _chunks(
    self,
    frames: np.ndarray,
    positions: tuple[int, ...],
    total: int,
    rows: np.ndarray,
    seed: int,
    begin: int = 0,
  ) -> Chunks:
    """The trajectories `rows` (r, 2) of videos whose given frames have the same positions."""
    slots, every = self._in_slots(frames), np.tile(positions, (len(frames), 1))
    self._tell_untrained([positions], total)
    return self._drawn(slots, every, rows[:, 0], total, rows, seed, begin)

  def _drawn(
    self,
    frames: np.ndarray,
    positions: np.ndarray,
    of: np.ndarray,
    total: int,
    rows: np.ndarray,
    seed: int,
    begin: int = 0,
  ) -> Chunks:
    """Chunks of videos of `total` frames; arguments as of `_stream`, but `of`.

    Row r begins with frames[of[r]] at positions[of[r]].
    """
    count = len(rows)
    size = self.chunk_size(count)
    if begin % size and begin < count:
      raise ValueError(f"{begin} trajectories are no whole number of chunks of {size}.")
    for at in tqdm.trange(begin, count, size, desc="videos", disable=None):
      # The last chunk repeats the last row, so that all are one compiled shape.
      chunk = np.minimum(np.arange(at, at + size), count - 1)
      given = frames[of[chunk]], positions[of[chunk]]
      videos = np.concatenate(list(self._stream(*given, total, rows[chunk], seed)), axis=1)
      yield rows[at : at + size], videos[: count - at]

  def _stream(
    self, frames: np.ndarray, positions: np.ndarray, total: int, rows: np.ndarray, seed: int
  ) -> Iterator[np.ndarray]:
    """Pieces (b, m, h, w, c) uint8 of videos of `total` frames.

    Args:
      frames: (b, k, h, w, c) uint8.
      positions: (b, k).
      total: frames of a video.
      rows: (b, m) whose noise: numbers of the video, the trajectory and, perhaps, the fragment.
      seed: of every draw.
    """
    count = len(rows)
    positions, rows = positions.astype(np.int32), rows.astype(np.uint32)
    batch = {"frames": frames, "positions": positions, "rows": rows}
    padding = -count % self.mesh.devices.size
    batch = {k: np.concatenate([v, np.repeat(v[-1:], padding, axis=0)]) for k, v in batch.items()}
    with jax.set_mesh(self.mesh):
      placed = partitioning.put_batch(batch, self.mesh)
      given, keys = self._prepare(placed["frames"], placed["rows"], jnp.uint32(seed))
      stream = self.rollout.run(self.params, given, placed["positions"], total, keys)
    while True:
      with jax.set_mesh(self.mesh):  # never open while the caller has its turn
        piece = next(stream, None)
      if piece is None:
        return
      yield to_uint8(piece[:count])

  @functools.cached_property
  def _prepare(self) -> Any:
    """(frames uint8, rows, seed) -> (frames in [-1, 1], a key a row)."""

    @jax.jit
    def prepare(frames: jax.Array, rows: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
      keys = jnp.broadcast_to(jax.random.key(seed), len(rows))
      for number in rows.T:
        keys = jax.vmap(jax.random.fold_in, (0, 0))(keys, number)
      return to_float(frames), keys

    return prepare


def _gathered(
  chunks: Chunks, num_videos: int, trajectories: int, positions: np.ndarray, seed: int
) -> Samples:
  """All that the chunks hold, as one array."""
  videos, done = np.empty(0, np.uint8), 0
  for _, drawn in chunks:
    if not done:
      videos = np.empty((num_videos * trajectories, *drawn.shape[1:]), np.uint8)
    videos[done : done + len(drawn)] = drawn
    done += len(drawn)
  return Samples(videos, positions, seed, trajectories)


def _rows(num_videos: int, trajectories: int) -> np.ndarray:
  """(n N, 2): each trajectory's video and its number there."""
  if num_videos < 1 or trajectories < 1:
    raise ValueError(
      f"{num_videos} videos with {trajectories} trajectories each were asked for; draw at least 1."
    )
  return np.stack(np.divmod(np.arange(num_videos * trajectories), trajectories), axis=1)
