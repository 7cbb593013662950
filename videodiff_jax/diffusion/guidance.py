"""Classifier-free guidance (Ho & Salimans 2022), and the dropout that makes it possible."""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from videodiff_jax.diffusion.samplers import Denoiser

# Forms of guidance in GLOBER's decoder. 'text' and 'single' have one scale (`guide`): their null
# branch lacks the text, or text and video. The others have two scales (`two_scales`).
FORMS = ("text", "single", "ddim_v2", "ddim_v1")

ConditionalDenoiser = Callable[[jax.Array, jax.Array, Any, Any], tuple[jax.Array, Any]]


def guide(
  denoise: ConditionalDenoiser, condition: Any, null_condition: Any, guidance_scale: float
) -> Denoiser:
  """Binds a condition: e = e_u + s (e_c - e_u), both branches in one batch of twice the size.

  Args:
    denoise: (x_t, t, condition, carry) -> (prediction, carry).
    condition: tree of arrays with leading axis b.
    null_condition: a tree of the same shapes that stands for 'no condition'.
    guidance_scale: s; 1 is unguided and evaluates only the conditional branch.
  """
  if guidance_scale == 1.0:
    return lambda x, t, carry: denoise(x, t, condition, carry)
  chex.assert_trees_all_equal_shapes(condition, null_condition)
  both = jax.tree.map(_interleave, condition, null_condition)

  def guided(x: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
    prediction, carry = denoise(_interleave(x, x), _interleave(t, t), both, carry)
    conditional, unconditional = _part(prediction, 2)
    return unconditional + guidance_scale * (conditional - unconditional), carry

  return guided


def two_scales(form: str, video_scale: float, text_scale: float) -> tuple[float, float, float]:
  """Returns the weights of (c, uv, ud) for `combine`, as in the release's decoder guidance.

  c is the condition, uv the text with the null video, ud the null text with the null video.
    'ddim_v2': e = e_ud + s_video (e_c - e_uv) + s_text (e_c - e_ud), the release's default.
    'ddim_v1': e = e_c + s_video (e_c - e_uv) + s_text (e_c - e_ud).
  """
  return {
    "ddim_v2": (video_scale + text_scale, -video_scale, 1.0 - text_scale),
    "ddim_v1": (1.0 + video_scale + text_scale, -video_scale, -text_scale),
  }[form]


def combine(
  denoise: ConditionalDenoiser, conditions: Sequence[Any], weights: Sequence[float]
) -> Denoiser:
  """Combines conditions: e = sum_i weights_i e(conditions_i), in one batch.

  Args:
    denoise: (x_t, t, condition, carry) -> (prediction, carry).
    conditions: trees of arrays with leading axis b, all of one structure.
    weights: one weight per condition; a condition with weight 0 is not evaluated.

  Raises:
    ValueError: all weights are 0.
  """
  used = [(c, w) for c, w in zip(conditions, weights, strict=True) if w]
  if not used:
    raise ValueError("All weights of the guidance are 0: choose other scales.")
  for condition, _ in used[1:]:
    chex.assert_trees_all_equal_shapes(used[0][0], condition)
  together = jax.tree.map(_interleave, *(condition for condition, _ in used))
  n = len(used)

  def combined(x: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
    prediction, carry = denoise(_interleave(*(x,) * n), _interleave(*(t,) * n), together, carry)
    weighted = (weight * part for part, (_, weight) in zip(_part(prediction, n), used))
    return jnp.asarray(sum(weighted)), carry

  return combined


def _interleave(*branches: jax.Array) -> jax.Array:
  """Interleaves branches as a_0, b_0, a_1, b_1, ..., so that each sample's stay on one device."""
  first = branches[0]
  return jnp.stack(branches, axis=1).reshape(len(branches) * len(first), *first.shape[1:])


def _part(together: jax.Array, count: int) -> list[jax.Array]:
  """Undoes `_interleave`. Of [i::count] jax 0.9 makes a gather, which costs a sum over devices."""
  rows = together.reshape(-1, count, *together.shape[1:])
  return [rows[:, i] for i in range(count)]


def drop(key: jax.Array, value: jax.Array, null: jax.Array, probability: float) -> jax.Array:
  """Replaces whole samples of `value` (b, ...) by `null` (broadcastable) with a probability."""
  dropped = jax.random.bernoulli(key, probability, value.shape[:1])
  null = jax.lax.broadcast_to_rank(null, value.ndim)
  return jnp.where(dropped.reshape(-1, *(1,) * (value.ndim - 1)), null, value)
