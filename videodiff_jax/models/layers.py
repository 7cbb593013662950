"""Layers that several networks share.

Feature maps are (n, h, w, c) with frames folded into n, or (b, f, h, w, c) where time matters.
Parameters, statistics of norms and time embeddings are float32; everything else is computed in
`dtype`.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from videodiff_jax.models import target

Dtype = Any
Padding = Sequence[tuple[int, int]]
Remat = Literal["none", "blocks"]  # the parts that a network's backward pass recomputes

# For the few small layers whose rounding would be visible. bfloat16 cannot distinguish neighbours
# among 128 frames, and guidance amplifies the rounding of a network's last layer. Accelerators
# multiply float32 in fewer bits unless the precision asks for all.
EXACT: dict[str, Any] = {"dtype": jnp.float32, "precision": lax.Precision.HIGHEST}

SYMMETRIC: Padding = ((1, 1), (1, 1))
ZEROS = nn.initializers.zeros
_KERNEL_INIT = nn.initializers.lecun_normal()


M = TypeVar("M", bound=nn.Module)


def rematerialised(module: type[M], remat: Remat) -> type[M]:
  """Returns the module; with 'blocks' its backward pass keeps only its inputs and recomputes it."""
  return nn.remat(module) if remat == "blocks" else module


def per_level(num_blocks: int | Sequence[int], levels: int) -> tuple[int, ...]:
  """Returns each level's number of residual blocks, from one number for all or one per level."""
  counts = (num_blocks,) * levels if isinstance(num_blocks, int) else tuple(num_blocks)
  if len(counts) != levels:
    raise ValueError(f"{len(counts)} block counts for {levels} levels: give one number per level.")
  return counts


def sinusoid(positions: jax.Array, dim: int, max_period: float = 1e4) -> jax.Array:
  """Encodes real positions of any shape by sinusoids (..., dim), [cos, sin], float32.

  Frequencies are max_period ** (-k / half), k = 0..half-1. An odd `dim` ends in a zero column.
  """
  half = dim // 2
  # At t = 999 the last bit of a frequency already changes the code by 6e-5. So frequencies are
  # rounded once, where PyTorch rounds them.
  exponents = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32) / half
  frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
  positions = jnp.asarray(positions, jnp.float32)[..., None]
  angles = positions * lax.broadcast_to_rank(frequencies, positions.ndim)
  code = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  return jnp.pad(code, [(0, 0)] * (code.ndim - 1) + [(0, dim % 2)])


