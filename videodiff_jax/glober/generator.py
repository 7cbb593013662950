"""The video generator of Sec. 3.2: a DiT predicts the noise of global features."""

from typing import Any

import jax

from videodiff_jax.glober.networks import Networks
from videodiff_jax.models.outputs import output


def denoise(
  networks: Networks, params: Any, v_t: jax.Array, t: jax.Array, values: jax.Array
) -> jax.Array:
  """Returns the DiT's prediction (b, H'', W'', C'') for global features, without its variance.

  Args:
    networks: the system's networks.
    params: the DiT's parameters.
    v_t: (b, H'', W'', C'') noisy global features.
    t: (b,) timesteps.
    values: (b, ...) values of the condition, see conditions.py.
  """
  model = networks.generator
  inputs = networks.condition.generator_inputs(values, model.context_dim)
  return output(model, params, v_t, t, **inputs)[..., : model.in_channels]
