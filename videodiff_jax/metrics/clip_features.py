"""Computes features of clips by frozen networks: in batches, over all devices, with progress."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from videodiff_jax import shares
from videodiff_jax.choices import check_choice
from videodiff_jax.chunks import in_chunks

SIZE = 224
RESIZES = ("torch", "tf1")


@dataclasses.dataclass(frozen=True)
class Detector:
  """A frozen network whose features compare sets of clips.

  Attributes:
    name: the network's name in messages.
    min_frames: the fewest frames that a clip may have.
    load: maps the clips' channels, 1 or 3, to the network's parameters.
    apply: maps parameters and clips (b, f, 224, 224, c), float32 in [-1, 1], to features (b, ...).
  """

  name: str
  min_frames: int
  load: Callable[[int], Any]
  apply: Callable[[Any, jax.Array], jax.Array]


def resize_matrix(source: int, target: int, method: str) -> np.ndarray:
  """Returns the float32 weights (target, source) of a bilinear resize without antialiasing.

  'torch' samples at pixel centres (F.interpolate, align_corners=False), 'tf1' at left edges
  (TensorFlow 1's resize_bilinear, which the first FVD used).
  """
  shift = {"torch": 0.5, "tf1": 0.0}[method]
  # In float32, as both libraries do: exact positions would change results by 2e-5 of the range.
  position = (np.arange(target, dtype=np.float32) + shift) * (source / target) - shift
  position = position.clip(0, source - 1)
  # Weights decrease linearly with the distance to the sampled position.
  distance = np.abs(position[:, None] - np.arange(source, dtype=np.float32))
  return (1 - distance).clip(min=0)


def preprocess(videos: jax.Array, size: int = SIZE, resize: str = "torch") -> jax.Array:
  """Resizes clips' shorter side, crops the centre square and scales to [-1, 1] for the networks.

  Args:
    videos: (b, f, h, w, c), float in [0, 1].
    size: side of the result in pixels.
    resize: 'torch' or 'tf1', see `resize_matrix`.

  Returns:
    (b, f, size, size, c) float32 in [-1, 1].
  """
  chex.assert_rank(videos, 5)
  chex.assert_type(videos, float)
  sides = videos.shape[2:4]
  weights = []
  for side in sides:
    matrix = resize_matrix(side, -(-side * size // min(sides)), resize)
    start = (len(matrix) - size) // 2
    weights.append(matrix[start : start + size])
  return jnp.einsum("yh,xw,bfhwc->bfyxc", *weights, 2 * videos - 1, precision="highest")


def extract(
  videos: np.ndarray | Iterable[np.ndarray],
  detectors: Sequence[Detector],
  *,
  batch_size: int = 4,
  resize: str = "torch",
  progress: bool = True,
) -> list[np.ndarray]:
  """Computes each network's features of each clip, in one pass over the clips.

  Frames are resized and cropped to 224 (see `preprocess`). A batch is split over the hosts
  and over the devices of each. The last batch is padded, so there is one compilation per clip
  shape.

  Args:
    videos: uint8 (n, f, h, w, c), c 1 (grey, as if repeated three times) or 3; or an iterable of
      such chunks, for more clips than memory holds.
    detectors: the networks.
    batch_size: clips per device and call.
    resize: 'torch' (TATS, cd-fvd) or 'tf1' (the first FVD).
    progress: whether to show a bar with the time left after 5 seconds.

  Returns:
    (n, ...) float32 for each network, in the order given.

  Raises:
    ValueError: the type, shape, frame count or resize is wrong, or there are no clips.
    FileNotFoundError: weights are not installed; the message says what to install.
  """
  check_choice("resize", resize, RESIZES)
  detectors = tuple(detectors)
  names = " and ".join(detector.name for detector in detectors)
  total = len(videos) if isinstance(videos, np.ndarray) else None
  clips = _checked([videos] if isinstance(videos, np.ndarray) else videos, detectors)
  devices, hosts = jax.local_devices(), shares.parts()
  batch = list(itertools.islice(clips, batch_size * len(devices) * hosts))
  if not batch:
    raise ValueError(f"There are no clips for features by {names}.")
  # A few clips use no more devices, and no more padding, than they need.
  share = math.ceil(len(batch) / hosts)
  per_device = min(batch_size, share)
  devices = devices[: math.ceil(share / per_device)]
  size = per_device * len(devices)
  mesh = Mesh(np.array(devices), ("data",))
  params = [detector.load(batch[0].shape[-1]) for detector in detectors]
  params = jax.device_put(params, NamedSharding(mesh, P()))
  compiled = _compiled(jax.default_backend())

  def compute(batch: np.ndarray) -> list[jax.Array]:
    placed = jax.device_put(batch, NamedSharding(mesh, P("data")))
    return compiled(params, placed, detectors, resize)

  results: list[list[np.ndarray]] = [[] for _ in detectors]

  def shared(clips: np.ndarray) -> list[list[np.ndarray]]:  # which holds no clips afterwards
    return shares.split(lambda rows: list(in_chunks(compute, (clips[rows],), size)), len(clips))

  with tqdm(
    total=total, unit="clip", desc=names, delay=5, disable=None if progress else True
  ) as bar:
    while batch:
      for part in shared(np.stack(batch)):
        for found, features in zip(results, part):
          found.append(features)
      bar.update(len(batch))
      batch = list(itertools.islice(clips, size * hosts))
  return [np.concatenate(found) for found in results]


# On CPU, XLA's fusions for YNNPACK slow I3D down: 2.42 clips/s with them, 2.88 without (2 cores,
# jax 0.10.2).
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def _compiled(backend: str) -> Callable[..., list[jax.Array]]:
  options = _CPU_OPTIONS if backend == "cpu" else None
  return jax.jit(_features, static_argnames=("detectors", "resize"), compiler_options=options)


def _features(
  params: list[Any], videos: jax.Array, detectors: tuple[Detector, ...], resize: str
) -> list[jax.Array]:
  x = preprocess(videos.astype(jnp.float32) / 255, resize=resize)
  return [detector.apply(weights, x) for detector, weights in zip(detectors, params)]


def _checked(chunks: Iterable[np.ndarray], detectors: tuple[Detector, ...]) -> Iterator[np.ndarray]:
  """Yields the chunks' clips one by one, after checking that they suit the networks."""
  names = " and ".join(detector.name for detector in detectors)
  shape = None
  for chunk in chunks:
    if chunk.dtype != np.uint8:
      raise ValueError(f"Features by {names} need uint8 videos in 0..255, not {chunk.dtype}.")
    if chunk.ndim != 5 or chunk.shape[-1] not in (1, 3):
      raise ValueError(f"Features by {names} need (n, f, h, w, 1 or 3), not {chunk.shape}.")
    for detector in detectors:
      if chunk.shape[1] < detector.min_frames:
        raise ValueError(
          f"{detector.name} needs clips of {detector.min_frames} frames or more, not "
          f"{chunk.shape[1]}."
        )
    shape = shape or chunk.shape[1:]
    if chunk.shape[1:] != shape:
      raise ValueError(f"All clips must have one shape, not {shape} and {chunk.shape[1:]}.")
    yield from chunk