def conv3x3(
  x: jax.Array,
  kernel: jax.Array,
  stride: int = 1,
  padding: Padding = SYMMETRIC,
  precision: lax.Precision | None = None,
) -> jax.Array:
  """Convolves (n, h, w, c) by a (3, 3, c, d) kernel.

  On CPU, XLA's convolution drops to a few GFLOP/s where a batch has few pixels and the weights are
  most of the work. Nine shifted copies and one matrix product are up to 50 times faster there (and
  twice as fast over a whole Stable Diffusion UNet on 16x16 latents). Elsewhere the copies only
  cost time.
  """
  chex.assert_rank(x, 4)
  chex.assert_shape(kernel, (3, 3, x.shape[-1], None))
  (top, bottom), (left, right) = padding
  h = (x.shape[1] + top + bottom - 3) // stride + 1
  w = (x.shape[2] + left + right - 3) // stride + 1
  if target.platform() != "cpu" or x.shape[0] * h * w >= 256:
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision=precision,
    )
  x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
  rows = [slice(i, i + (h - 1) * stride + 1, stride) for i in range(3)]
  columns = [slice(j, j + (w - 1) * stride + 1, stride) for j in range(3)]
  shifted = [x[:, row, column] for row in rows for column in columns]
  return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def conv_transpose3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Doubles (n, h, w, c): y[2i - 1 + a, 2j - 1 + b] += x[i, j] kernel[a, b], kernel (3, 3, c, d).

  It is PyTorch's ConvTranspose2d with stride 2, padding 1 and output_padding 1. Each of the four
  phases of the output is one matrix product of the input and its neighbours below and to the
  right. The gradient of XLA's dilated convolution takes 45 times as long on CPU.
  """
  chex.assert_rank(x, 4)
  chex.assert_shape(kernel, (3, 3, x.shape[-1], None))
  n, h, w, _ = x.shape
  padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  below, right, corner = padded[:, 1:, :w], padded[:, :h, 1:], padded[:, 1:, 1:]

  def phase(*taps: tuple[jax.Array, int, int]) -> jax.Array:
    maps = jnp.concatenate([value for value, _, _ in taps], axis=-1)
    return maps @ jnp.concatenate([kernel[a, b] for _, a, b in taps], axis=0)

  even = phase((x, 1, 1)), phase((x, 1, 2), (right, 1, 0))
  odd = (
    phase((x, 2, 1), (below, 0, 1)),
    phase((x, 2, 2), (right, 2, 0), (below, 0, 2), (corner, 0, 0)),
  )
  rows = [jnp.stack(row, axis=3) for row in (even, odd)]  # each (n, h, w, 2, d)
  return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, -1)


def conv_frames(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """Convolves (b, f, h, w, c) by a (k, 3, 3, c, d) kernel, k odd; the stride is spatial.

  On CPU it makes k spatial convolutions and sums them over shifted frames, as the gradient of
  XLA's own strided convolution takes 9 times as long there.
  """
  chex.assert_rank([x, kernel], 5)
  chex.assert_shape(kernel, (None, 3, 3, x.shape[-1], None))
  k = kernel.shape[0]
  if target.platform() != "cpu":
    return lax.conv_general_dilated(
      x,
      kernel,
      (1, stride, stride),
      ((k // 2, k // 2), *SYMMETRIC),
      dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
  b, f = x.shape[:2]
  x = x.reshape(b * f, *x.shape[2:])
  total: jax.Array | float = 0.0
  for i in range(k):
    y = conv3x3(x, kernel[i], stride)
    y = y.reshape(b, f, *y.shape[1:])
    before, after = max(k // 2 - i, 0), max(i - k // 2, 0)
    y = jnp.pad(y, ((0, 0), (before, after), (0, 0), (0, 0), (0, 0)))
    total += y[:, after : after + f]
  return jnp.asarray(total)


def resample(x: jax.Array, levels: int) -> jax.Array:
  """Scales (n, h, w, c) by 2**levels: nearest neighbour up, 2x2 means down, no parameters."""
  n, h, w, c = x.shape
  if levels > 0:
    s = 2**levels
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, s, w, s, c))
    return x.reshape(n, h * s, w * s, c)
  if levels < 0:
    s = 2**-levels
    if h % s or w % s:
      raise ValueError(f"A {h}x{w} map cannot be scaled down by {s}: use a divisible size.")
    return x.reshape(n, h // s, s, w // s, s, c).mean(axis=(2, 4))
  return x


class GroupNorm(nn.Module):
  """Normalises groups of channels over all axes but the first; statistics in float32.

  The number of groups is the largest divisor of the channels up to `groups`. A group of one channel
  loses that channel's mean, and so everything that is constant over the map: with 32 groups, 32
  channels lose a timestep's embedding. Narrow networks need fewer groups.
  """

  groups: int = 32
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises (n, ..., c); the result has the input's shape and dtype."""
    n, c = x.shape[0], x.shape[-1]
    groups = max(g for g in range(1, min(self.groups, c) + 1) if c % g == 0)
    scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
    bias = self.param("bias", ZEROS, (c,), jnp.float32)

    # Both moments in one pass over x. Sums of squares lose digits where the mean is far from zero,
    # so they are taken around each channel's first value. No gradient flows through that value, as
    # neither moment depends on it.
    y = x.astype(jnp.float32).reshape(n, -1, c)
    shift = lax.stop_gradient(y[:, :1])
    mean = (y - shift).mean(axis=1, keepdims=True)
    variance = jnp.square(y - shift).mean(axis=1, keepdims=True) - jnp.square(mean)
    mean, variance = (mean + shift).reshape(n, groups, -1), variance.reshape(n, groups, -1)
    centre = mean.mean(axis=-1, keepdims=True)
    spread = (variance + jnp.square(mean - centre)).mean(axis=-1, keepdims=True)
    inverse = lax.rsqrt(jnp.maximum(spread, 0.0) + self.epsilon)
    centre, inverse = (_for_each_channel(m, c) for m in (centre, inverse))
    scale, bias = (lax.broadcast_to_rank(a, 3) for a in (scale, bias))
    y = (y - centre) * (inverse * scale) + bias
    return y.reshape(x.shape).astype(x.dtype)


