"""The CRA loss's discriminator of ordered pairs of frames (GLOBER Sec. 3.1, Eq. 10)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.attention import AttentionBlock, count_heads
from videodiff_jax.models.layers import (
  ConvFrames,
  Dtype,
  GroupNorm,
  Remat,
  ResBlock,
  per_level,
  rematerialised,
)


class PairDiscriminator(nn.Module):
  """Judges pairs (earlier, later) by residual blocks and full spatio-temporal attention.

  A large logit means real. The position embeddings e_0 and e_1 start at N(0, position_scale): with
  1, the release's value, they overwhelm dark pictures.
  """

  image_size: int
  in_channels: int = 3
  channels: int = 64
  multipliers: tuple[int, ...] = (1, 2, 3, 4, 4)
  blocks: int | tuple[int, ...] = 1  # residual blocks per level
  attention_rates: tuple[int, ...] = (16,)
  num_head_channels: int | None = 32
  num_heads: int | None = None  # where num_head_channels is None
  position_scale: float = 1.0
  norm_groups: int = 32  # at most; fewer for few channels, see GroupNorm
  dtype: Dtype = jnp.float32
  remat: Remat = "none"

  @nn.compact
  def __call__(self, pair: jax.Array) -> jax.Array:
    """Judges pairs of frames or latents (b, 2, h, w, in_channels) by logits (b,), float32."""
    shape = (2, self.image_size, self.image_size, self.in_channels)
    if pair.shape[1:] != shape:
      raise ValueError(f"The discriminator takes pairs (b, {str(shape)[1:]}, not {pair.shape}.")
    positions = self.param(
      "positions", nn.initializers.normal(self.position_scale), shape, jnp.float32
    )
    x = ConvFrames(self.channels, dtype=self.dtype, name="down_0_conv")(pair + positions[None])

    wrap = functools.partial(rematerialised, remat=self.remat)
    index = 1
    counts = per_level(self.blocks, len(self.multipliers))
    for level, (multiplier, count) in enumerate(zip(self.multipliers, counts)):
      if level > 0:
        x = ConvFrames(x.shape[-1], stride=2, dtype=self.dtype, name=f"down_{index}_conv")(x)
        index += 1
      for _ in range(count):
        name, features = f"down_{index}", self.channels * multiplier
        settings = {"groups": self.norm_groups, "dtype": self.dtype}
        block = wrap(ResBlock)(features, **settings, name=f"{name}_res")
        frames = block(x.reshape(-1, *x.shape[2:]))
        x = frames.reshape(*x.shape[:2], *frames.shape[1:])
        if 2**level in self.attention_rates:
          heads = count_heads(features, self.num_heads, self.num_head_channels)
          x = wrap(AttentionBlock)(heads, "joint", **settings, name=f"{name}_joint")(x)
        index += 1

    x = ConvFrames(self.channels, dtype=self.dtype, name="head_conv")(x)
    x = (
      nn.silu(GroupNorm(self.norm_groups, name="head_norm")(x))
      .astype(jnp.float32)
      .mean(axis=(1, 2, 3))
    )
    return nn.Dense(1, name="head_out")(x)[:, 0]
