"""Classifier-free guidance (Ho & Salimans 2022), and the dropout that makes it possible."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.diffusion.samplers import Denoiser

ConditionalDenoiser = Callable[[jax.Array, jax.Array, Any, Any], tuple[jax.Array, Any]]


def guide(
  denoise: ConditionalDenoiser, condition: Any, null_condition: Any, guidance_scale: float
) -> Denoiser:
  """Binds a condition: e = e_u + s (e_c - e_u), both branches in one batch of twice the size.

  Args:
    denoise: (x_t, t, condition, carry) -> (prediction, carry).
    condition: tree of arrays with leading axis b.
    null_condition: the same tree, of what stands for 'no condition'.
    guidance_scale: s; 1 is unguided and evaluates the conditional branch alone.
  """
  if guidance_scale == 1.0:
    return lambda x, t, carry: denoise(x, t, condition, carry)
  both = jax.tree.map(_interleave, condition, null_condition)

  def guided(x: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
    prediction, carry = denoise(_interleave(x, x), _interleave(t, t), both, carry)
    conditional, unconditional = prediction[0::2], prediction[1::2]
    return unconditional + guidance_scale * (conditional - unconditional), carry

  return guided


def _interleave(a: jax.Array, b: jax.Array) -> jax.Array:
  """a_0, b_0, a_1, b_1, ...: both branches of a sample stay on the device that has it."""
  return jnp.stack([a, b], axis=1).reshape(2 * len(a), *a.shape[1:])


def drop(key: jax.Array, value: jax.Array, null: jax.Array, probability: float) -> jax.Array:
  """Replaces whole samples of `value` (b, ...) by `null` (broadcastable) with a probability."""
  dropped = jax.random.bernoulli(key, probability, value.shape[:1])
  return jnp.where(dropped.reshape(-1, *(1,) * (value.ndim - 1)), null, value)
