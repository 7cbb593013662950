"""Drawing global features and frames: pure functions, each one compiled call.

`params` is a dict with the averaged parameters of the stages ('kl_vae', 'autoencoder',
'generator'), the channel statistics ('latent_statistics', 'feature_statistics') and, where text is
encoded, 'null_text', the empty prompt's tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from videodiff_jax.diffusion.guidance import combine, guide, two_scales
from videodiff_jax.diffusion.noise import Purpose, frame_keys, purpose_keys, starting_noise
from videodiff_jax.diffusion.samplers import Denoiser, make_sampler, sample
from videodiff_jax.glober import conditions, generator
from videodiff_jax.glober.autoencoder import decode_frames, encode_frames
from videodiff_jax.glober.networks import Networks
from videodiff_jax.inputs.clips import keyframe_indices
from videodiff_jax.training import partitioning

Params = dict[str, Any]


def frame_time_divisor(config: ml_collections.ConfigDict) -> int:
  """What an index is divided by to give tau: F, or F - 1."""
  divisors = {
    "index / F": config.data.num_frames,
    "index / (F - 1)": config.data.num_frames - 1,
  }
  return divisors[config.data.frame_time]


def frame_times(config: ml_collections.ConfigDict) -> np.ndarray:
  """(F,) tau of a training clip's frames, float64."""
  return np.arange(config.data.num_frames) / frame_time_divisor(config)


def encode_clips(networks: Networks, params: Params, key_frames: jax.Array) -> jax.Array:
  """(n, K, h, w, c) uint8 keyframes -> (n, H'', W'', C'') posterior means of v."""
  z = encode_frames(
    networks.kl_vae, params["kl_vae"], params["latent_statistics"], key_frames, None
  )
  return networks.autoencoder.apply(params["autoencoder"], z, method="encode").mean


def null_video(config: ml_collections.ConfigDict, networks: Networks, params: Params) -> jax.Array:
  """(1, H'', W'', C''): the encoding of zero keyframe latents, what training drops videos to."""
  zeros = jnp.zeros((1, config.data.num_keyframes, *networks.latent_shape))
  return networks.autoencoder.apply(params["autoencoder"], zeros, method="encode").mean


