"""The video auto-encoder of Sec. 3.1: a clip to a global feature, and any frame back (Eq. 1-8)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from videodiff_jax.diffusion.guidance import drop
from videodiff_jax.diffusion.process import Process
from videodiff_jax.models.dit import PROMPT_STD
from videodiff_jax.models.frame_control import FrameControl
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.pixels import to_float
from videodiff_jax.models.unet import UNet
from videodiff_jax.models.video_encoder import VideoEncoder
from videodiff_jax.training import partitioning

Statistics = dict[str, jax.Array]


class Autoencoder(nn.Module):
  """Video encoder and diffusion decoder, trained together.

  Attributes:
    encoder: keyframe latents -> posterior of the global feature.
    control: (global feature, frame time) -> maps added to the UNet's blocks.
    unet: the denoiser of frame latents.
    num_classes: of a class-conditional system.
    prompt_tokens: above 0, so many learned tokens stand for one prompt.

  Without either, and without text, the UNet's tokens are a single zero token.
  """

  encoder: VideoEncoder
  control: FrameControl
  unet: UNet
  num_classes: int = 0
  prompt_tokens: int = 0

  def setup(self) -> None:
    if self.prompt_tokens:
      shape = (self.prompt_tokens, self.unet.context_dim)
      self.prompt = self.param("prompt", nn.initializers.normal(PROMPT_STD), shape, jnp.float32)
    if self.num_classes:
      self.class_embedding = nn.Embed(
        self.num_classes + 1,
        self.unet.context_dim,
        embedding_init=nn.initializers.normal(0.02),
      )

  def encode(self, key_latents: jax.Array) -> Gaussian:
    """(b, k, H', W', C') keyframe latents -> posterior of v, (b, H'', W'', C'') (Eq. 1-2)."""
    return self.encoder(key_latents)

  def condition_tokens(self, condition: jax.Array) -> jax.Array:
    """A condition, (b,) or (b, l, context_dim), as in conditions.py -> (b, l, context_dim)."""
    if self.num_classes:
      return self.class_embedding(condition)[:, None]
    if self.prompt_tokens:
      return condition[:, None, None] * self.prompt
    if condition.ndim == 3:
      return condition
    return jnp.zeros((len(condition), 1, self.unet.context_dim))

  def frame_conditions(
    self, global_feature: jax.Array, frame_times: jax.Array, condition: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """All that a frame's denoising needs beside z_t and t, computed once: (control maps, tokens).

    Args:
      global_feature: (n, H'', W'', C''), one a frame.
      frame_times: (n,) tau.
      condition: (n, ...), see conditions.py.
    """
    return self.control(global_feature, frame_times), self.condition_tokens(condition)

  def denoise(
    self, z_t: jax.Array, t: jax.Array, conditions: tuple[dict[str, jax.Array], jax.Array]
  ) -> jax.Array:
    """The UNet's prediction for frames (n, H', W', C') at timesteps (n,): n(z_t, t, i, v, c)."""
    control, tokens = conditions
    return self.unet(z_t, t, tokens, control)

  def __call__(
    self, key_latents: jax.Array, frame_times: jax.Array, condition: jax.Array
  ) -> jax.Array:
    """One pass through every module, for making parameters."""
    v = self.encode(key_latents).mean
    z_t = jnp.zeros((len(v), *key_latents.shape[2:]))
    return self.denoise(z_t, frame_times, self.frame_conditions(v, frame_times, condition))


def encode_frames(
  kl_vae: KLVAE, params: Any, statistics: Statistics, frames: jax.Array, key: jax.Array | None
) -> jax.Array:
  """Frames -> standardised latents.

  Args:
    kl_vae: the frame auto-encoder.
    params: its parameters.
    statistics: per-channel 'mean' and 'std' of its latents.
    frames: (..., h, w, c) uint8.
    key: draws posterior samples, as the release does everywhere; None takes the means.
  """
  flat = to_float(frames).reshape(-1, *frames.shape[-3:])
  posterior = kl_vae.apply(params, flat, method="encode")
  return standardised(posterior, statistics, frames.shape[:-3], key)


def standardised(
  posterior: Gaussian, statistics: Statistics, shape: tuple[int, ...], key: jax.Array | None
) -> jax.Array:
  """Posteriors of prod(shape) frames -> latents (*shape, H', W', C'), as `encode_frames`."""
  z = posterior.mean if key is None else posterior.sample(key)
  z = (z - statistics["mean"]) / statistics["std"]
  return z.reshape(*shape, *z.shape[1:])


def decode_frames(kl_vae: KLVAE, params: Any, statistics: Statistics, z: jax.Array) -> jax.Array:
  """Standardised latents (n, H', W', C') -> frames (n, h, w, c), about [-1, 1], not clipped."""
  return kl_vae.apply(params, z * statistics["std"] + statistics["mean"], method="decode")


def reconstruction(
  model: Autoencoder,
  process: Process,
  params: Any,
  key_latents: jax.Array,
  target_latents: jax.Array,
  target_times: jax.Array,
  condition: jax.Array,
  null_condition: jax.Array,
  key: jax.Array,
  *,
  drop_video: float,
  drop_condition: float,
) -> dict[str, jax.Array]:
  """L_rec and L_kl of Eq. 7 and 2, and the frames of Eq. 9.

  Args:
    model: the auto-encoder.
    process: diffusion of frame latents.
    params: of `model`.
    key_latents: (b, k, H', W', C').
    target_latents: (b, f, H', W', C') frames to synthesise.
    target_times: (b, f) their tau.
    condition: (b, ...), see conditions.py.
    null_condition: what it is dropped to.
    key: of timesteps, noise, posterior sample and dropout.
    drop_video: probability of zero keyframe latents, whose encoding is the null video.
    drop_condition: probability of the null condition, independent of it.

  Returns:
    'reconstruction': L_rec, mean squared error; 'kl': L_kl, summed over (h, w, c), mean over the
    batch; 'latents': (b, f, H', W', C') one-step estimates of z_0 (Eq. 9); 'timesteps': (b, f).
  """
  b, f = target_times.shape
  keys = jax.random.split(key, 5)
  key_latents = drop(keys[0], key_latents, jnp.zeros(()), drop_video)
  condition = drop(keys[1], condition, null_condition, drop_condition)
  posterior = model.apply(params, key_latents, method="encode")
  v = posterior.sample(keys[2])

  def per_frame(x: jax.Array) -> jax.Array:
    return jnp.repeat(x, f, axis=0)

  z_0 = rearrange(target_latents, "b f h w c -> (b f) h w c")
  t = process.draw_timesteps(keys[3], (b * f,))
  noise = jax.random.normal(keys[4], z_0.shape)
  t, noise = partitioning.split_batch((t, noise))
  z_t = process.q_sample(z_0, t, noise)
  conditions = model.apply(
    params, per_frame(v), target_times.reshape(-1), per_frame(condition), method="frame_conditions"
  )
  prediction = model.apply(params, z_t, t, conditions, method="denoise")
  latents = process.to_x0(z_t, t, prediction)
  return {
    "reconstruction": process.loss(prediction, z_0, t, noise).mean(),
    "kl": posterior.kl().mean(),
    "latents": rearrange(latents, "(b f) h w c -> b f h w c", b=b),
    "timesteps": t.reshape(b, f),
  }
