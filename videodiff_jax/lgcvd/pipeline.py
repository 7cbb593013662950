"""The library: a trained LGC-VD that predicts, fills in and generates videos of any length."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from jax.sharding import Mesh

from videodiff_jax.lgcvd import stages
from videodiff_jax.lgcvd.conditioning import EMPTY, given_positions
from videodiff_jax.lgcvd.networks import Networks, build, make_rollout
from videodiff_jax.lgcvd.rollout import Rollout, sampling_params
from videodiff_jax.training import partitioning
from videodiff_jax.training.pixels import to_float, to_uint8
from videodiff_jax.training.workdir import load_state, read_config


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
    # By way of a dict: a ConfigDict of a frozen one shares the groups of what was frozen.
    config = ml_collections.ConfigDict(self.config.to_dict())
    for name, value in settings.items():
      if name not in config.sample:
        raise ValueError(f"Unknown setting {name!r}. Choose among: {', '.join(config.sample)}.")
      if isinstance(value, dict):
        config.sample[name].update(value)
      else:
        config.sample[name] = value
    return Pipeline(config, self._weights, self.mesh)

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
    rows = np.stack([np.arange(len(frames)), np.zeros(len(frames), np.int64)], axis=1)
    return self._stream(self._in_slots(frames), positions, past + num_frames, rows, seed)

  def interpolate(
    self, past: np.ndarray, future: np.ndarray, gap: int, trajectories: int = 1, seed: int = 0
  ) -> Samples:
    """Fills in the frames between given ones, in one fragment.

    Args:
      past: (n, p, h, w, c) uint8 frames before the gap.
      future: (n, q, h, w, c) uint8 frames after it.
      gap: frames between, at most F - p - q.
      trajectories: N, different fillings of each video.
      seed: of every draw.
    """
    self._check_length(gap)
    p, q = past.shape[1], future.shape[1]
    positions = given_positions(p, q, self.networks.num_frames, self.networks.slots, gap)
    frames = np.concatenate([past, future], axis=1)
    return self._draw(frames, positions, p + gap + q, trajectories, seed)

  def generate(self, num_frames: int, num_videos: int = 1, seed: int = 0) -> Samples:
    """New videos from nothing."""
    self._check_length(num_frames)
    nothing = np.zeros((num_videos, 0, *self.networks.frame_shape), np.uint8)
    positions = (EMPTY,) * self.networks.slots
    return self._draw(nothing, positions, num_frames, 1, seed)

  def _check_length(self, num_frames: int) -> None:
    if num_frames < 1:
      raise ValueError(f"{num_frames} frames were asked for; draw at least 1.")

  def _in_slots(self, frames: np.ndarray) -> np.ndarray:
    """Given frames (n, p, h, w, c) with empty slots after them (n, k, h, w, c)."""
    shape = self.networks.frame_shape
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[2:] != shape:
      raise ValueError(
        f"Frames must be uint8 of shape (n, p, {', '.join(map(str, shape))}), not "
        f"{frames.dtype} {frames.shape}."
      )
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
    """All trajectories of all videos, in chunks of `config.sample.videos_per_chunk` of them."""
    frames = self._in_slots(frames)
    devices, n = self.mesh.devices.size, len(frames)
    rows = np.stack(np.divmod(np.arange(n * trajectories), trajectories), axis=1)
    size = -(-min(self.config.sample.videos_per_chunk, len(rows)) // devices) * devices
    # The last chunk is padded, so that all are one compiled shape.
    padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % size, axis=0)])
    drawn = []
    for begin in tqdm.trange(0, len(padded), size, desc="videos", disable=None):
      chunk = padded[begin : begin + size]
      drawn.append(np.concatenate(list(self._stream(frames, positions, total, chunk, seed)), 1))
    videos = np.concatenate(drawn)[: len(rows)]
    given = np.array([at for at in positions if at != EMPTY], np.int64)
    return Samples(videos.reshape(n, trajectories, *videos.shape[1:]), given, seed)

  def _stream(
    self, frames: np.ndarray, positions: tuple[int, ...], total: int, rows: np.ndarray, seed: int
  ) -> Iterator[np.ndarray]:
    """Pieces (b, m, h, w, c) uint8 for `rows` (b, 2): a video's and a trajectory's number."""
    count = len(rows)
    rows = np.concatenate([rows, np.repeat(rows[-1:], -count % self.mesh.devices.size, axis=0)])
    batch = {
      "frames": frames[rows[:, 0]],
      "positions": np.broadcast_to(np.array(positions, np.int32), (len(rows), len(positions))),
      "rows": rows.astype(np.uint32),
    }
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
      fold = jax.vmap(jax.random.fold_in, (0, 0))
      key = jnp.broadcast_to(jax.random.key(seed), len(rows))
      return to_float(frames), fold(fold(key, rows[:, 0]), rows[:, 1])

    return prepare
