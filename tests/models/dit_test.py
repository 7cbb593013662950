import functools
from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import fill
from videodiff_jax.models import dit
from videodiff_jax.models.dit import DiT, position_table

SMALL = {"input_size": 4, "in_channels": 3, "width": 16, "depth": 3, "num_heads": 2}
rng = np.random.default_rng(0)
X, T = rng.standard_normal((2, 4, 4, 3)).astype(np.float32), np.array([2.0, 900.0], np.float32)
TOKENS = rng.standard_normal((2, 5, 6)).astype(np.float32)


def variables(model: DiT, *conditions) -> dict:
  return fill(jax.eval_shape(model.init, jax.random.key(0), X, T, *conditions), scale=0.2)


def parameters(**options) -> int:
  model = DiT(input_size=16, in_channels=16, num_heads=16, context_dim=768, **options)
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  arguments = f((1, 16, 16, 16)), f((1,)), None, f((1, 77, 768))
  shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def stack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of an unrolled DiT in the form that `scan_blocks=True` takes."""
  depth = sum(name.startswith("block_") for name in params)
  rest = {name: value for name, value in params.items() if not name.startswith("block_")}
  stacked = jax.tree.map(lambda *a: jnp.stack(a), *(params[f"block_{i}"] for i in range(depth)))
  return {**rest, "blocks": stacked}


def unstack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of a scanned DiT in the form that `scan_blocks=False` takes."""
  rest = {name: value for name, value in params.items() if name != "blocks"}
  depth = jax.tree.leaves(params["blocks"])[0].shape[0]
  blocks = {f"block_{i}": jax.tree.map(lambda a, i=i: a[i], params["blocks"]) for i in range(depth)}
  return {**rest, **blocks}


@pytest.mark.parametrize("scan_blocks", [False, True])
@pytest.mark.parametrize("width, depth, millions", [(1152, 28, 674.549), (1024, 20, 382.028)])
def test_parameters_at_the_papers_sizes(width, depth, millions, scan_blocks):
  count = parameters(width=width, depth=depth, scan_blocks=scan_blocks)
  assert round(count / 1e6, 3) == millions


def test_position_table_codes_columns_first():
  table = position_table(3, 8)
  assert table.shape == (9, 8) and table.dtype == np.float32
  row, column = 1, 2
  code = lambda i: [np.sin(i), np.sin(i / 100), np.cos(i), np.cos(i / 100)]  # noqa: E731
  np.testing.assert_allclose(table[row * 3 + column], code(column) + code(row), rtol=1e-6)
  with pytest.raises(ValueError, match="divisible by 4, not 6"):
    position_table(3, 6)


@pytest.mark.parametrize("remat", ["none", "blocks"])
def test_scanned_and_unrolled_agree_after_stacking(remat):
  unrolled, scanned = DiT(**SMALL), DiT(**SMALL, scan_blocks=True, remat=remat)
  params = variables(unrolled)["params"]
  stacked = stack_blocks(params)

  def loss(model: DiT, params: dict) -> jax.Array:
    return jnp.square(model.apply({"params": params}, X, T)).mean()

  expected, gradient = jax.jit(jax.value_and_grad(functools.partial(loss, unrolled)))(params)
  actual, other = jax.jit(jax.value_and_grad(functools.partial(loss, scanned)))(stacked)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  back = unstack_blocks(other)
  chex.assert_trees_all_close(back, gradient, rtol=1e-4, atol=1e-5)


def test_stacking_and_back_is_the_identity():
  params = variables(DiT(**SMALL))["params"]
  expected = jax.eval_shape(DiT(**SMALL, scan_blocks=True).init, jax.random.key(0), X, T)
  stacked = stack_blocks(params)
  chex.assert_trees_all_equal_shapes(stacked, expected["params"])
  chex.assert_trees_all_equal(unstack_blocks(stacked), dict(params))


def test_it_starts_at_zero():
  model = DiT(**{**SMALL, "depth": 1})
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  np.testing.assert_array_equal(jax.jit(model.init_with_output)(key, X, T)[0], 0)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_patches_and_learned_variance(patch_size):
  model = DiT(**SMALL, patch_size=patch_size, learn_sigma=True)
  params = variables(model)
  out = jax.jit(model.apply)(params, X, T)
  assert out.shape == (2, 4, 4, 6) and out.dtype == jnp.float32
  # One token's bias must land in one place of every patch: row 1, column 0, channel 4.
  index = np.ravel_multi_index((patch_size - 1, 0, 4), (patch_size, patch_size, 6))
  biased = jax.tree.map(np.copy, params)
  biased["params"]["final_out"]["bias"][index] += 7
  moved = jax.jit(model.apply)(biased, X, T) - out
  assert np.allclose(moved[:, patch_size - 1 :: patch_size, ::patch_size, 4], 7, atol=1e-4)
  assert (np.abs(moved) > 1).sum() == 2 * (4 // patch_size) ** 2


def test_labels_choose_a_row_and_the_last_is_the_null_class():
  model = DiT(**SMALL, num_classes=3)
  params = variables(model, np.zeros(2, int))
  assert params["params"]["label_embed"]["embedding"].shape == (4, 16)
  apply = jax.jit(model.apply)
  outs = [apply(params, X, T, np.full(2, label)) for label in range(4)]
  for i in range(4):
    assert all(np.abs(outs[i] - outs[j]).max() > 1e-3 for j in range(i))


def test_tokens_are_read_without_order():
  model = DiT(**SMALL, context_dim=6)
  params = variables(model, None, TOKENS)
  apply = jax.jit(model.apply)
  out = apply(params, X, T, None, TOKENS)
  assert out.shape == X.shape
  assert np.abs(apply(params, X, T, None, 2 * TOKENS) - out).max() > 1e-3
  np.testing.assert_allclose(apply(params, X, T, None, TOKENS[:, ::-1]), out, atol=1e-5)


def test_projections_of_a_tpu_are_those_of_one_dense_layer(monkeypatch):
  x = jax.random.normal(jax.random.key(0), (2, 5, 8))
  one = nn.Dense(24)
  params = one.init(jax.random.key(1), x)
  expected = jnp.moveaxis(one.apply(params, x).reshape(2, 5, 3, 2, 4), 2, 0)
  qkv = dit.QKV(num_heads=2)
  np.testing.assert_array_equal(qkv.apply(params, x), expected)
  monkeypatch.setattr(dit.target, "platform", lambda: "tpu")
  np.testing.assert_allclose(qkv.apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_computes_near_float32():
  params = variables(DiT(**SMALL))
  exact = jax.jit(DiT(**SMALL).apply)(params, X, T)
  out = jax.jit(DiT(**SMALL, dtype=jnp.bfloat16).apply)(params, X, T)
  assert out.dtype == jnp.float32
  assert 0 < np.abs(out - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
  "options, conditions, message",
  [
    ({}, (np.zeros(2, int),), "num_classes=0, but labels are given"),
    ({"num_classes": 3}, (), "num_classes=3, but labels are missing"),
    ({}, (None, TOKENS), "context_dim=0, but tokens are given"),
    ({"context_dim": 6}, (), "context_dim=6, but tokens are missing"),
    ({"patch_size": 3}, (), "patch_size=3 must divide input_size=4"),
    ({"num_heads": 3}, (), "num_heads=3 must divide width=16"),
    ({"input_size": 8}, (), r"maps \(b, 8, 8, 3\)"),
  ],
)
def test_what_does_not_fit_is_refused(options, conditions, message):
  model = DiT(**{**SMALL, **options})
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), X, T, *conditions)
