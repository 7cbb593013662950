"""LGC-VD's UNet over frames stacked as channels, and its sequence encoder (LGC-VD Sec. 3.2, 4.2).

A fragment of F frames of c channels is one map (n, h, w, F c), frame by frame. The networks have no
notion of time: frames mix because they share channels. So the shapes of the inputs give F and the
number of conditioning frames; neither is built in.
"""

import math
from typing import Any, Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.choices import check_choice
from videodiff_jax.models.attention import attend
from videodiff_jax.models.layers import (
  EXACT,
  ZEROS,
  Conv3x3,
  ConvTranspose3x3,
  Dtype,
  GroupNorm,
  Remat,
  rematerialised,
)

DecoderAttention = Literal["matched", "mirrored"]
DECODER_ATTENTION = ("matched", "mirrored")

_EPSILON = 1e-6


def timestep_code(t: jax.Array, dim: int) -> jax.Array:
  """Encodes timesteps (n,) by sinusoids (n, dim), [sin, cos], `dim` even, float32.

  Frequencies are 10000 ** (-k / (half - 1)), k = 0..half-1. The order and the divisor differ from
  those of `layers.sinusoid`.
  """
  chex.assert_rank(t, 1)
  half = dim // 2
  exponents = np.arange(half, dtype=np.float32) * np.float32(-math.log(1e4) / max(half - 1, 1))
  frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
  angles = jnp.asarray(t, jnp.float32)[:, None] * frequencies[None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def norm_groups(channels: int, divides: int | None = None) -> int:
  """Returns a norm's groups: a quarter of the channels, at most 32, lowered until they divide.

  Args:
    channels: channels of the norm's input.
    divides: the number that the groups must divide, `channels` by default. In the release's second
      norm of a residual block it is the block's input channels, which gives 8 groups instead of 12
      for 32 -> 48 channels.
  """
  divides = divides or channels
  most = max(min(channels // 4, 32), 1)
  return max(g for g in range(1, most + 1) if divides % g == 0)


class TimeEmbedding(nn.Module):
  """Embeds timesteps: sinusoid, linear, GELU (exact), linear; float32."""

  channels: int

  @nn.compact
  def __call__(self, t: jax.Array) -> jax.Array:
    """Embeds timesteps (n,) as (n, 4 channels)."""
    features = 4 * self.channels
    y = timestep_code(t, self.channels)
    y = nn.gelu(nn.Dense(features, name="linear_in", **EXACT)(y), approximate=False)
    return nn.Dense(features, name="linear_out", **EXACT)(y)


class StackedResBlock(nn.Module):
  """Norm, SiLU, 3x3, (+ embedding), norm, SiLU, 3x3; added to the input, divided by sqrt(2).

  Where the channels change, the skip is a 3x3 convolution. The second convolution starts at zero.
  """

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array | None = None) -> jax.Array:
    """Maps (n, h, w, c) and an embedding (n, e) or None to (n, h, w, features)."""
    c = x.shape[-1]
    x = x.astype(self.dtype)
    h = nn.silu(GroupNorm(norm_groups(c), _EPSILON, name="norm_in")(x))
    h = Conv3x3(self.features, dtype=self.dtype, name="conv_in")(h)
    if embedding is not None:
      shift = nn.Dense(self.features, name="embed", **EXACT)(nn.silu(embedding))
      h += shift[:, None, None]
    h = GroupNorm(norm_groups(self.features, c), _EPSILON, name="norm_out")(h)
    h = nn.silu(h.astype(self.dtype))
    h = Conv3x3(self.features, zero_init=True, dtype=self.dtype, name="conv_out")(h)
    if c != self.features:
      x = Conv3x3(self.features, dtype=self.dtype, name="skip")(x)
    return (x + h) * 2**-0.5


class StackedAttention(nn.Module):
  """Attention of a map's pixels to a context's pixels, or to themselves (LGC-VD Eq. 10-11).

  The result is added to the input and divided by sqrt(2). Map and context share a norm, so they
  have equally many channels.
  """

  head_channels: int | None
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
    """Attends from (n, h, w, c) to a context (n, h', w', c), or to itself; same shape."""
    n, c = x.shape[0], x.shape[-1]
    heads = _heads(c, self.head_channels)
    x = x.astype(self.dtype)
    norm = GroupNorm(norm_groups(c), _EPSILON, name="norm")

    def project(name: str, y: jax.Array) -> jax.Array:
      y = nn.Dense(c, dtype=self.dtype, name=name)(y)
      return y.reshape(n, -1, heads, c // heads)

    y = norm(x)
    source = y if context is None else norm(context.astype(self.dtype))
    y = attend(project("query", y), project("key", source), project("value", source))
    y = nn.Dense(c, kernel_init=ZEROS, dtype=self.dtype, name="out")(y.reshape(x.shape))
    return (x + y) * 2**-0.5


def _heads(channels: int, head_channels: int | None) -> int:
  if head_channels is None or channels < head_channels:
    return 1
  if channels % head_channels:
    raise ValueError(
      f"{channels} channels do not split into heads of {head_channels}: choose head_channels "
      "that divides every attending level's channels, or None for one head."
    )
  return channels // head_channels


class _Network(nn.Module):
  """The settings and the way down that the UNet and the sequence encoder share.

  Attributes:
    channels: channels of the first map; level i has channels x multipliers[i].
    multipliers: one multiplier per level; each level but the last halves the sides.
    blocks: residual blocks per level on the way down; the way up has one more.
    attention_rates: input side / map side of the levels with attention; the middle always has it.
    head_channels: width of a head; None, or more than a level has, makes one head.
    dtype: the type of the computation, apart from float32 norms and softmax.
    remat: 'blocks' recomputes residual and attention blocks in the backward pass.
  """

  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 3, 4)
  blocks: int = 2
  attention_rates: tuple[int, ...] = (4,)
  head_channels: int | None = 128
  dtype: Dtype = jnp.float32
  remat: Remat = "none"

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each level."""
    return tuple(self.channels * multiplier for multiplier in self.multipliers)

  def _residual(self, name: str, features: int, *inputs: Any) -> jax.Array:
    block = rematerialised(StackedResBlock, self.remat)
    return block(features, self.dtype, name=name)(*inputs)

  def _attention(self, name: str, *inputs: jax.Array) -> jax.Array:
    block = rematerialised(StackedAttention, self.remat)
    return block(self.head_channels, self.dtype, name=name)(*inputs)

  def _down(self, x: jax.Array, embedding: jax.Array | None) -> tuple[jax.Array, list[jax.Array]]:
    """Runs the way down and the middle; returns the middle's map and each level's skip."""
    h = Conv3x3(self.channels, dtype=self.dtype, name="conv_in")(x)
    skips = []
    for level, width in enumerate(self.widths):
      if level > 0:
        h = Conv3x3(h.shape[-1], stride=2, dtype=self.dtype, name=f"down_{level - 1}_conv")(h)
      for i in range(self.blocks):
        h = self._residual(f"down_{level}_res_{i}", width, h, embedding)
        if 2**level in self.attention_rates:
          h = self._attention(f"down_{level}_attention_{i}", h)
      skips.append(h)
    h = self._residual("middle_res_0", h.shape[-1], h, embedding)
    h = self._attention("middle_attention", h)
    h = self._residual("middle_res_1", h.shape[-1], h, embedding)
    return h, skips


class SequenceEncoder(_Network):
  """Computes a fragment's global context z by the UNet's first half, with its own weights."""

  @nn.compact
  def __call__(self, fragment: jax.Array) -> jax.Array:
    """Encodes the last fragment, or U, (n, h, w, F c) as (n, h', w', C), C the last width."""
    chex.assert_rank(fragment, 4)
    return self._down(fragment, None)[0].astype(jnp.float32)


class LGCUNet(_Network):
  """Denoises a fragment given conditioning frames with their masks, and a global context.

  Attributes:
    decoder_attention: which maps on the way up have attention. 'matched': those at
      `attention_rates`, as in the paper. 'mirrored': step j of the way up looks for rate 2**j, as
      on the way down, although its map has the mirrored rate. The release does this, and its
      weights need it.
  """

  decoder_attention: DecoderAttention = "matched"

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, condition: jax.Array, context: jax.Array | None = None
  ) -> jax.Array:
    """Predicts v (or the noise) of every frame of a fragment, float32.

    Args:
      x: (n, h, w, F c) noisy fragment, any h and w.
      t: (n,) timesteps, counted in the full chain.
      condition: (n, h, w, k (c + 1)) conditioning frames, each followed by its mask.
      context: (n, h', w', C) from the sequence encoder, C the last width. None builds a network
        without cross-attention (LGC-VD Table 5 without the sequence encoder).

    Returns:
      (n, h, w, F c).
    """
    check_choice("decoder_attention", self.decoder_attention, DECODER_ATTENTION)
    chex.assert_rank([x, condition], 4)
    chex.assert_shape(t, x.shape[:1])
    if context is not None:
      chex.assert_shape(context, (len(x), None, None, self.widths[-1]))
    if x.shape[:3] != condition.shape[:3]:
      raise ValueError(
        f"The condition {condition.shape} must have the batch and sides of the maps {x.shape}."
      )
    embedding = TimeEmbedding(self.channels, name="time_embed")(t)
    h, skips = self._down(jnp.concatenate([condition, x], axis=-1), embedding)
    if context is not None:
      h = self._attention("middle_cross", h, context)

    # The way up.
    last = len(self.multipliers) - 1
    for step, level in enumerate(reversed(range(last + 1))):
      skip = skips.pop()
      # Halving an odd side rounds up, so the doubled map may have one row or column too many.
      h = jnp.concatenate([h[:, : skip.shape[1], : skip.shape[2]], skip], axis=-1)
      width = (self.channels, *self.widths)[level]
      attends = 2 ** (level if self.decoder_attention == "matched" else step)
      for i in range(self.blocks + 1):
        h = self._residual(f"up_{step}_res_{i}", width, h, embedding)
        if i < self.blocks and attends in self.attention_rates:
          h = self._attention(f"up_{step}_attention_{i}", h)
      if level > 0:
        h = ConvTranspose3x3(width, self.dtype, name=f"up_{step}_conv")(h)
    h = nn.silu(h.astype(jnp.float32))
    return Conv3x3(x.shape[-1], name="conv_out", **EXACT)(h)