def _for_each_channel(values: jax.Array, channels: int) -> jax.Array:
  """Repeats each group's value for its channels: (n, groups, 1) -> (n, 1, channels)."""
  n, groups, _ = values.shape
  if target.platform() == "cpu":
    # XLA would move a repeat into the loop over pixels, which would then run, with the activation,
    # one number at a time. A product by zeros and ones is computed before that loop.
    member = np.repeat(np.eye(groups, dtype=np.float32), channels // groups, axis=1)
    return (values[..., 0] @ member)[:, None]
  return jnp.repeat(values, channels // groups, axis=-1).reshape(n, 1, channels)


class Conv3x3(nn.Module):
  """3x3 convolution over space, (n, h, w, c) -> (n, h', w', features)."""

  features: int
  stride: int = 1
  padding: Padding = SYMMETRIC
  zero_init: bool = False
  dtype: Dtype = jnp.float32
  precision: lax.Precision | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = ZEROS if self.zero_init else _KERNEL_INIT
    kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features), jnp.float32)
    bias = self.param("bias", ZEROS, (self.features,), jnp.float32)
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    y = conv3x3(x, kernel, self.stride, self.padding, self.precision)
    return y + lax.broadcast_to_rank(bias, y.ndim)


class ConvTranspose3x3(nn.Module):
  """Doubles a map's sides by a learned 3x3 kernel, (n, h, w, c) -> (n, 2h, 2w, features)."""

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # A pixel sees 9 / 4 of the nine taps on average; this scale keeps its variance.
    init = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")
    kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features), jnp.float32)
    bias = self.param("bias", ZEROS, (self.features,), jnp.float32)
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    y = conv_transpose3x3(x, kernel)
    return y + lax.broadcast_to_rank(bias, y.ndim)


class ConvFrames(nn.Module):
  """Convolution over `temporal_kernel` frames and 3x3 pixels of (b, f, h, w, c)."""

  features: int
  temporal_kernel: int = 3
  stride: int = 1
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.temporal_kernel, 3, 3, x.shape[-1], self.features)
    kernel = self.param("kernel", _KERNEL_INIT, shape, jnp.float32)
    bias = self.param("bias", ZEROS, (self.features,), jnp.float32)
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    y = conv_frames(x, kernel, self.stride)
    return y + lax.broadcast_to_rank(bias, y.ndim)


class PositionEmbedding(nn.Module):
  """Embeds a timestep or a frame's time: sinusoid, linear, SiLU, linear; float32."""

  channels: int  # channels of the sinusoid
  features: int

  @nn.compact
  def __call__(self, positions: jax.Array) -> jax.Array:
    """Embeds real positions (n,) as (n, features)."""
    chex.assert_rank(positions, 1)
    code = sinusoid(positions, self.channels)
    code = nn.silu(nn.Dense(self.features, name="linear_in", **EXACT)(code))
    return nn.Dense(self.features, name="linear_out", **EXACT)(code)


class ResBlock(nn.Module):
  """A residual block: norm, SiLU, 3x3, (+ embedding), norm, SiLU, 3x3, added to the input.

  `levels` scales the map by 2**levels before the first convolution, and the skip likewise. With
  `zero_init` the last convolution starts at zero, so that deep networks start as the identity; in
  very small autoencoders this stops learning instead. With `scale_shift` the embedding scales and
  shifts the second norm's result (Dhariwal & Nichol 2021, AdaGN) instead of being added before it.
  It stays float32 until it meets the map: neighbouring frames' embeddings differ by less than
  bfloat16's rounding.
  """

  features: int
  levels: int = 0
  zero_init: bool = True
  scale_shift: bool = False
  groups: int = 32
  epsilon: float = 1e-5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array | None = None) -> jax.Array:
    """Maps (n, h, w, c), embedding (n, e) or None to (n, h 2**levels, w 2**levels, features)."""
    x = x.astype(self.dtype)
    h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm_in")(x))
    h = Conv3x3(self.features, dtype=self.dtype, name="conv_in")(resample(h, self.levels))
    norm = GroupNorm(self.groups, self.epsilon, name="norm_out")
    if embedding is None:
      h = norm(h)
    elif self.scale_shift:
      moved = nn.Dense(2 * self.features, name="embed", **EXACT)(nn.silu(embedding))
      scale, shift = jnp.split(moved[:, None, None], 2, axis=-1)
      h = norm(h) * (1 + scale) + shift
    else:
      shift = nn.Dense(self.features, name="embed", **EXACT)(nn.silu(embedding))
      h = norm(h + shift[:, None, None])
    h = nn.silu(h.astype(self.dtype))
    h = Conv3x3(self.features, zero_init=self.zero_init, dtype=self.dtype, name="conv_out")(h)
    x = resample(x, self.levels)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, dtype=self.dtype, name="skip")(x)
    return x + h
