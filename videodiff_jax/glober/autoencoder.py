"""The video auto-encoder of Sec. 3.1: it encodes a clip and decodes any of its frames (Eq. 1-8)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.glober.conditions import Condition
from videodiff_jax.models.frame_control import FrameControl
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.outputs import output
from videodiff_jax.models.pixels import to_float
from videodiff_jax.models.unet import UNet
from videodiff_jax.models.video_encoder import VideoEncoder

Statistics = dict[str, jax.Array]


class Autoencoder(nn.Module):
  """Video encoder and diffusion decoder, trained together.

  Attributes:
    encoder: keyframe latents -> posterior of the global feature.
    control: (global feature, frame time) -> maps added to the UNet's blocks.
    unet: the denoiser of frame latents.
    condition: what clips are conditioned on; it gives the UNet's tokens.
  """

  encoder: VideoEncoder
  control: FrameControl
  unet: UNet
  condition: Condition

  def setup(self) -> None:
    self.learned = self.condition.learned(self, self.unet.context_dim)

  def encode(self, key_latents: jax.Array) -> Gaussian:
    """Encodes keyframe latents (b, k, H', W', C') as the posterior of v (b, H'', W'', C'').

    This is Eq. 1-2.
    """
    return self.encoder(key_latents)

  def frame_conditions(
    self, global_feature: jax.Array, frame_times: jax.Array, values: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """Computes (control maps, tokens), a frame's inputs that stay the same over denoising steps.

    Args:
      global_feature: (n, H'', W'', C''), one per frame.
      frame_times: (n,) tau in [0, 1].
      values: (n, ...) values of the condition, see conditions.py.
    """
    tokens = self.condition.tokens(values, self.learned, self.unet.context_dim)
    return self.control(global_feature, frame_times), tokens

  def denoise(
    self, z_t: jax.Array, t: jax.Array, conditions: tuple[dict[str, jax.Array], jax.Array]
  ) -> jax.Array:
    """Returns the UNet's prediction n(z_t, t, i, v, c) for frames (n, H', W', C'), t (n,)."""
    control, tokens = conditions
    return self.unet(z_t, t, tokens, control)

  def __call__(
    self, key_latents: jax.Array, frame_times: jax.Array, values: jax.Array
  ) -> jax.Array:
    """Runs every module once, to initialise parameters."""
    v = self.encode(key_latents).mean
    z_t = jnp.zeros((len(v), *key_latents.shape[2:]))
    return self.denoise(z_t, frame_times, self.frame_conditions(v, frame_times, values))


def encode_frames(
  kl_vae: KLVAE, params: Any, statistics: Statistics, frames: jax.Array, key: jax.Array | None
) -> jax.Array:
  """Encodes frames as standardised latents (..., H', W', C').

  Args:
    kl_vae: the frame auto-encoder.
    params: its parameters.
    statistics: per-channel 'mean' and 'std' of its latents.
    frames: (..., h, w, c) uint8.
    key: PRNG key of posterior samples, which the release uses everywhere; None takes the means.
  """
  flat = to_float(frames).reshape(-1, *frames.shape[-3:])
  posterior = output(kl_vae, params, flat, method="encode")
  return standardised(posterior, statistics, frames.shape[:-3], key)


def standardised(
  posterior: Gaussian, statistics: Statistics, shape: tuple[int, ...], key: jax.Array | None
) -> jax.Array:
  """Converts posteriors of prod(shape) frames to standardised latents (*shape, H', W', C')."""
  z = posterior.mean if key is None else posterior.sample(key)
  z = standardise(z, statistics)
  return z.reshape(*shape, *z.shape[1:])


def decode_frames(kl_vae: KLVAE, params: Any, statistics: Statistics, z: jax.Array) -> jax.Array:
  """Decodes standardised latents (n, H', W', C') to frames (n, h, w, c), about [-1, 1]."""
  return output(kl_vae, params, restore(z, statistics), method="decode")


def standardise(x: jax.Array, statistics: Statistics) -> jax.Array:
  """Subtracts each channel's mean from maps (..., c) and divides by its std."""
  mean, std = (jax.lax.broadcast_to_rank(statistics[name], x.ndim) for name in ("mean", "std"))
  return (x - mean) / std


def restore(z: jax.Array, statistics: Statistics) -> jax.Array:
  """Computes the inverse of `standardise`."""
  mean, std = (jax.lax.broadcast_to_rank(statistics[name], z.ndim) for name in ("mean", "std"))
  return z * std + mean