def draw_features(
  config: ml_collections.ConfigDict,
  networks: Networks,
  params: Params,
  condition: jax.Array,
  clip_keys: jax.Array,
) -> jax.Array:
  """New global features (n, H'', W'', C'') from the DiT, guided where there is a condition.

  Args:
    config: `config.sample.generator` has the sampler, `config.sample.guidance_generator` s.
    networks: of the system.
    params: averaged parameters and statistics.
    condition: (n, ...), see conditions.py.
    clip_keys: (n,) one PRNG key a clip.
  """
  process, settings = networks.generator_process, config.sample
  sampler = make_sampler(process, **settings.generator)
  weights = partitioning.gather(params["generator"])

  def denoise(x: jax.Array, t: jax.Array, given: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
    return generator.denoise(networks.generator, weights, x, t, given), carry

  null = jnp.broadcast_to(conditions.null(networks, params), condition.shape)
  scale = 1.0 if networks.condition == "none" else settings.guidance_generator
  draw = jax.vmap(lambda key: jax.random.normal(key, networks.feature_shape))
  noise = draw(purpose_keys(clip_keys, Purpose.GLOBAL_FEATURE))
  noise = partitioning.split_batch(noise)
  keys = purpose_keys(clip_keys, Purpose.GENERATOR_STEPS)
  v = sample(guide(denoise, condition, null, scale), process, sampler, noise, keys)
  statistics = params["feature_statistics"]
  return v * statistics["std"] + statistics["mean"]


def draw_frames(
  config: ml_collections.ConfigDict,
  networks: Networks,
  params: Params,
  global_features: jax.Array,
  times: jax.Array,
  condition: jax.Array,
  clip_keys: jax.Array,
) -> jax.Array:
  """Frames (n, h, w, c) in about [-1, 1], each from its own row of arguments alone.

  Args:
    config: `config.sample.decoder` has the sampler, `.guidance_form` and its scales the guidance
      ('text': e(v, null) + s (e(v, c) - e(v, null)); 'single' compares with the null video, too),
      `.noise` its sharing.
    networks: of the system.
    params: averaged parameters and statistics.
    global_features: (n, H'', W'', C''), one a frame.
    times: (n,) tau of each frame.
    condition: (n, ...), see conditions.py.
    clip_keys: (n,) PRNG keys, equal for the frames of one clip.
  """
  process, settings, model = networks.decoder_process, config.sample, networks.autoencoder
  sampler = make_sampler(process, **settings.decoder)
  weights = partitioning.gather(params["autoencoder"])

  def given(v: jax.Array, condition: jax.Array) -> Any:
    return model.apply(weights, v, times, condition, method="frame_conditions")

  def denoise(x: jax.Array, t: jax.Array, given: Any, carry: Any) -> tuple[jax.Array, Any]:
    return model.apply(weights, x, t, given, method="denoise"), carry

  def guided() -> Denoiser:
    both = given(global_features, condition)
    if settings.guidance_form in ("text", "single") and settings.guidance_decoder == 1.0:
      return guide(denoise, both, both, 1.0)
    null = jnp.broadcast_to(conditions.null(networks, params), condition.shape)
    if settings.guidance_form == "text":
      return guide(denoise, both, given(global_features, null), settings.guidance_decoder)
    null_v = jnp.broadcast_to(null_video(config, networks, params), global_features.shape)
    neither = given(null_v, null)
    if settings.guidance_form == "single":
      return guide(denoise, both, neither, settings.guidance_decoder)
    scales = (settings.guidance_video, settings.guidance_text)
    weights_of_each = two_scales(settings.guidance_form, *scales)
    return combine(denoise, (both, given(null_v, condition), neither), weights_of_each)

  noise = starting_noise(clip_keys, times, networks.latent_shape, settings.noise)
  noise = partitioning.split_batch(noise)
  keys = frame_keys(purpose_keys(clip_keys, Purpose.DECODER_STEPS), times)
  z = sample(guided(), process, sampler, noise, keys)
  return decode_frames(networks.kl_vae, params["kl_vae"], params["latent_statistics"], z)


def _draw_clips(
  config: ml_collections.ConfigDict,
  networks: Networks,
  params: Params,
  features: jax.Array,
  condition: jax.Array,
  clip_keys: jax.Array,
) -> jax.Array:
  """(n, F, h, w, c): every frame of a training clip's length for each global feature."""
  times = jnp.asarray(frame_times(config), jnp.float32)
  n, f = len(features), len(times)

  def rows(x: jax.Array) -> jax.Array:
    return jnp.repeat(x, f, axis=0)

  frames = draw_frames(
    config, networks, params, rows(features), jnp.tile(times, n), rows(condition), rows(clip_keys)
  )
  return frames.reshape(n, f, *frames.shape[1:])


def reconstruct_clips(
  config: ml_collections.ConfigDict,
  networks: Networks,
  params: Params,
  clips: jax.Array,
  condition: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """(n, F, h, w, c) uint8 clips -> the same clips drawn from their global features."""
  indices = keyframe_indices(config.data.num_frames, config.data.num_keyframes)
  features = encode_clips(networks, params, clips[:, np.asarray(indices)])
  keys = jax.random.split(key, len(clips))
  return _draw_clips(config, networks, params, features, condition, keys)


def generate_clips(
  config: ml_collections.ConfigDict,
  networks: Networks,
  params: Params,
  condition: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """(n, F, h, w, c) new clips of the given conditions."""
  keys = jax.random.split(key, len(condition))
  features = draw_features(config, networks, params, condition, keys)
  return _draw_clips(config, networks, params, features, condition, keys)
