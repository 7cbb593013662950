"""Saturated pixels: overshoot that clipping to [-1, 1] removes is not an error.

A loss that ignores it does not push the network to hit black exactly, so that a black background
stays black and has no grey haze. Both forms compute the same idea, on an error and on a prediction
of which the estimate of x_0 is a function.
"""

import jax
import jax.numpy as jnp


def without_overshoot(error: jax.Array, x_0: jax.Array) -> jax.Array:
  """Returns `error` = estimate - x_0 without what clipping the estimate would remove.

  Args:
    error: of an unbounded estimate of x_0.
    x_0: the true values, of the same shape, in [-1, 1].
  """
  return jnp.where(
    x_0 <= -1.0, jnp.maximum(error, 0.0), jnp.where(x_0 >= 1.0, jnp.minimum(error, 0.0), error)
  )


def saturated(
  prediction: jax.Array, target: jax.Array, estimate: jax.Array, x_0: jax.Array
) -> jax.Array:
  """Replaces the prediction by the target where the estimate overshoots a saturated pixel of x_0.

  Args:
    prediction: of a network.
    target: what it should have been.
    estimate: the estimate of x_0 that the prediction stands for, unbounded.
    x_0: the true values, in [-1, 1]. All arrays have one shape.
  """
  beyond = (jnp.abs(x_0) >= 1.0) & (estimate * x_0 > 1.0)
  return jnp.where(beyond, target, prediction)
