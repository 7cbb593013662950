"""Formulas of golden files: any function of jax.numpy, and nothing that is no formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.expressions import branches, evaluate, right_side

X = np.linspace(-2, 2, 5, dtype=np.float32)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("0.1*x + 0.01*sin(t)", 0.1 * X + 0.01 * np.sin(3.0)),
    ("tanh(x) - sqrt(abs(x)) * exp(-x**2)", np.tanh(X) - np.sqrt(np.abs(X)) * np.exp(-(X**2))),
    ("jnp.clip(x, -1, 1) / (t + pi)", np.clip(X, -1, 1) / (3.0 + np.pi)),
    ("where(greater(x, 0), x, 0.5)", np.where(X > 0, X, 0.5)),
    ("mean(x, keepdims=1) + sigmoid(t)", [1 / (1 + np.exp(-3.0))]),
  ],
)
def test_formulas(text: str, expected: np.ndarray) -> None:
  found = jax.jit(lambda x: evaluate(text, {"x": x, "t": jnp.float32(3.0)}))(X)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_given_comes_first() -> None:
  assert evaluate("e * sin(2)", {"e": 3, "sin": lambda x: 10 * x}) == 60


@pytest.mark.parametrize(
  "text",
  [
    "__import__('os')",
    "x.__class__",
    "open('a')",
    "jnp.__loader__",
    "[x for x in (1,)]",
    "(lambda: 1)()",
    "'text'",
    "sin(*x)",
    "what(x)",
    "x +",
    "x; x",
  ],
)
def test_what_is_no_formula(text: str) -> None:
  with pytest.raises(ValueError, match=r"formula|neither"):
    evaluate(text, {"x": X})


def test_sides_and_branches() -> None:
  assert right_side("v(x, t) = where(x, axis=0) ; t = the timestep").strip() == "where(x, axis=0)"
  found = branches("cond: eps*(1+0.3), uncond: minimum(eps, 0)")
  assert {name: text.strip() for name, text in found.items()} == {
    "cond": "eps*(1+0.3)",
    "uncond": "minimum(eps, 0)",
  }
