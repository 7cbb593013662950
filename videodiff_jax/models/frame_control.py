"""The paper's additional modules: they turn global feature and frame time into the UNet's maps."""

import functools
from collections.abc import Sequence
from typing import Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.layers import (
  ZEROS,
  Dtype,
  PositionEmbedding,
  Remat,
  ResBlock,
  rematerialised,
)
from videodiff_jax.models.unet import Block


def select(blocks: Sequence[Block], which: Literal["all", "down"]) -> tuple[Block, ...]:
  """Selects the UNet blocks to control: 'all' as in the paper, 'down' as in the March-2023 code."""
  if which not in ("all", "down"):
    raise ValueError(f"control must be 'all' or 'down', not {which!r}.")
  return tuple(b for b in blocks if which == "all" or b.name.startswith("down"))


class FrameControl(nn.Module):
  """For each UNet block an independent residual block and a zero-initialised 1x1 convolution."""

  unet_blocks: tuple[Block, ...]  # the blocks to control
  feature_rate: int  # latent side / global feature side
  channels: int = 320  # channels of the frame time's sinusoid
  index_scale: float = 1.0  # multiplies the frame time before its sinusoid
  zero_init_res: bool = True
  scale_shift: bool = False  # how the frame time enters a residual block, see ResBlock
  norm_groups: int = 32  # at most; fewer for few channels, see GroupNorm
  dtype: Dtype = jnp.float32
  remat: Remat = "none"

  @nn.compact
  def __call__(self, global_feature: jax.Array, frame_time: jax.Array) -> dict[str, jax.Array]:
    """Turns global features (n, h, w, c) and times tau (n,) into a map for each UNet block."""
    chex.assert_rank(global_feature, 4)
    if frame_time.shape != global_feature.shape[:1]:
      raise ValueError(
        f"{global_feature.shape[0]} global features need as many frame times, "
        f"not shape {frame_time.shape}: repeat the feature for every frame."
      )
    embed = PositionEmbedding(self.channels, 4 * self.channels, name="time_embed")
    embedding = embed(frame_time * self.index_scale)
    wrap = functools.partial(rematerialised, remat=self.remat)
    maps = {}
    for block in self.unet_blocks:
      h = wrap(ResBlock)(
        block.channels,
        levels=self._levels(block),
        zero_init=self.zero_init_res,
        scale_shift=self.scale_shift,
        groups=self.norm_groups,
        dtype=self.dtype,
        name=f"{block.name}_res",
      )(global_feature, embedding)
      maps[block.name] = nn.Dense(
        block.channels, kernel_init=ZEROS, dtype=self.dtype, name=f"{block.name}_out"
      )(h)
    return maps

  def _levels(self, block: Block) -> int:
    """Returns the doublings (negative: halvings) from the global feature's side to the block's."""
    levels = self.feature_rate.bit_length() - block.rate.bit_length()
    if self.feature_rate != block.rate * 2.0**levels:
      raise ValueError(
        f"The global feature's rate {self.feature_rate} and {block.name}'s rate {block.rate} "
        "must differ by a power of two."
      )
    return levels
