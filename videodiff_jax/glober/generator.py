"""The video generator of Sec. 3.2: a DiT predicts the noise of global features."""

from typing import Any

import jax

from videodiff_jax.glober.networks import Networks


def denoise(
  networks: Networks, params: Any, v_t: jax.Array, t: jax.Array, values: jax.Array
) -> jax.Array:
  """The DiT's prediction for global features (b, H'', W'', C''); a variance half is left out.

  Args:
    networks: of the system.
    params: of the DiT.
    v_t: (b, H'', W'', C'') noisy global features.
    t: (b,) timesteps.
    values: (b, ...) of the condition, see conditions.py.
  """
  model = networks.generator
  inputs = networks.condition.generator_inputs(values, model.context_dim)
  return model.apply(params, v_t, t, **inputs)[..., : model.in_channels]
