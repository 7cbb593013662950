"""Features of Inflated Inception-v1 (Carreira and Zisserman, 2017), which FVD compares."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from videodiff_jax.pretrained import i3d as pretrained

SIZE = 224
MIN_FRAMES = 9  # fewer leave no temporal window at the end, and the mean over none is NaN
RESIZES = ("torch", "tf1")

# Pools (window = stride in time), and blocks by the widths of their 1x1, (1x1, 3x3), (1x1, 3x3)
# and pooled 1x1 branches.
_BODY = (
  ("Mixed_3b", (64, 96, 128, 16, 32, 32)),
  ("Mixed_3c", (128, 128, 192, 32, 96, 64)),
  ("MaxPool3d_4a", (3, 3, 3)),
  ("Mixed_4b", (192, 96, 208, 16, 48, 64)),
  ("Mixed_4c", (160, 112, 224, 24, 64, 64)),
  ("Mixed_4d", (128, 128, 256, 24, 64, 64)),
  ("Mixed_4e", (112, 144, 288, 32, 64, 64)),
  ("Mixed_4f", (256, 160, 320, 32, 128, 128)),
  ("MaxPool3d_5a", (2, 2, 2)),
  ("Mixed_5b", (256, 160, 320, 32, 128, 128)),
  ("Mixed_5c", (384, 192, 384, 48, 128, 128)),
)


def conv3d(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """'SAME' 3-D convolution (b, f, h, w, c) by (t, s, s, c, d) as 2-D convolutions.

  XLA's own 3-D convolution made the whole network twice as slow on CPU. The frames that the
  temporal taps see are convolved apart and summed, or, where channels are few, stacked on them.
  """
  b, f, taps = len(x), x.shape[1], len(kernel)
  frames = math.ceil(f / stride)
  (pad,) = jax.lax.padtype_to_pads((f,), (taps,), (stride,), "SAME")
  x = jnp.pad(x, ((0, 0), pad, (0, 0), (0, 0), (0, 0)))
  seen = [x[:, i : i + (frames - 1) * stride + 1 : stride] for i in range(taps)]
  if x.shape[-1] <= 3:
    seen, kernel = [jnp.concatenate(seen, axis=-1)], [jnp.concatenate(list(kernel), axis=-2)]

  def conv2d(pictures: jax.Array, weights: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      pictures.reshape(b * frames, *pictures.shape[2:]),
      weights,
      (stride, stride),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision="highest",
    )

  y = sum(conv2d(pictures, weights) for pictures, weights in zip(seen, kernel))
  return y.reshape(b, frames, *y.shape[1:])


class Unit(nn.Module):
  """A convolution with its batch norm folded in, and ReLU."""

  width: int
  kernel: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel,) * 3 + (x.shape[-1], self.width)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    return nn.relu(conv3d(x, kernel, self.stride) + bias)


class Mixed(nn.Module):
  """An Inception block: four branches, concatenated."""

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    first, narrow_1, wide_1, narrow_2, wide_2, pooled = self.widths
    branch_1 = Unit(narrow_1, name="Branch_1_Conv3d_0a_1x1")(x)
    branch_2 = Unit(narrow_2, name="Branch_2_Conv3d_0a_1x1")(x)
    branch_3 = nn.max_pool(x, (3, 3, 3), padding="SAME")
    branches = (
      Unit(first, name="Branch_0_Conv3d_0a_1x1")(x),
      Unit(wide_1, 3, name="Branch_1_Conv3d_0b_3x3")(branch_1),
      Unit(wide_2, 3, name="Branch_2_Conv3d_0b_3x3")(branch_2),
      Unit(pooled, name="Branch_3_Conv3d_0b_1x1")(branch_3),
    )
    return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
  """Inflated Inception-v1 up to its 'Logits' end point; parameters by `pretrained.i3d.load`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(b, f >= 9, 224, 224, c) in [-1, 1] -> (b, 400) logits (before softmax), mean over time.

    c is 3, or 1 with the parameters of `load(channels=1)`.
    """
    x = Unit(64, 7, 2, name="Conv3d_1a_7x7")(x)
    x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    x = Unit(64, name="Conv3d_2b_1x1")(x)
    x = Unit(192, 3, name="Conv3d_2c_3x3")(x)
    x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    for name, sizes in _BODY:
      if name.startswith("MaxPool"):
        x = nn.max_pool(x, sizes, (2, 2, 2), "SAME")
      else:
        x = Mixed(sizes, name=name)(x)
    x = nn.avg_pool(x, (2, 7, 7))
    head = nn.Conv(400, (1, 1, 1), precision="highest", name="Logits_Conv3d_0c_1x1")
    return head(x).mean(axis=(1, 2, 3))


def resize_matrix(source: int, target: int, method: str) -> np.ndarray:
  """(target, source) float32 weights of a bilinear resize without antialiasing.

  'torch' samples at pixel centres (F.interpolate, align_corners=False), 'tf1' at left edges
  (TensorFlow 1's resize_bilinear, which the first FVD used).
  """
  shift = {"torch": 0.5, "tf1": 0.0}[method]
  # In float32, as they compute it: exact positions would differ by 2e-5 of the range.
  position = (np.arange(target, dtype=np.float32) + shift) * (source / target) - shift
  position = position.clip(0, source - 1)
  # Weights fall linearly with the distance to the sampled position.
  distance = np.abs(position[:, None] - np.arange(source, dtype=np.float32))
  return (1 - distance).clip(min=0)


def preprocess(videos: jax.Array, size: int = SIZE, resize: str = "torch") -> jax.Array:
  """Clips as the network takes them: the shorter side resized, its centre square, in [-1, 1].

  Args:
    videos: (b, f, h, w, c), float in [0, 1].
    size: Side of the result.
    resize: As of `resize_matrix`.

  Returns:
    (b, f, size, size, c) float32 in [-1, 1].
  """
  sides = videos.shape[2:4]
  weights = []
  for side in sides:
    matrix = resize_matrix(side, -(-side * size // min(sides)), resize)
    start = (len(matrix) - size) // 2
    weights.append(matrix[start : start + size])
  return jnp.einsum("yh,xw,bfhwc->bfyxc", *weights, 2 * videos - 1, precision="highest")


# On CPU XLA's fusions for YNNPACK slow the network down: 2.42 clips/s with them, 2.88 without (2
# cores, jax 0.10.2).
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def _compiled_features(backend: str) -> Callable[..., jax.Array]:
  options = _CPU_OPTIONS if backend == "cpu" else None
  return jax.jit(_features, static_argnames="resize", compiler_options=options)


def _features(params: dict, videos: jax.Array, resize: str) -> jax.Array:
  x = preprocess(videos.astype(jnp.float32) / 255, resize=resize)
  return I3D().apply({"params": params}, x)


def _checked(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """The chunks' clips one by one, each fit for the network and of the first one's shape."""
  shape = None
  for chunk in chunks:
    if chunk.dtype != np.uint8:
      raise ValueError(f"I3D features expect uint8 videos in 0..255, got {chunk.dtype}.")
    if chunk.ndim != 5 or chunk.shape[-1] not in (1, 3):
      raise ValueError(f"I3D features expect (n, f, h, w, 1 or 3), got {chunk.shape}.")
    if chunk.shape[1] < MIN_FRAMES:
      raise ValueError(f"I3D needs clips of {MIN_FRAMES} frames or more, got {chunk.shape[1]}.")
    shape = shape or chunk.shape[1:]
    if chunk.shape[1:] != shape:
      raise ValueError(f"All clips must have one shape, got {shape} and {chunk.shape[1:]}.")
    yield from chunk


def features(
  videos: np.ndarray | Iterable[np.ndarray],
  *,
  batch_size: int = 4,
  resize: str = "torch",
  progress: bool = True,
) -> np.ndarray:
  """The 400 numbers a clip by which FVD compares sets of clips.

  Frames are resized and cropped to 224 (see `preprocess`); a batch is spread over this
  process's devices. One compilation a clip shape: the last batch is padded.

  Args:
    videos: uint8 (n, f, h, w, c), f >= 9, c 1 (grey, as if repeated three times) or 3;
      or an iterable of such chunks, for more clips than memory holds.
    batch_size: Clips a device and call.
    resize: 'torch' (TATS, cd-fvd) or 'tf1' (the first FVD).
    progress: Show a bar with the time left once 5 seconds have passed.

  Returns:
    (n, 400) float32, in the order given.

  Raises:
    ValueError: Wrong dtype, shape, frame count or resize; no clips.
    FileNotFoundError: The weights are not installed; the message says what to install.
  """
  if resize not in RESIZES:
    raise ValueError(f"Unknown resize {resize!r}; choose from {RESIZES}.")
  total = len(videos) if isinstance(videos, np.ndarray) else None
  clips = _checked([videos] if isinstance(videos, np.ndarray) else videos)
  devices = jax.local_devices()
  batch = list(itertools.islice(clips, batch_size * len(devices)))
  if not batch:
    raise ValueError("There are no clips to take I3D features of.")
  # A few clips take no more devices, and no more padding, than they need.
  per_device = min(batch_size, len(batch))
  devices = devices[: math.ceil(len(batch) / per_device)]
  size = per_device * len(devices)
  mesh = Mesh(np.array(devices), ("data",))
  params = pretrained.load(channels=batch[0].shape[-1])
  params = jax.device_put(params, NamedSharding(mesh, P()))
  compiled = _compiled_features(jax.default_backend())
  results = []
  with tqdm(
    total=total, unit="clip", desc="I3D", delay=5, disable=None if progress else True
  ) as bar:
    while batch:
      padded = np.stack(batch + batch[:1] * (size - len(batch)))
      padded = jax.device_put(padded, NamedSharding(mesh, P("data")))
      results.append(np.asarray(compiled(params, padded, resize))[: len(batch)])
      bar.update(len(batch))
      batch = list(itertools.islice(clips, size))
  return np.concatenate(results)
