"""Posteriors of frames and clips in a batch: encoded in the step, or given by a cache.

A cache's moments are mean and log-variance, joined along channels, as inputs/moments.py keeps them.
Drawn with the same key, both give the same samples up to rounding.
"""

from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.glober.autoencoder import Statistics, encode_frames, standardised
from videodiff_jax.glober.networks import Networks
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training.stage import Batch


def to_moments(posterior: Gaussian) -> jax.Array:
  """(n, h, w, c) each -> (n, h, w, 2 c)."""
  return jnp.concatenate([posterior.mean, posterior.logvar], axis=-1)


def from_moments(moments: jax.Array) -> Gaussian:
  """(..., h, w, 2 c) -> posteriors (n, h, w, c)."""
  flat = moments.astype(jnp.float32).reshape(-1, *moments.shape[-3:])
  return Gaussian(*jnp.split(flat, 2, axis=-1))


def frame_moments(networks: Networks, frozen: Any, frames: jax.Array) -> jax.Array:
  """Frames (n, h, w, c) uint8 -> the KL-VAE's moments (n, H', W', 2 C')."""
  return to_moments(networks.kl_vae.apply(frozen["kl_vae"], to_float(frames), method="encode"))


def channel_statistics(channels: int, std: float = 1.0) -> Statistics:
  """Mean 0 and a common std for every channel: the values before any are measured."""
  return {"mean": jnp.zeros(channels), "std": jnp.full(channels, std)}


def draw_latents(
  networks: Networks, frozen: Any, statistics: Statistics, batch: Batch, which: str, key: jax.Array
) -> jax.Array:
  """Standardised posterior samples (b, n, H', W', C') of a batch's 'key' or 'target' frames."""
  if (moments := batch.get(f"{which}_moments")) is not None:
    return standardised(from_moments(moments), statistics, moments.shape[:2], key)
  frames = batch[f"{which}_frames"]
  return encode_frames(networks.kl_vae, frozen["kl_vae"], statistics, frames, key)


def global_feature(networks: Networks, frozen: Any, batch: Batch, key: jax.Array) -> Gaussian:
  """The posterior of v (b, H'', W'', C'') (Eq. 1); `key` draws the latents it is encoded from."""
  if "global_features" in batch:
    return from_moments(batch["global_features"])
  latents = draw_latents(networks, frozen, frozen["latent_statistics"], batch, "key", key)
  return networks.autoencoder.apply(frozen["autoencoder"], latents, method="encode")
