"""Pixels at the ends of the range: what clipping makes right is no error."""

import jax
import jax.numpy as jnp


def hidden_by_clipping(estimate: jax.Array, x_0: jax.Array) -> jax.Array:
  """Where x_0 is black or white and its estimate lies beyond: clipped to [-1, 1] they are equal.

  A loss that leaves these pixels out need not meet black exactly from above and below, so that a
  black background ends up black and not grey by the noise of the network.

  Args:
    estimate: of x_0, any number.
    x_0: of the same shape, in [-1, 1].

  Returns:
    bool, of the same shape.
  """
  return (jnp.abs(x_0) >= 1.0) & (estimate * x_0 > 1.0)
