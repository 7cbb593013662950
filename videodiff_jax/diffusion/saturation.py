"""Saturated pixels: overshoot that clipping removes is not an error."""

import jax
import jax.numpy as jnp


def hidden_by_clipping(estimate: jax.Array, x_0: jax.Array) -> jax.Array:
  """Marks pixels where x_0 is black or white and its estimate lies beyond it.

  Clipping to [-1, 1] makes both equal there. A loss that ignores these pixels does not push the
  network to hit black exactly, so that a black background stays black and has no grey haze.

  Args:
    estimate: an estimate of x_0, unbounded.
    x_0: the true values, of the same shape, in [-1, 1].

  Returns:
    A bool array of the same shape.
  """
  return (jnp.abs(x_0) >= 1.0) & (estimate * x_0 > 1.0)
