"""Counting operations."""

import types

import jax
import jax.numpy as jnp
import pytest

from videodiff_jax.training import flops


def count(function, *args) -> int:
  return flops.count(jax.jit(function).trace(*args).jaxpr)


def conv(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, w, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def test_products_and_convolutions() -> None:
  assert count(jnp.matmul, jnp.ones((5, 7)), jnp.ones((7, 11))) == 2 * 5 * 7 * 11
  x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 6))
  assert count(conv, x, w) == 2 * (2 * 8 * 8 * 6) * 27
  assert count(lambda x, w: conv(x, w, 2), x, w) == 2 * (2 * 4 * 4 * 6) * 27


def test_backward_costs_twice_the_forward() -> None:
  x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
  forward = count(conv, x, w)
  both = count(jax.grad(lambda x, w: jnp.square(conv(x, w)).sum(), argnums=(0, 1)), x, w)
  assert both == 3 * forward


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint, jax.jit])
def test_scans_count_their_length_and_wrappers_count_their_inside(wrap) -> None:
  w = jnp.ones((4, 4))
  body = wrap(lambda x: x @ w)
  once = count(body, jnp.ones((3, 4)))
  assert once == 2 * 3 * 4 * 4

  def scanned(x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda c, _: (body(c), None), x, length=6)[0]

  assert count(scanned, jnp.ones((3, 4))) == 6 * once


def test_the_dearer_branch_counts() -> None:
  w = jnp.ones((4, 4))
  branches = (lambda x: x @ w @ w, lambda x: x @ w)
  assert (
    count(lambda x: jax.lax.cond(x[0, 0] > 0, *branches, x), jnp.ones((2, 4))) == 2 * 2 * 2 * 16
  )


def test_a_cpu_has_no_known_peak() -> None:
  assert flops.peak_flops(jax.devices("cpu")[0]) is None


@pytest.mark.parametrize(
  ("kind", "peak"),
  [
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA B200", 2250e12),
    ("NVIDIA GB200", 2500e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5p", 459e12),
    ("TPU v6 lite", 918e12),
    ("TPU7x", 1153.5e12),
  ],
)
def test_peaks_of_accelerators(kind: str, peak: float) -> None:
  assert flops.peak_flops(types.SimpleNamespace(device_kind=kind)) == peak
