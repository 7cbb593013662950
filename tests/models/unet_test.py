import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import checkpoints, fill
from videodiff_jax.models import unet

SMALL = {
  "channels": 8,
  "multipliers": (1, 2),
  "blocks": 1,
  "attention_rates": (2,),
  "num_heads": 2,
  "context_dim": 6,
  "norm_groups": 4,
}
OUTLINE = unet.blocks(8, (1, 2), 1)


@functools.cache
def inputs() -> tuple[np.ndarray, ...]:
  rng = np.random.default_rng(0)
  x, context = rng.standard_normal((2, 8, 8, 4)), rng.standard_normal((2, 3, 6))
  return x.astype(np.float32), np.array([3.0, 700.0], np.float32), context.astype(np.float32)


@functools.cache
def random_variables() -> dict:
  return fill(jax.eval_shape(unet.UNet(**SMALL).init, jax.random.key(0), *inputs()), scale=0.2)


@functools.cache
def applied(**options):
  return jax.jit(unet.UNet(**SMALL, **options).apply)


@functools.cache
def maps() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    b.name: rng.standard_normal((2, 8 // b.rate, 8 // b.rate, b.channels)).astype(np.float32)
    for b in OUTLINE
  }


def predict(control: dict | None = None, variables: dict | None = None) -> np.ndarray:
  """With zeros for the maps that `control` lacks: one compilation for all tests."""
  control = {name: (control or {}).get(name, 0 * value) for name, value in maps().items()}
  return np.asarray(applied()(variables or random_variables(), *inputs(), control))


def test_parameters_at_the_papers_size():
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  arguments = f((1, 32, 32, 4)), f((1,)), f((1, 1, 768))
  shapes = jax.eval_shape(unet.UNet().init, jax.random.key(0), *arguments)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 859_520_964


def test_outline_of_stable_diffusion():
  outline = unet.blocks(320, (1, 2, 4, 4), 2)
  assert [b.name for b in outline] == [
    *(f"down_{i}" for i in range(12)),
    "middle",
    *(f"up_{i}" for i in range(12)),
  ]
  assert [b.rate for b in outline[:12]] == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8]
  assert [b.channels for b in outline[:12]] == [320] * 4 + [640] * 3 + [1280] * 5
  assert outline[12] == ("middle", 8, 1280)
  # The last block of a level puts out the map after its upsampling.
  assert [b.rate for b in outline[13:]] == [8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1]
  assert [b.channels for b in outline[13:]] == [1280] * 6 + [640] * 3 + [320] * 3


def test_levels_may_differ_in_depth():
  outline = unet.blocks(8, (1, 2), (2, 1))
  assert [(b.rate, b.channels) for b in outline] == [
    *[(1, 8), (1, 8), (1, 8), (2, 8), (2, 16)],
    (2, 16),
    *[(2, 16), (1, 16), (1, 8), (1, 8), (1, 8)],
  ]
  with pytest.raises(ValueError, match="3 block counts for 2 levels"):
    unet.blocks(8, (1, 2), (1, 1, 1))


def test_the_outline_is_what_the_network_puts_out():
  """Every map of the outline's shape fits, in a network whose levels differ in depth."""
  outline = unet.blocks(8, (1, 2), (2, 1))
  model = unet.UNet(**{**SMALL, "blocks": (2, 1)})
  control = {b.name: jnp.zeros((2, 8 // b.rate, 8 // b.rate, b.channels)) for b in outline}
  out = jax.eval_shape(model.init_with_output, jax.random.key(0), *inputs(), control)[0]
  assert out.shape == (2, 8, 8, 4)


def test_control_of_zeros_changes_nothing():
  plain = applied()(random_variables(), *inputs())
  np.testing.assert_allclose(predict(), plain, atol=1e-6)


def test_control_reaches_the_prediction_from_every_block():
  plain = predict()
  for name, value in maps().items():
    assert np.abs(predict({name: value}) - plain).max() > 1e-3, name


def test_control_is_added_before_the_skip_is_stored():
  """up_3 takes down_0's skip: it must arrive there even where up_3 ignores its trunk."""
  deaf = jax.tree.map(np.copy, random_variables())
  block = deaf["params"]["up_3_res"]
  block["conv_in"]["kernel"][:, :, :8] = 0  # the trunk comes first in the concatenation
  block["skip"]["kernel"][:8] = 0
  plain = predict(variables=deaf)
  for name, arrives in [("down_0", True), ("down_1", False), ("up_2", False)]:
    moved = predict({name: maps()[name]}, deaf)
    assert (np.abs(moved - plain).max() > 1e-4) == arrives, name


def test_unknown_control_is_refused_with_the_list_of_blocks():
  with pytest.raises(ValueError, match=r"No UNet block is called \['up_4'\].*'down_0'.*'up_3'"):
    applied()(random_variables(), *inputs(), {"up_4": np.zeros((2, 8, 8, 8))})


def test_control_of_the_wrong_shape_is_refused():
  with pytest.raises(ValueError, match=r"middle .*\(2, 4, 4, 16\), not \(2, 8, 8, 16\)"):
    applied()(random_variables(), *inputs(), {"middle": np.zeros((2, 8, 8, 16))})


@pytest.mark.parametrize(
  "index, value, message",
  [
    (0, np.zeros((2, 7, 8, 4)), "sides divisible by 2"),
    (0, np.zeros((2, 8, 8, 3)), r"\(n, h, w, 4\)"),
    (2, np.zeros((2, 3, 5)), r"tokens \(2, l, 6\)"),
  ],
)
def test_inputs_that_do_not_fit_are_refused(index, value, message):
  arguments = list(inputs())
  arguments[index] = value
  with pytest.raises(ValueError, match=message):
    applied()(random_variables(), *arguments)


def test_frames_do_not_see_each_other():
  x, t, context = inputs()
  both = predict(maps())
  for i in range(2):
    control = {name: value[i : i + 1] for name, value in maps().items()}
    alone = applied()(random_variables(), x[i : i + 1], t[i : i + 1], context[i : i + 1], control)
    np.testing.assert_allclose(alone[0], both[i], atol=1e-5)


def test_timestep_and_context_matter():
  x, t, context = inputs()
  plain = applied()(random_variables(), x, t, context)
  assert np.abs(applied()(random_variables(), x, t + 200, context) - plain).max() > 1e-3
  assert np.abs(applied()(random_variables(), x, t, context + 1) - plain).max() > 1e-3


@pytest.mark.parametrize("remat, count", [("none", 0), ("blocks", 12)])
def test_remat_wraps_every_residual_and_attention_block(remat, count):
  model = unet.UNet(**SMALL, remat=remat)
  jaxpr = jax.make_jaxpr(model.apply)(random_variables(), *inputs())
  assert checkpoints(jaxpr) == count


def test_bfloat16_computes_near_float32_and_returns_float32():
  out = applied(dtype=jnp.bfloat16)(random_variables(), *inputs())
  exact = applied()(random_variables(), *inputs())
  assert out.dtype == jnp.float32
  assert 0 < np.abs(out - exact).max() < 0.1 * np.abs(exact).max()
  kinds = {leaf.dtype for leaf in jax.tree.leaves(random_variables())}
  assert kinds == {np.dtype(np.float32)}
