"""The video encoder: it turns a few keyframes into one 2-D global feature (GLOBER Sec. 3.1)."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.attention import AttentionBlock, count_heads
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.layers import (
  ConvFrames,
  Dtype,
  GroupNorm,
  Remat,
  ResBlock,
  per_level,
  rematerialised,
)


class VideoEncoder(nn.Module):
  """Prepends the learned embedding e_v in time and takes the global feature from its slot.

  With `temporal_kernel` 3 (the authors' code) all convolutions outside residual blocks span
  three slots. With 1 (the paper's text) they are 2-D. Attention alone does not see the keyframes'
  order then, so a learned embedding of each slot is added after the first convolution.
  """

  latent_size: int = 32
  latent_channels: int = 4
  out_channels: int = 16  # channels of the global feature
  channels: int = 320
  multipliers: tuple[int, ...] = (1, 2)
  blocks: int | tuple[int, ...] = 2  # residual blocks per level
  attention_rates: tuple[int, ...] = (1, 2)
  num_head_channels: int | None = 64
  num_heads: int | None = None  # where num_head_channels is None
  temporal_kernel: int = 3
  head: Literal["joint", "split_first"] = "joint"
  logvar_bias: float = 0.0  # added to the log-variance: a negative bias starts with less noise
  zero_init: bool = True  # last layer of residual and attention blocks
  norm_groups: int = 32  # at most; fewer for few channels, see GroupNorm
  dtype: Dtype = jnp.float32
  remat: Remat = "none"

  @nn.compact
  def __call__(self, key_latents: jax.Array) -> Gaussian:
    """Encodes keyframe latents (b, k, h, w, latent_channels) as (b, h/f, w/f, out_channels).

    f = 2**(levels - 1). With head 'joint' the output module sees all k + 1 slots, and e_v's slot is
    taken from its result, so that its norm's statistics cover all slots. With 'split_first' it
    sees only e_v's slot.

    Raises:
      ValueError: the head is unknown, or the latents have another shape.
    """
    if self.head not in ("joint", "split_first"):
      raise ValueError(f"head must be 'joint' or 'split_first', not {self.head!r}.")
    token_shape = (self.latent_size, self.latent_size, self.latent_channels)
    if key_latents.ndim != 5 or key_latents.shape[2:] != token_shape:
      raise ValueError(
        f"The video encoder takes keyframe latents (b, k, {str(token_shape)[1:]}, "
        f"not {key_latents.shape}."
      )
    wrap = functools.partial(rematerialised, remat=self.remat)
    normal = nn.initializers.normal(1.0)
    b, k = key_latents.shape[:2]

    def conv(features: int, name: str, stride: int = 1) -> ConvFrames:
      return ConvFrames(features, self.temporal_kernel, stride, self.dtype, name=name)

    # e_v in slot 0, the keyframes after it.
    token = self.param("token", normal, token_shape, jnp.float32)
    token = jnp.broadcast_to(token, (b, 1, *token_shape)).astype(key_latents.dtype)
    x = conv(self.channels, "down_0_conv")(jnp.concatenate([token, key_latents], axis=1))
    if self.temporal_kernel == 1:
      slots = self.param("slots", normal, (k + 1, self.channels), jnp.float32)
      x += slots[None, :, None, None].astype(x.dtype)

    # Residual blocks within slots, attention within and across them.
    index = 1
    counts = per_level(self.blocks, len(self.multipliers))
    for level, (multiplier, count) in enumerate(zip(self.multipliers, counts)):
      if level > 0:
        x = conv(x.shape[-1], f"down_{index}_conv", stride=2)(x)
        index += 1
      for _ in range(count):
        name, features = f"down_{index}", self.channels * multiplier
        frames = wrap(ResBlock)(
          features,
          zero_init=self.zero_init,
          groups=self.norm_groups,
          dtype=self.dtype,
          name=f"{name}_res",
        )(x.reshape(-1, *x.shape[2:]))
        x = frames.reshape(b, k + 1, *frames.shape[1:])
        if 2**level in self.attention_rates:
          heads = count_heads(features, self.num_heads, self.num_head_channels)
          kinds: tuple[Literal["spatial", "temporal"], ...] = ("spatial", "temporal")
          for tokens in kinds:
            block = wrap(AttentionBlock)(
              heads,
              tokens,
              self.zero_init,
              self.norm_groups,
              self.dtype,
              name=f"{name}_{tokens}",
            )
            x = block(x)
        index += 1

    # The output module.
    if self.head == "split_first":
      x = x[:, :1]
    x = conv(2 * self.out_channels, "head_conv")(x)
    x = nn.silu(GroupNorm(self.norm_groups, name="head_norm")(x))
    # The last layer does not mix slots, so only e_v's slot is computed.
    moments = nn.Dense(2 * self.out_channels, dtype=self.dtype, name="head_out")(x[:, 0])
    mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return Gaussian.create(mean, logvar + self.logvar_bias)
