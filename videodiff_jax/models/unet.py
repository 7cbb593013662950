"""The video decoder: Stable Diffusion v1's UNet over single frames, with control maps."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.attention import SpatialTransformer, TextAttention, count_heads
from videodiff_jax.models.layers import (
  EXACT,
  Conv3x3,
  Dtype,
  GroupNorm,
  PositionEmbedding,
  Remat,
  ResBlock,
  per_level,
  rematerialised,
  resample,
)


class Block(NamedTuple):
  """One of the UNet's blocks and its output map."""

  name: str
  rate: int  # input side / side of the output map
  channels: int


def blocks(
  channels: int, multipliers: Sequence[int], num_blocks: int | Sequence[int]
) -> tuple[Block, ...]:
  """Lists the UNet's blocks in order: 'down_*', 'middle', 'up_*' (in SD v1 12 + 1 + 12)."""
  counts = per_level(num_blocks, len(multipliers))
  last = len(multipliers) - 1
  down, up = [(1, channels)], []
  for level, (multiplier, count) in enumerate(zip(multipliers, counts)):
    down += [(2**level, channels * multiplier)] * count
    if level < last:
      down.append((2 ** (level + 1), channels * multiplier))
  for level in reversed(range(len(multipliers))):
    up += [(2**level, channels * multipliers[level])] * counts[level]
    # The last block of a level ends with the upsampling to the next level.
    up.append((2 ** max(level - 1, 0), channels * multipliers[level]))
  return (
    *(Block(f"down_{i}", *block) for i, block in enumerate(down)),
    Block("middle", 2**last, channels * multipliers[last]),
    *(Block(f"up_{i}", *block) for i, block in enumerate(up)),
  )


class UNet(nn.Module):
  """Predicts the noise (or v, or the sample) of frame latents, each frame by itself."""

  in_channels: int = 4
  out_channels: int = 4
  channels: int = 320
  multipliers: tuple[int, ...] = (1, 2, 4, 4)
  blocks: int | tuple[int, ...] = 2  # residual blocks per level
  attention_rates: tuple[int, ...] = (1, 2, 4)  # downsampling rates; the middle always attends
  num_heads: int | None = 8
  num_head_channels: int | None = None  # overrides num_heads
  depth: int = 1  # blocks per transformer
  context_dim: int = 768
  text_attention: TextAttention = "cross"  # see SpatialTransformer
  norm_groups: int = 32  # at most; fewer for few channels, see GroupNorm
  dtype: Dtype = jnp.float32
  remat: Remat = "none"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    t: jax.Array,
    context: jax.Array,
    control: Mapping[str, jax.Array] | None = None,
  ) -> jax.Array:
    """Predicts the noise of latents.

    Args:
      x: (n, h, w, in_channels) noisy latents.
      t: (n,) timesteps.
      context: (n, l, context_dim) condition tokens.
      control: names of `blocks(...)` -> maps, each added to its block's output before the skip is
        stored.

    Returns:
      (n, h, w, out_channels), float32.

    Raises:
      ValueError: a side that the rates do not divide, tokens of another width, an unknown block
        in `control`, or a map of another shape than its block's output.
    """
    outline = blocks(self.channels, self.multipliers, self.blocks)
    counts = per_level(self.blocks, len(self.multipliers))
    self._check(x, t, context, control := control or {}, outline)
    names = (block.name for block in outline)
    wrap = functools.partial(rematerialised, remat=self.remat)
    embedding = PositionEmbedding(self.channels, 4 * self.channels, name="time_embed")(t)

    def residual(h: jax.Array, features: int, name: str) -> jax.Array:
      block = wrap(ResBlock)(features, groups=self.norm_groups, dtype=self.dtype, name=name)
      return block(h, embedding)

    def transformer(h: jax.Array, name: str) -> jax.Array:
      heads = count_heads(h.shape[-1], self.num_heads, self.num_head_channels)
      settings = (heads, self.depth, self.norm_groups, self.text_attention, self.dtype)
      return wrap(SpatialTransformer)(*settings, name=name)(h, context)

    def controlled(h: jax.Array, name: str) -> jax.Array:
      return h + control[name].astype(h.dtype) if name in control else h

    # The way down, which stores the skips.
    name = next(names)
    h = controlled(Conv3x3(self.channels, dtype=self.dtype, name=f"{name}_conv")(x), name)
    skips = [h]
    for level, (multiplier, count) in enumerate(zip(self.multipliers, counts)):
      if level > 0:
        name = next(names)
        h = Conv3x3(h.shape[-1], stride=2, dtype=self.dtype, name=f"{name}_conv")(h)
        h = controlled(h, name)
        skips.append(h)
      for _ in range(count):
        name = next(names)
        h = residual(h, self.channels * multiplier, f"{name}_res")
        if 2**level in self.attention_rates:
          h = transformer(h, f"{name}_attention")
        h = controlled(h, name)
        skips.append(h)

    # The middle.
    name = next(names)
    h = transformer(residual(h, h.shape[-1], f"{name}_res_0"), f"{name}_attention")
    h = controlled(residual(h, h.shape[-1], f"{name}_res_1"), name)

    # The way up, which reads them.
    for level in reversed(range(len(counts))):
      for i in range(counts[level] + 1):
        name = next(names)
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = residual(h, self.channels * self.multipliers[level], f"{name}_res")
        if 2**level in self.attention_rates:
          h = transformer(h, f"{name}_attention")
        if level > 0 and i == counts[level]:
          h = Conv3x3(h.shape[-1], dtype=self.dtype, name=f"{name}_conv")(resample(h, 1))
        h = controlled(h, name)

    h = nn.silu(GroupNorm(self.norm_groups, name="norm_out")(h.astype(jnp.float32)))
    return Conv3x3(self.out_channels, zero_init=True, name="conv_out", **EXACT)(h)

  def _check(
    self,
    x: jax.Array,
    t: jax.Array,
    context: jax.Array,
    control: Mapping[str, jax.Array],
    outline: tuple[Block, ...],
  ) -> None:
    chex.assert_rank(x, 4)
    chex.assert_shape(t, x.shape[:1])
    n, h, w, c = x.shape
    coarsest = 2 ** (len(self.multipliers) - 1)
    if c != self.in_channels or h % coarsest or w % coarsest:
      raise ValueError(
        f"The UNet takes latents (n, h, w, {self.in_channels}) with sides divisible by "
        f"{coarsest}, not {x.shape}."
      )
    if context.ndim != 3 or context.shape[0] != n or context.shape[2] != self.context_dim:
      raise ValueError(
        f"The UNet takes tokens ({n}, l, {self.context_dim}), not {context.shape}; "
        "without a condition give one token of zeros."
      )
    shapes = {b.name: (n, h // b.rate, w // b.rate, b.channels) for b in outline}
    if unknown := sorted(set(control) - set(shapes)):
      raise ValueError(f"No UNet block is called {unknown}; the blocks are {list(shapes)}.")
    for name, value in control.items():
      if value.shape != shapes[name]:
        listing = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise ValueError(
          f"The control map of {name} must have the shape of its block's output, "
          f"{shapes[name]}, not {value.shape}. All blocks: {listing}."
        )
