"""Samples global features and frames by pure functions, each one compiled call.

`params` is a dict with the averaged parameters of the stages ('kl_vae', 'autoencoder',
'generator'), the channel statistics ('latent_statistics', 'feature_statistics') and, where text is
encoded, 'null_text', the empty prompt's tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from videodiff_jax.diffusion.guidance import combine, guide, two_scales
from videodiff_jax.diffusion.noise import Purpose, frame_keys, purpose_keys, starting_noise
from videodiff_jax.diffusion.samplers import Denoiser, Sampler, make_sampler, sample
from videodiff_jax.glober import generator
from videodiff_jax.glober.autoencoder import decode_frames, encode_frames, restore
from videodiff_jax.glober.conditions import NoCondition
from videodiff_jax.glober.networks import Networks
from videodiff_jax.inputs.clips import keyframe_indices
from videodiff_jax.models.outputs import output
from videodiff_jax.training import partitioning

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Guidance:
  """The forms and scales of classifier-free guidance; a scale of 1 is unguided.

  Attributes:
    form: the decoder's form, from `guidance.FORMS`. 'text' is e(v, null) + s (e(v, c) - e(v,
      null)). 'single' also has the null video in the null branch. The others have two scales.
    decoder: s in the forms 'text' and 'single'.
    video: the decoder's scale of the video, in the forms with two scales.
    text: the decoder's scale of the text, in the forms with two scales.
    generator: s of the generator.
  """

  form: str
  decoder: float
  video: float
  text: float
  generator: float


@dataclasses.dataclass(frozen=True)
class Drawing:
  """Samples from a trained system.

  In its methods `values` (n, ...) are the conditions of n clips, see conditions.py, and `clip_keys`
  (n,) holds one PRNG key per clip.

  Attributes:
    networks: the system's networks.
    frame_times: (F,) tau of a training clip's frames.
    key_indices: (K,) indices of the frames that are encoded.
    decoder_sampler: the sampler of frame latents.
    generator_sampler: the sampler of global features.
    guidance: the guidance of both.
    noise: how a clip's frames share starting noise, from `noise.SHARINGS`.
  """

  networks: Networks
  frame_times: np.ndarray
  key_indices: np.ndarray
  decoder_sampler: Sampler
  generator_sampler: Sampler
  guidance: Guidance
  noise: str

  def encode(self, params: Params, key_frames: jax.Array) -> jax.Array:
    """Encodes keyframes (n, K, h, w, c) uint8 as posterior means of v (n, H'', W'', C'')."""
    networks = self.networks
    kl_vae, autoencoder = (partitioning.gather(params[name]) for name in ("kl_vae", "autoencoder"))
    z = encode_frames(networks.kl_vae, kl_vae, params["latent_statistics"], key_frames, None)
    return output(networks.autoencoder, autoencoder, z, method="encode").mean

  def null_video(self, params: Params) -> jax.Array:
    """Encodes zero keyframe latents as the null video (1, H'', W'', C''), as dropout does."""
    zeros = jnp.zeros((1, len(self.key_indices), *self.networks.latent_shape))
    weights = partitioning.gather(params["autoencoder"])
    return output(self.networks.autoencoder, weights, zeros, method="encode").mean

  def draw_features(self, params: Params, values: jax.Array, clip_keys: jax.Array) -> jax.Array:
    """Samples global features (n, H'', W'', C'') by the DiT, with guidance if conditional."""
    networks, process = self.networks, self.networks.generator_process
    weights = partitioning.gather(params["generator"])

    def denoise(x: jax.Array, t: jax.Array, given: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
      return generator.denoise(networks, weights, x, t, given), carry

    null = jnp.broadcast_to(networks.condition.null(params), values.shape)
    scale = 1.0 if isinstance(networks.condition, NoCondition) else self.guidance.generator
    draw = jax.vmap(lambda key: jax.random.normal(key, networks.feature_shape))
    noise = draw(purpose_keys(clip_keys, Purpose.GLOBAL_FEATURE))
    noise = partitioning.split_batch(noise)
    keys = purpose_keys(clip_keys, Purpose.GENERATOR_STEPS)
    guided = guide(denoise, values, null, scale)
    v = sample(guided, process, self.generator_sampler, noise, keys)
    return restore(v, params["feature_statistics"])

  def draw_frames(
    self,
    params: Params,
    global_features: jax.Array,
    times: jax.Array,
    values: jax.Array,
    clip_keys: jax.Array,
  ) -> jax.Array:
    """Samples frames (n, h, w, c) in about [-1, 1], each only from its own row of arguments.

    Args:
      params: averaged parameters and statistics.
      global_features: (n, H'', W'', C''), one per frame.
      times: (n,) tau of each frame.
      values: (n, ...) values of the condition, one per frame.
      clip_keys: (n,) PRNG keys, equal for the frames of one clip.
    """
    networks = self.networks
    noise = starting_noise(clip_keys, times, networks.latent_shape, self.noise)
    noise = partitioning.split_batch(noise)
    keys = frame_keys(purpose_keys(clip_keys, Purpose.DECODER_STEPS), times)
    guided = self._guided(params, global_features, times, values)
    z = sample(guided, networks.decoder_process, self.decoder_sampler, noise, keys)
    kl_vae = partitioning.gather(params["kl_vae"])
    return decode_frames(networks.kl_vae, kl_vae, params["latent_statistics"], z)

  def _guided(
    self, params: Params, global_features: jax.Array, times: jax.Array, values: jax.Array
  ) -> Denoiser:
    """Returns the decoder's denoiser with guidance; arguments as in `draw_frames`."""
    networks, model, scales = self.networks, self.networks.autoencoder, self.guidance
    weights = partitioning.gather(params["autoencoder"])

    def given(v: jax.Array, values: jax.Array) -> Any:
      return output(model, weights, v, times, values, method="frame_conditions")

    def denoise(x: jax.Array, t: jax.Array, given: Any, carry: Any) -> tuple[jax.Array, Any]:
      return output(model, weights, x, t, given, method="denoise"), carry

    both = given(global_features, values)
    if scales.form in ("text", "single") and scales.decoder == 1.0:
      return guide(denoise, both, both, 1.0)
    null = jnp.broadcast_to(networks.condition.null(params), values.shape)
    if scales.form == "text":
      return guide(denoise, both, given(global_features, null), scales.decoder)
    null_v = jnp.broadcast_to(self.null_video(params), global_features.shape)
    neither = given(null_v, null)
    if scales.form == "single":
      return guide(denoise, both, neither, scales.decoder)
    weights_of_each = two_scales(scales.form, scales.video, scales.text)
    return combine(denoise, (both, given(null_v, values), neither), weights_of_each)

  def reconstruct(
    self, params: Params, clips: jax.Array, values: jax.Array, key: jax.Array
  ) -> jax.Array:
    """Redraws clips (n, F, h, w, c) uint8 from their global features."""
    features = self.encode(params, clips[:, self.key_indices])
    return self._draw_clips(params, features, values, jax.random.split(key, len(clips)))

  def generate(self, params: Params, values: jax.Array, key: jax.Array) -> jax.Array:
    """Generates new clips (n, F, h, w, c) with the given conditions."""
    keys = jax.random.split(key, len(values))
    return self._draw_clips(params, self.draw_features(params, values, keys), values, keys)

  def _draw_clips(
    self, params: Params, features: jax.Array, values: jax.Array, clip_keys: jax.Array
  ) -> jax.Array:
    """Draws, for each global feature, all frames of a training clip: (n, F, h, w, c)."""
    times = jnp.asarray(self.frame_times, jnp.float32)
    n, f = len(features), len(times)

    def rows(x: jax.Array) -> jax.Array:
      return jnp.repeat(x, f, axis=0)

    frames = self.draw_frames(
      params, rows(features), jnp.tile(times, n), rows(values), rows(clip_keys)
    )
    return frames.reshape(n, f, *frames.shape[1:])


def make_drawing(config: ml_collections.ConfigDict, networks: Networks) -> Drawing:
  """Builds the drawing of `config.sample`.

  Raises:
    ValueError: a sampler's settings are invalid.
  """
  data, settings = config.data, config.sample
  return Drawing(
    networks,
    frame_times(config),
    np.asarray(keyframe_indices(data.num_frames, data.num_keyframes)),
    make_sampler(networks.decoder_process, **settings.decoder),
    make_sampler(networks.generator_process, **settings.generator),
    Guidance(
      form=settings.guidance_form,
      decoder=settings.guidance_decoder,
      video=settings.guidance_video,
      text=settings.guidance_text,
      generator=settings.guidance_generator,
    ),
    settings.noise,
  )


def frame_time_divisor(config: ml_collections.ConfigDict) -> int:
  """Returns the divisor that turns a frame's index into tau: F, or F - 1."""
  divisors = {
    "index / F": config.data.num_frames,
    "index / (F - 1)": config.data.num_frames - 1,
  }
  return divisors[config.data.frame_time]


def frame_times(config: ml_collections.ConfigDict) -> np.ndarray:
  """Returns tau of a training clip's frames, (F,) float64."""
  return np.arange(config.data.num_frames) / frame_time_divisor(config)
