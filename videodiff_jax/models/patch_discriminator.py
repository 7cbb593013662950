"""The patch discriminator that KL-VAEs are trained against (Isola et al. 2017, Sec. 3.2.2)."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.layers import Dtype, GroupNorm


class PatchDiscriminator(nn.Module):
  """Gives a logit for each overlapping patch of a frame (70 x 70 pixels at three levels).

  Attributes:
    channels: channels of the first convolution; they double at each level, up to 8 times.
    levels: number of strided convolutions.
    dtype: the type of the computation.
  """

  channels: int = 64
  levels: int = 3
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Judges frames (n, h, w, c) in [-1, 1] by logits (n, h', w', 1), float32; real is large."""
    chex.assert_rank(x, 4)
    chex.assert_type(x, float)

    def conv(features: int, stride: int, x: jax.Array, name: str) -> jax.Array:
      padding = [(1, 1), (1, 1)]
      return nn.Conv(features, (4, 4), stride, padding, dtype=self.dtype, name=name)(x)

    for i in range(self.levels + 1):
      stride = 2 if i < self.levels else 1
      x = conv(self.channels * min(2**i, 8), stride, x, f"conv_{i}")
      if i:
        x = GroupNorm(name=f"norm_{i}")(x)
      x = nn.leaky_relu(x, 0.2)
    return conv(1, 1, x, "conv_out").astype(jnp.float32)
