"""The KL-VAE of single frames, in Stable Diffusion v1's layout."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.attention import attend
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.layers import (
  Conv3x3,
  Dtype,
  GroupNorm,
  Remat,
  ResBlock,
  rematerialised,
  resample,
)

_EPSILON = 1e-6


class _Attention(nn.Module):
  """Single-head self-attention over the pixels of a map (n, h, w, c)."""

  groups: int
  dtype: Dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    y = GroupNorm(self.groups, _EPSILON, name="norm")(x)
    q, k, v = (
      nn.Dense(c, dtype=self.dtype, name=name)(y).reshape(n, h * w, 1, c)
      for name in ("query", "key", "value")
    )
    return x + nn.Dense(c, dtype=self.dtype, name="out")(attend(q, k, v).reshape(x.shape))


class _Stack(nn.Module):
  """The parts that encoder and decoder share: how blocks and attention are named and built."""

  channels: int
  multipliers: tuple[int, ...]
  blocks: int
  out_channels: int
  mid_attention: bool
  attention_rates: tuple[int, ...]
  norm_groups: int
  dtype: Dtype
  remat: Remat

  def level(self, x: jax.Array, i: int, blocks: int) -> jax.Array:
    """Applies the residual blocks (and attention) of level i, counted from full resolution."""
    for j in range(blocks):
      x = self.block(self.channels * self.multipliers[i], f"level_{i}_block_{j}")(x)
      if 2**i in self.attention_rates:
        x = self.attention(f"level_{i}_attention_{j}")(x)
    return x

  def middle(self, x: jax.Array) -> jax.Array:
    x = self.block(x.shape[-1], "middle_block_0")(x)
    if self.mid_attention:
      x = self.attention("middle_attention")(x)
    return self.block(x.shape[-1], "middle_block_1")(x)

  def head(self, x: jax.Array) -> jax.Array:
    x = nn.silu(GroupNorm(self.norm_groups, _EPSILON, name="norm_out")(x))
    self.sow("intermediates", "features", x)  # the last layer's input, for callers that need it
    return Conv3x3(self.out_channels, dtype=self.dtype, name="conv_out")(x)

  def attention(self, name: str) -> _Attention:
    return rematerialised(_Attention, self.remat)(self.norm_groups, self.dtype, name=name)

  def block(self, features: int, name: str) -> ResBlock:
    return rematerialised(ResBlock, self.remat)(
      features,
      zero_init=False,
      groups=self.norm_groups,
      epsilon=_EPSILON,
      dtype=self.dtype,
      name=name,
    )


class _Encoder(_Stack):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = Conv3x3(self.channels, dtype=self.dtype, name="conv_in")(x)
    for i in range(len(self.multipliers)):
      x = self.level(x, i, self.blocks)
      if i < len(self.multipliers) - 1:
        x = Conv3x3(x.shape[-1], 2, ((0, 1), (0, 1)), dtype=self.dtype, name=f"level_{i}_down")(x)
    return self.head(self.middle(x))


class _Decoder(_Stack):
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = self.channels * self.multipliers[-1]
    x = self.middle(Conv3x3(width, dtype=self.dtype, name="conv_in")(x))
    for i in reversed(range(len(self.multipliers))):
      x = self.level(x, i, self.blocks + 1)
      if i > 0:
        x = Conv3x3(x.shape[-1], dtype=self.dtype, name=f"level_{i}_up")(resample(x, 1))
    return self.head(x)


class KLVAE(nn.Module):
  """A frame autoencoder with a Gaussian code whose sides are f = 2**(levels - 1) times shorter."""

  in_channels: int = 3
  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 4, 4)
  blocks: int = 2  # residual blocks per level; the decoder has one more
  z_channels: int = 4
  embed_dim: int = 4  # channels of the code; a linear map connects it to z_channels
  mid_attention: bool = True
  attention_rates: tuple[int, ...] = ()  # downsampling rates with attention after each block
  norm_groups: int = 32  # at most; fewer for few channels, see GroupNorm
  dtype: Dtype = jnp.float32
  remat: Remat = "none"

  def setup(self) -> None:
    names = ("channels", "multipliers", "blocks", "mid_attention", "attention_rates")
    names += ("norm_groups", "dtype", "remat")
    shared: dict[str, Any] = {name: getattr(self, name) for name in names}
    self.encoder = _Encoder(out_channels=2 * self.z_channels, **shared)
    self.decoder = _Decoder(out_channels=self.in_channels, **shared)
    self.to_moments = nn.Dense(2 * self.embed_dim, dtype=self.dtype)
    self.from_code = nn.Dense(self.z_channels, dtype=self.dtype)

  @property
  def factor(self) -> int:
    """Side of one latent pixel, in pixels."""
    return 2 ** (len(self.multipliers) - 1)

  def encode(self, x: jax.Array) -> Gaussian:
    """Encodes frames (n, h, w, in_channels) in [-1, 1] as a Gaussian (n, h/f, w/f, embed_dim)."""
    chex.assert_rank(x, 4)
    chex.assert_type(x, float)
    if x.shape[-1] != self.in_channels or x.shape[1] % self.factor or x.shape[2] % self.factor:
      raise ValueError(
        f"The KL-VAE takes frames (n, h, w, {self.in_channels}) with sides divisible by "
        f"{self.factor}, not {x.shape}."
      )
    moments = self.to_moments(self.encoder(x))
    return Gaussian.create(*jnp.split(moments, 2, axis=-1))

  def decode(self, z: jax.Array) -> jax.Array:
    """Decodes (n, h, w, embed_dim) to frames (n, f h, f w, in_channels), float32, not clipped."""
    chex.assert_shape(z, (None, None, None, self.embed_dim))
    return self.decoder(self.from_code(z)).astype(jnp.float32)

  def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Gaussian]:
    """Returns frames' (reconstruction from a posterior sample, posterior)."""
    posterior = self.encode(x)
    return self.decode(posterior.sample(key)), posterior
