"""A stand-in for LGC-VD's networks that compiles at once, and the real ones in small."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.lgcvd.model import ContextModel
from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder

FRAMES, SLOTS, SIDE, CHANNELS = 8, 2, 4, 1
FRAGMENT = (SIDE, SIDE, FRAMES * CHANNELS)


class Linear(nn.Module):
  """A prediction that is linear in all that the UNet sees; its context is a map as large as x."""

  def setup(self) -> None:
    self.unet = self.param("unet", nn.initializers.normal(0.5), (5,))
    self.encoder = self.param("encoder", nn.initializers.normal(0.5), ())

  def encode(self, last_fragment: jax.Array) -> jax.Array:
    return self.encoder * last_fragment

  def denoise(
    self, x: jax.Array, t: jax.Array, condition: jax.Array, context: jax.Array
  ) -> jax.Array:
    a, b, c, d, bias = self.unet
    time = (t / 1000.0)[:, None, None, None]
    local = condition.mean(-1, keepdims=True)
    return jnp.tanh(a * x + b * local + c * context + d * time + bias)

  def __call__(
    self, x: jax.Array, t: jax.Array, condition: jax.Array, last_fragment: jax.Array
  ) -> jax.Array:
    return self.denoise(x, t, condition, self.encode(last_fragment))


def linear_params(seed: int = 0) -> dict:
  unet = jax.random.normal(jax.random.key(seed), (5,))
  return {"params": {"unet": unet, "encoder": jnp.float32(0.7)}}


def networks(encoder: bool = True) -> ContextModel:
  small = {"channels": 8, "multipliers": (1, 2), "attention_rates": (2,), "head_channels": None}
  return ContextModel(LGCUNet(**small), SequenceEncoder(**small) if encoder else None)
