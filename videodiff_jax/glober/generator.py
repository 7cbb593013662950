"""The video generator of Sec. 3.2: a DiT fits the distribution of global features."""

from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.diffusion.guidance import drop
from videodiff_jax.diffusion.process import Process
from videodiff_jax.models.dit import DiT
from videodiff_jax.training import partitioning


def inputs(model: DiT, condition: jax.Array) -> dict[str, jax.Array]:
  """The DiT's arguments for a condition as in conditions.py; one zero token where no text is."""
  if model.prompt_tokens or condition.ndim == 3:
    return {"tokens": condition}
  tokens = jnp.zeros((len(condition), 1, model.context_dim))
  return {"tokens": tokens} | ({"labels": condition} if model.num_classes else {})


def denoise(
  model: DiT, params: Any, v_t: jax.Array, t: jax.Array, condition: jax.Array
) -> jax.Array:
  """The DiT's prediction for global features (b, H'', W'', C''); a variance half is left out."""
  return model.apply(params, v_t, t, **inputs(model, condition))[..., : model.in_channels]


def loss(
  model: DiT,
  process: Process,
  params: Any,
  global_features: jax.Array,
  condition: jax.Array,
  null_condition: jax.Array,
  key: jax.Array,
  *,
  drop_condition: float,
) -> jax.Array:
  """Eq. 7 for global features instead of frame latents. Returns (b,).

  Args:
    model: the generator.
    process: diffusion of global features.
    params: of `model`.
    global_features: (b, H'', W'', C'') standardised posterior samples.
    condition: (b, ...), see conditions.py.
    null_condition: what it is dropped to.
    key: of timesteps, noise and dropout.
    drop_condition: probability of the null condition.
  """
  keys = jax.random.split(key, 3)
  condition = drop(keys[0], condition, null_condition, drop_condition)
  t = process.draw_timesteps(keys[1], condition.shape[:1])
  noise = jax.random.normal(keys[2], global_features.shape)
  t, noise = partitioning.split_batch((t, noise))
  v_t = process.q_sample(global_features, t, noise)
  prediction = denoise(model, params, v_t, t, condition)
  return process.loss(prediction, global_features, t, noise)
