"""LGC-VD as a library: a trained model that predicts, fills in and generates videos."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from videodiff_jax import typed
from videodiff_jax.chunks import chunked, padded
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

# Pairs of (rows, videos): rows (b, 2) gives each trajectory's video and its number within that
# video; videos is (b, f, h, w, c) uint8.
Chunks = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Samples:
  """Drawn videos.

  Attributes:
    videos: (n N, f, h, w, c) uint8, including the given frames: the N trajectories of the first of
      n videos, then those of the second, and so on.
    positions: (p,) indices of the given frames among the f.
    seed: the seed of all noise.
    trajectories: N, the trajectories of each video.
  """

  videos: np.ndarray
  positions: np.ndarray
  seed: int
  trajectories: int = 1

  @property
  def by_video(self) -> np.ndarray:
    """(n, N, f, h, w, c), `videos` with each video's trajectories on an axis of their own."""
    return self.videos.reshape(-1, self.trajectories, *self.videos.shape[1:])


class Pipeline:
  """LGC-VD with trained weights.

  Trajectory j of video n takes its noise only from fold_in(fold_in(key(seed), n), j). So it does
  not depend on the numbers of videos and trajectories, the length, the chunks or the devices (up
  to rounding). Every length runs the same compiled function, once per fragment. A warning is
  logged where frames are given at positions that training (`config.tasks`) never gave.

  Settings come from `config.sample`; change them on a copy: `pipeline.with_settings(...)`.
  """

  def __init__(self, config: ml_collections.ConfigDict, weights: dict[str, Any], mesh: Mesh):
    """Builds a pipeline; `weights` has the averaged parameters 'ema' and, optionally, 'raw'."""
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
    """Loads the newest complete checkpoint of a workdir, or an exported folder.

    Args:
      workdir: a workdir of training, or an exported folder.
      **settings: replace entries of `config.sample`, as in `with_settings`.

    Raises:
      CheckpointError: the folder is no workdir, has no checkpoint, or its configuration has values
        that no pipeline can be built from.
    """
    workdir = typed.path(workdir)
    config = read_config(workdir)
    (name,) = stages.NAMES
    with building(workdir):
      mesh = partitioning.mesh_after(config.mesh.fsdp)
      stage = stages.make_stage(config, name)
      if exported.is_exported(workdir):
        weights = {"ema": load_ema(config, workdir, stage, mesh)["ema_params"]}
      else:
        state = load_state(config, workdir, stage, mesh)
        weights = {"raw": state.params, "ema": state.ema_params}
      pipeline = cls(config, weights, mesh)
    return pipeline.with_settings(**settings)

  def with_settings(self, **settings: Any) -> "Pipeline":
    """Returns a pipeline with the same weights and other entries of `config.sample`.

    `sampler` takes a dict that replaces single keys (kind, num_steps, grid, eta).
    """
    return Pipeline(with_settings(self.config, settings), self._weights, self.mesh)

  def predict(
    self, frames: np.ndarray, *, num_frames: int, trajectories: int = 1, seed: int = 0
  ) -> Samples:
    """Predicts the frames that follow given ones.

    Args:
      frames: (n, p, h, w, c) uint8, the past; p is from 1 to k.
      num_frames: number of frames to draw after them; any number from 1.
      trajectories: N, the number of futures to draw for each video.
      seed: the seed of all noise.

    Raises:
      ValueError: the frames have a wrong type or shape, or are too many, or a number is below 1.
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
    """Draws what `predict` draws, in chunks, so that memory does not grow with trajectories.

    Args:
      frames: as in `predict`.
      num_frames: as in `predict`.
      trajectories: as in `predict`.
      seed: as in `predict`.
      begin: number of trajectories to skip because they were drawn before, counted over all
        videos; a multiple of the chunk size. The others are the same as without skipping.

    Yields:
      (rows, videos): rows (b, 2), each trajectory's video and its number within that video; videos
      (b, f, h, w, c) uint8.
    """
    self._check_length(num_frames)
    past = frames.shape[1]
    positions = given_positions(past, 0, self.networks.num_frames, self.networks.slots)
    rows = _rows(len(frames), trajectories)
    return self._chunks(frames, positions, past + num_frames, rows, seed, begin)

  def stream(self, frames: np.ndarray, *, num_frames: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Draws one future per video, yielding frames (n, m, h, w, c) uint8 as soon as they are final.

    The arguments are those of `predict`. Memory does not grow with `num_frames`.
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

    One fragment fills the gap where it holds all the frames. A longer gap is filled between the
    two frames at its ends, first coarsely, then between the frames drawn, each time at a trained
    stride (`gaps.plan`). With s the widest stride, a gap may have up to (F - 1) s - 1 frames.

    Args:
      past: (n, p, h, w, c) uint8 frames before the gap.
      future: (n, q, h, w, c) uint8 frames after the gap; p + q is at most k.
      gap: number of unknown frames between them.
      trajectories: N, the number of fillings to draw for each video.
      seed: the seed of all noise.

    Raises:
      ValueError: the gap is longer than the trained strides allow; the message names the longest.
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
    """Draws what `interpolate` draws, in chunks; `begin` and the chunks as in `predict_chunks`."""
    self._check_length(gap)
    self._check_frames(past)
    self._check_frames(future)
    p, q = past.shape[1], future.shape[1]
    num_frames, slots = self.networks.num_frames, self.networks.slots
    total, rows = p + gap + q, _rows(len(past), trajectories)
    if p and q and p + q <= slots and total > num_frames:
      levels = gaps.plan(gap, num_frames, strides(self.config))  # raises before anything is drawn
      fragments = [
        given_positions(1, 1, num_frames, slots, len(places) - 2)
        for level in levels
        for places in level
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
    """Draws the chunks of `interpolate_chunks` for a gap longer than one fragment."""

    def fill(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      before, after = past[rows[:, 0]], future[rows[:, 0]]
      filled = self._fill(before[:, -1], after[:, 0], gap, rows, seed)
      return rows, np.concatenate([before[:, :-1], filled, after[:, 1:]], axis=1)

    return chunked(fill, (rows[begin:],), self.chunk_size(len(rows)))

  def _fill(
    self, first: np.ndarray, last: np.ndarray, gap: int, rows: np.ndarray, seed: int
  ) -> np.ndarray:
    """Draws videos (r, gap + 2, h, w, c) between two frames (r, h, w, c), by `gaps.plan`.

    Each fragment has its own noise, from fold_in of its trajectory's key and its number.
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
      # The first fragment also sets its end frames, kept or redrawn as the rollout has it.
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
      positions: p different positions from 0 to F - 1, in any order; the same for all videos.
      trajectories: N, the number of fillings to draw for each video.
      seed: the seed of all noise.

    Returns:
      Samples with videos of F frames.

    Raises:
      ValueError: the positions repeat, lie outside the fragment, or do not match the frames.
    """
    num_frames, slots = self.networks.num_frames, self.networks.slots
    positions = tuple(np.asarray(positions, np.int64).tolist())
    if len(positions) != frames.shape[1]:
      raise ValueError(
        f"{frames.shape[1]} frames were given, but {len(positions)} positions; give one for each."
      )
    if len(positions) > slots:
      raise ValueError(
        f"{len(positions)} frames do not fit the {slots} slots this model was trained with: give "
        "fewer."
      )
    if len({*positions}) < len(positions) or not all(0 <= at < num_frames for at in positions):
      listed = ", ".join(map(str, positions))
      raise ValueError(f"Positions must differ and be from 0 to {num_frames - 1}, not {listed}.")
    filled = positions + (EMPTY,) * (slots - len(positions))
    rows = _rows(len(frames), trajectories)
    chunks = self._chunks(frames, filled, num_frames, rows, seed)
    return _gathered(chunks, len(frames), trajectories, np.array(positions, np.int64), seed)

  def generate(self, num_videos: int = 1, *, num_frames: int, seed: int = 0) -> Samples:
    """Generates new videos unconditionally.

    Args:
      num_videos: n, the number of videos; one trajectory each.
      num_frames: frames of each video; any number from 1.
      seed: the seed of all noise.
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
    """Warns where a fragment is given frames at positions that training never gave.

    Args:
      asked: the k positions of each fragment that is given the caller's frames.
      total: frames of the video; one longer than a fragment continues from its own frames.
    """
    num_frames, slots = self.networks.num_frames, self.networks.slots
    goes_on = [tuple(range(slots))] if total > num_frames else []
    objective = make_objective(self.config, self.networks)
    new = [at for at in dict.fromkeys([*asked, *goes_on]) if not objective.trains(at)]
    if new:
      listed = ", ".join(str([j for j in at if j != EMPTY]) for at in new)
      shares = ", ".join(f"{task} {share:g}" for task, share in objective.mix.shares.items())
      logging.warning(
        "This model was never trained with frames given at positions %s of a fragment (0 to %d): "
        "expect poor samples. Its tasks were %s (config.tasks.shares).",
        listed, num_frames - 1, shares,
      )  # fmt: skip

  def _in_slots(self, frames: np.ndarray) -> np.ndarray:
    """Pads given frames (n, p, h, w, c) with empty slots to (n, k, h, w, c)."""
    self._check_frames(frames)
    empty = self.networks.slots - frames.shape[1]
    return np.pad(frames, ((0, 0), (0, empty), (0, 0), (0, 0), (0, 0)))

  def chunk_size(self, count: int) -> int:
    """Returns the chunk size for `count` trajectories.

    It is `config.sample.videos_per_chunk` per device, or less where fewer are needed.
    """
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
    """Draws the trajectories `rows` (r, 2) of videos whose given frames share their positions."""
    slots, every = self._in_slots(frames), np.tile(positions, (len(frames), 1))
    self._tell_untrained([positions], total)
    return self._drawn(slots, every, rows[:, 0], total, rows, seed, begin)

  def _drawn(
    self,
    frames: np.ndarray,
    positions: np.ndarray,
    sources: np.ndarray,
    total: int,
    rows: np.ndarray,
    seed: int,
    begin: int = 0,
  ) -> Chunks:
    """Draws videos of `total` frames in chunks.

    Row r is given frames[sources[r]] at positions[sources[r]]. The other arguments are those of
    `_stream`.
    """
    size = self.chunk_size(len(rows))
    if begin % size and begin < len(rows):
      raise ValueError(f"begin must be a multiple of the chunk size {size}, not {begin}.")

    def draw(at: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      pieces = self._stream(frames[at], positions[at], total, rows, seed)
      return rows, np.concatenate(list(pieces), axis=1)

    return chunked(draw, (sources[begin:], rows[begin:]), size, "videos")

  def _stream(
    self, frames: np.ndarray, positions: np.ndarray, total: int, rows: np.ndarray, seed: int
  ) -> Iterator[np.ndarray]:
    """Yields pieces (b, m, h, w, c) uint8 of videos of `total` frames.

    Args:
      frames: (b, k, h, w, c) uint8.
      positions: (b, k), -1 for an empty slot.
      total: frames of a video.
      rows: (b, m) the numbers that select the noise: video, trajectory and, optionally, fragment.
      seed: the seed of all noise.
    """
    count = len(rows)
    positions, rows = positions.astype(np.int32), rows.astype(np.uint32)
    batch = {"frames": frames, "positions": positions, "rows": rows}
    whole = count + -count % self.mesh.devices.size
    batch = {name: padded(values, whole) for name, values in batch.items()}
    with jax.set_mesh(self.mesh):
      placed = partitioning.put_whole(batch, self.mesh)
      given, keys = self._prepare(placed["frames"], placed["rows"], np.uint32(seed))
      stream = self.rollout.run(self.params, given, placed["positions"], total, keys)
    while True:
      with jax.set_mesh(self.mesh):  # closed again before the caller's code runs
        piece = next(stream, None)
      if piece is None:
        return
      yield to_uint8(piece[:count])

  @functools.cached_property
  def _prepare(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The jitted function (frames uint8, rows, seed) -> (frames in [-1, 1], one key per row)."""

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
  """Gathers the chunks' videos in one array."""
  videos, done = np.empty(0, np.uint8), 0
  for _, drawn in chunks:
    if not done:
      videos = np.empty((num_videos * trajectories, *drawn.shape[1:]), np.uint8)
    videos[done : done + len(drawn)] = drawn
    done += len(drawn)
  return Samples(videos, positions, seed, trajectories)


def _rows(num_videos: int, trajectories: int) -> np.ndarray:
  """Returns (n N, 2): each trajectory's video and its number within that video."""
  if num_videos < 1 or trajectories < 1:
    raise ValueError(
      f"{num_videos} videos with {trajectories} trajectories each were asked for; draw at least 1."
    )
  return np.stack(np.divmod(np.arange(num_videos * trajectories), trajectories), axis=1)
