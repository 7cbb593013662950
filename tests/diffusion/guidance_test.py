from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.diffusion.guidance import drop, guide

X = jnp.arange(6.0).reshape(3, 2)
T = jnp.array([7.0, 7.0, 9.0])
CONDITION = {"label": jnp.array([[1.0], [2.0], [3.0]])}
NULL = {"label": jnp.full((3, 1), -1.0)}


class Recorder:
  """A denoiser that notes what it is called with; its prediction tells x, t and condition."""

  def __init__(self) -> None:
    self.calls: list[tuple[int, ...]] = []

  def __call__(self, x: jax.Array, t: jax.Array, condition: Any, carry: Any) -> Any:
    self.calls.append((len(x), len(t), len(condition["label"])))
    return predict(x, t, condition), carry + 1


def predict(x: jax.Array, t: jax.Array, condition: Any) -> jax.Array:
  return jnp.sin(x) * condition["label"] + t[:, None]


def test_unguided_is_one_conditional_call() -> None:
  denoise = Recorder()
  prediction, _ = guide(denoise, CONDITION, NULL, 1.0)(X, T, 0)
  np.testing.assert_array_equal(prediction, predict(X, T, CONDITION))
  assert denoise.calls == [(3, 3, 3)]


def test_guided_is_one_call_of_twice_the_batch() -> None:
  denoise = Recorder()
  prediction, _ = guide(denoise, CONDITION, NULL, 3.0)(X, T, 0)
  unconditional, conditional = predict(X, T, NULL), predict(X, T, CONDITION)
  expected = unconditional + 3.0 * (conditional - unconditional)
  np.testing.assert_allclose(prediction, expected, rtol=1e-6)
  assert denoise.calls == [(6, 6, 6)]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_carry_is_passed_through(scale: float) -> None:
  _, carry = guide(Recorder(), CONDITION, NULL, scale)(X, T, 41)
  assert carry == 42


def test_scale_zero_is_unconditional() -> None:
  prediction, _ = guide(Recorder(), CONDITION, NULL, 0.0)(X, T, 0)
  np.testing.assert_array_equal(prediction, predict(X, T, NULL))


def test_drop_replaces_whole_samples_with_its_probability() -> None:
  value = jnp.ones((4000, 2, 3))
  kept = np.asarray(drop(jax.random.key(0), value, jnp.zeros(()), 0.1)).reshape(4000, -1)
  assert (kept.min(1) == kept.max(1)).all()
  assert (kept[:, 0] == 0).mean() == pytest.approx(0.1, abs=0.015)


def test_drop_of_labels_keeps_their_type() -> None:
  labels = jnp.array([0, 1, 2], jnp.int32)
  for probability, expected in ((0.0, [0, 1, 2]), (1.0, [10, 10, 10])):
    dropped = drop(jax.random.key(0), labels, jnp.asarray(10), probability)
    assert dropped.dtype == jnp.int32
    np.testing.assert_array_equal(dropped, expected)
