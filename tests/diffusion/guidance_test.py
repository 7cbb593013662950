from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.diffusion.guidance import combine, drop, guide, two_scales

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


WITHOUT_VIDEO = {"label": jnp.array([[0.5], [0.25], [4.0]])}


@pytest.mark.parametrize("form", ["ddim_v2", "ddim_v1"])
@pytest.mark.parametrize(("video", "text"), [(3.0, 1.5), (0.0, 2.0), (2.0, 1.0), (1.0, 0.0)])
def test_two_scales_are_the_release_s(form: str, video: float, text: float) -> None:
  """The formulas as the release writes them."""
  conditions = (CONDITION, WITHOUT_VIDEO, NULL)
  c, uv, ud = (predict(X, T, condition) for condition in conditions)
  base = ud if form == "ddim_v2" else c
  expected = base + video * (c - uv) + text * (c - ud)
  denoise = Recorder()
  guided = combine(denoise, conditions, two_scales(form, video, text))
  prediction, carry = guided(X, T, 41)
  np.testing.assert_allclose(prediction, expected, rtol=1e-5, atol=1e-5)
  evaluated = 3 * sum(weight != 0 for weight in two_scales(form, video, text))
  assert denoise.calls == [(evaluated,) * 3] and carry == 42


def test_scales_of_zero_leave_the_form_s_base() -> None:
  for form, base in (("ddim_v2", NULL), ("ddim_v1", CONDITION)):
    conditions = (CONDITION, WITHOUT_VIDEO, NULL)
    prediction, _ = combine(Recorder(), conditions, two_scales(form, 0.0, 0.0))(X, T, 0)
    np.testing.assert_array_equal(prediction, predict(X, T, base))


def test_no_weight_at_all_is_refused() -> None:
  with pytest.raises(ValueError, match="weights of the guidance are 0"):
    combine(Recorder(), (CONDITION,), (0.0,))
