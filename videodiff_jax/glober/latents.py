"""Posteriors of a batch's frames and clips: encoded in the step, or read from a cache.

A cache's moments are mean and log-variance, concatenated along channels (inputs/latent_cache.py).
With the same key, both ways give the same samples up to rounding.
"""

from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.glober.autoencoder import Statistics, encode_frames, standardised
from videodiff_jax.glober.networks import Networks
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.outputs import output
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training.stage import Batch


def to_moments(posterior: Gaussian) -> jax.Array:
  """Concatenates mean and log-variance (n, h, w, c) as moments (n, h, w, 2 c)."""
  return jnp.concatenate([posterior.mean, posterior.logvar], axis=-1)


def from_moments(moments: jax.Array) -> Gaussian:
  """Converts moments (..., h, w, 2 c) to posteriors (n, h, w, c)."""
  flat = moments.astype(jnp.float32).reshape(-1, *moments.shape[-3:])
  return Gaussian(*jnp.split(flat, 2, axis=-1))


def frame_moments(networks: Networks, frozen: Any, frames: jax.Array) -> jax.Array:
  """Encodes frames (n, h, w, c) uint8 as the KL-VAE's moments (n, H', W', 2 C')."""
  return to_moments(output(networks.kl_vae, frozen["kl_vae"], to_float(frames), method="encode"))


def channel_statistics(channels: int, std: float = 1.0) -> Statistics:
  """Returns mean 0 and one std for every channel, the values before measurement."""
  return {"mean": jnp.zeros(channels), "std": jnp.full(channels, std)}


def draw_latents(
  networks: Networks, frozen: Any, statistics: Statistics, batch: Batch, which: str, key: jax.Array
) -> jax.Array:
  """Draws standardised posterior samples (b, n, H', W', C') of 'key' or 'target' frames."""
  if (moments := batch.get(f"{which}_moments")) is not None:
    return standardised(from_moments(moments), statistics, moments.shape[:2], key)
  frames = batch[f"{which}_frames"]
  return encode_frames(networks.kl_vae, frozen["kl_vae"], statistics, frames, key)


def global_feature(networks: Networks, frozen: Any, batch: Batch, key: jax.Array) -> Gaussian:
  """Returns the posterior of v (b, H'', W'', C'') (Eq. 1); `key` samples the keyframe latents."""
  if "global_features" in batch:
    return from_moments(batch["global_features"])
  latents = draw_latents(networks, frozen, frozen["latent_statistics"], batch, "key", key)
  return output(networks.autoencoder, frozen["autoencoder"], latents, method="encode")
