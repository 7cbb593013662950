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
from jax.sharding import Mesh

from videodiff_jax.lgcvd import gaps, stages
from videodiff_jax.lgcvd.conditioning import EMPTY, given_positions
from videodiff_jax.lgcvd.networks import Networks, build, make_rollout, strides
from videodiff_jax.lgcvd.rollout import Rollout, sampling_params
from videodiff_jax.training import partitioning
from videodiff_jax.training.pixels import to_float, to_uint8
from videodiff_jax.training.workdir import load_state, read_config, with_settings


@dataclasses.dataclass(frozen=True)
class Samples:
  """Drawn videos.

  Attributes:
    videos: (n, N, f, h, w, c) uint8, N trajectories of each of n videos, given frames included.
    positions: (p,) where the given frames are among the f.
    seed: of every draw.
  """

  videos: np.ndarray
  positions: np.ndarray
  seed: int


class Pipeline:
  """LGC-VD with trained weights.

  Trajectory j of video n draws from fold_in(fold_in(key(seed), n), j) alone: it is the same
  whatever the numbers of both, the length, the chunks or the devices (up to rounding). Every
  length runs the same compiled function, once a fragment.

  Settings come from `config.sample`; change them on a copy: `pipeline.with_settings(...)`.
  """

  def __init__(self, config: ml_collections.ConfigDict, weights: dict[str, Any], mesh: Mesh):
    """`weights` has the parameters as trained, 'raw', and their average, 'ema'."""
    self.config = ml_collections.FrozenConfigDict(config)
    self.networks: Networks = build(config)
    self.rollout: Rollout = make_rollout(config, self.networks)
    self.params = sampling_params(weights["raw"], weights["ema"], config.sample.encoder_weights)
    self.mesh = mesh
    self._weights = weights

  @classmethod
  def from_workdir(cls, workdir: str | pathlib.Path, **settings: Any) -> "Pipeline":
    """Loads the newest complete checkpoint of a workdir.

    Args:
      workdir: as given to training.
      **settings: replace entries of `config.sample`, as in `with_settings`.

    Raises:
      CheckpointError: no workdir, or no checkpoint in it.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    mesh = partitioning.make_mesh()
    (name,) = stages.NAMES
    state = load_state(config, workdir, stages.make_stage(config, name), mesh)
    weights = {"raw": state.params, "ema": state.ema_params}
    return cls(config, weights, mesh).with_settings(**settings)

  def with_settings(self, **settings: Any) -> "Pipeline":
    """A pipeline with the same weights and other entries of `config.sample`.

    `sampler` takes a dict that replaces single keys (kind, num_steps, grid, eta).
    """
    return Pipeline(with_settings(self.config, settings), self._weights, self.mesh)

  def predict(
    self, frames: np.ndarray, num_frames: int, trajectories: int = 1, seed: int = 0
  ) -> Samples:
    """Goes on from given frames.

    Args:
      frames: (n, p, h, w, c) uint8, p from 1 to k: the past.
      num_frames: how many to draw after them.
      trajectories: N, different futures of each video.
      seed: of every draw.
    """
    self._check_length(num_frames)
    past = frames.shape[1]
    positions = given_positions(past, 0, self.networks.num_frames, self.networks.slots)
    return self._draw(frames, positions, past + num_frames, trajectories, seed)

  def stream(self, frames: np.ndarray, num_frames: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`predict` for one future a video, yielding frames (n, m, h, w, c) as they are final.

    Memory does not grow with `num_frames`.
    """
    self._check_length(num_frames)
    past = frames.shape[1]
    positions = given_positions(past, 0, self.networks.num_frames, self.networks.slots)
    every = np.tile(positions, (len(frames), 1))
    rows = _rows(len(frames), 1)
    return self._stream(self._in_slots(frames), every, past + num_frames, rows, seed)

  def interpolate(
    self, past: np.ndarray, future: np.ndarray, gap: int, trajectories: int = 1, seed: int = 0
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
    self._check_length(gap)
    self._check_frames(past)
    self._check_frames(future)
    p, q = past.shape[1], future.shape[1]
    num_frames, slots = self.networks.num_frames, self.networks.slots
    total = p + gap + q
    if p and q and p + q <= slots and total > num_frames:
      videos = self._fill(past[:, -1], future[:, 0], gap, trajectories, seed)
      before, after = (
        np.repeat(frames[:, None], trajectories, axis=1) for frames in (past[:, :-1], future[:, 1:])
      )
      videos = np.concatenate([before, videos, after], axis=2)
      return Samples(videos, np.array([*range(p), *range(p + gap, total)]), seed)
    positions = given_positions(p, q, num_frames, slots, gap)
    frames = np.concatenate([past, future], axis=1)
    drawn = self._draw(frames, positions, num_frames, trajectories, seed)
    return dataclasses.replace(drawn, videos=drawn.videos[:, :, :total])

  def _fill(
    self, first: np.ndarray, last: np.ndarray, gap: int, trajectories: int, seed: int
  ) -> np.ndarray:
    """Videos (n, N, gap + 2, h, w, c) between two frames (n, h, w, c), by `gaps.plan`.

    Each fragment draws noise of its own: fold_in of its trajectory's key and its number.
    """
    num_frames, slots = self.networks.num_frames, self.networks.slots
    levels = gaps.plan(gap, num_frames, strides(self.config))
    rows, done = _rows(len(first), trajectories), 0
    video = np.zeros((len(rows), gap + 2, *self.networks.frame_shape), np.uint8)
    video[:, 0], video[:, -1] = first[rows[:, 0]], last[rows[:, 0]]
    for level in levels:
      m = len(level)
      ends = video[:, [(places[0], places[-1]) for places in level]]
      positions = [given_positions(1, 1, num_frames, slots, len(places) - 2) for places in level]
      numbers = np.tile(np.arange(done, done + m), len(rows))
      drawn = self._draw_rows(
        self._in_slots(ends.reshape(-1, 2, *self.networks.frame_shape)),
        np.tile(positions, (len(rows), 1)),
        num_frames,
        np.column_stack([np.repeat(rows, m, axis=0), numbers]),
        seed,
      )
      drawn = drawn.reshape(len(rows), m, num_frames, *self.networks.frame_shape)
      # The ends of the first fragment are as the rollout leaves given frames.
      new = slice(1, -1) if done else slice(None)
      for i, places in enumerate(level):
        video[:, list(places[new])] = drawn[:, i, : len(places)][:, new]
      done += m
    return video.reshape(len(first), trajectories, *video.shape[1:])

  def infill(
    self, frames: np.ndarray, positions: Sequence[int], trajectories: int = 1, seed: int = 0
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
    positions = tuple(int(at) for at in positions)
    if len(positions) != frames.shape[1]:
      raise ValueError(f"{frames.shape[1]} frames were given, but {len(positions)} positions.")
    if len(positions) > slots:
      raise ValueError(
        f"{len(positions)} frames do not fit the {slots} slots this model was trained with."
      )
    if len({*positions}) < len(positions) or not all(0 <= at < num_frames for at in positions):
      told = ", ".join(map(str, positions))
      raise ValueError(f"Positions are different ones from 0 to {num_frames - 1}, not {told}.")
    positions += (EMPTY,) * (slots - len(positions))
    return self._draw(frames, positions, num_frames, trajectories, seed)

  def generate(self, num_frames: int, num_videos: int = 1, seed: int = 0) -> Samples:
    """New videos from nothing."""
    self._check_length(num_frames)
    nothing = np.zeros((num_videos, 0, *self.networks.frame_shape), np.uint8)
    positions = (EMPTY,) * self.networks.slots
    return self._draw(nothing, positions, num_frames, 1, seed)

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

  def _in_slots(self, frames: np.ndarray) -> np.ndarray:
    """Given frames (n, p, h, w, c) with empty slots after them (n, k, h, w, c)."""
    self._check_frames(frames)
    empty = self.networks.slots - frames.shape[1]
    return np.pad(frames, ((0, 0), (0, empty), (0, 0), (0, 0), (0, 0)))

  def _draw(
    self,
    frames: np.ndarray,
    positions: tuple[int, ...],
    total: int,
    trajectories: int,
    seed: int,
  ) -> Samples:
    """All trajectories of all videos, which have the same positions."""
    n, rows = len(frames), _rows(len(frames), trajectories)
    slots = self._in_slots(frames)[rows[:, 0]]
    videos = self._draw_rows(slots, np.tile(positions, (len(rows), 1)), total, rows, seed)
    given = np.array([at for at in positions if at != EMPTY], np.int64)
    return Samples(videos.reshape(n, trajectories, *videos.shape[1:]), given, seed)

  def _draw_rows(
    self, frames: np.ndarray, positions: np.ndarray, total: int, rows: np.ndarray, seed: int
  ) -> np.ndarray:
    """(r, total, h, w, c), in chunks of `config.sample.videos_per_chunk`; as `_stream`."""
    count, devices = len(rows), self.mesh.devices.size
    size = -(-min(self.config.sample.videos_per_chunk, count) // devices) * devices
    drawn = []
    for begin in tqdm.trange(0, count, size, desc="videos", disable=None):
      # The last chunk repeats the last row, so that all are one compiled shape.
      chunk = np.minimum(np.arange(begin, begin + size), count - 1)
      stream = self._stream(frames[chunk], positions[chunk], total, rows[chunk], seed)
      drawn.append(np.concatenate(list(stream), axis=1))
    return np.concatenate(drawn)[:count]

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


def _rows(num_videos: int, trajectories: int) -> np.ndarray:
  """(n N, 2): each trajectory's video and its number there."""
  return np.stack(np.divmod(np.arange(num_videos * trajectories), trajectories), axis=1)
