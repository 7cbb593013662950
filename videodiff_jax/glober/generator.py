"""The video generator of Sec. 3.2: a DiT fits the distribution of global features."""

from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.diffusion.guidance import drop
from videodiff_jax.diffusion.process import Process
from videodiff_jax.models.dit import DiT
from videodiff_jax.training import partitioning


def inputs(model: DiT, labels: jax.Array) -> dict[str, jax.Array]:
  """The DiT's conditions: one zero token where no text is given, and labels if it has classes."""
  tokens = jnp.zeros((len(labels), 1, model.context_dim))
  return {"tokens": tokens} | ({"labels": labels} if model.num_classes else {})


def denoise(model: DiT, params: Any, v_t: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
  """The DiT's prediction for global features (b, H'', W'', C''); a variance half is left out."""
  return model.apply(params, v_t, t, **inputs(model, labels))[..., : model.in_channels]


def loss(
  model: DiT,
  process: Process,
  params: Any,
  global_features: jax.Array,
  labels: jax.Array,
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
    labels: (b,) class labels.
    key: of timesteps, noise and dropout.
    drop_condition: probability of the null class.
  """
  keys = jax.random.split(key, 3)
  labels = drop(keys[0], labels, jnp.asarray(model.num_classes), drop_condition)
  t = process.draw_timesteps(keys[1], labels.shape)
  noise = jax.random.normal(keys[2], global_features.shape)
  t, noise = partitioning.split_batch((t, noise))
  v_t = process.q_sample(global_features, t, noise)
  prediction = denoise(model, params, v_t, t, labels)
  return process.loss(prediction, global_features, t, noise)
