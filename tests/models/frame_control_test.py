import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import assert_remat_changes_nothing, checkpoints, fill
from videodiff_jax.models import unet
from videodiff_jax.models.frame_control import FrameControl, select
from videodiff_jax.models.layers import ResBlock

OUTLINE = unet.blocks(8, (1, 2, 2), 1)
MODULE = FrameControl(OUTLINE, feature_rate=2, channels=6, norm_groups=4)
FEATURE = np.random.default_rng(0).standard_normal((3, 4, 4, 5)).astype(np.float32)
TIMES = np.array([0.0, 0.5, 0.9375], np.float32)
SHAPES = jax.eval_shape(MODULE.init, jax.random.key(0), FEATURE, TIMES)
PARAMS = fill(SHAPES, scale=0.2)
apply = jax.jit(MODULE.apply)


def parameters(which: str) -> int:
  f = jax.ShapeDtypeStruct
  blocks = select(unet.blocks(320, (1, 2, 4, 4), 2), which)
  arguments = f((1, 16, 16, 16), jnp.float32), f((1,), jnp.float32)
  shapes = jax.eval_shape(FrameControl(blocks, 2).init, jax.random.key(0), *arguments)
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameters_at_the_papers_size():
  assert round(parameters("down") / 1e6, 3) == 114.246


def test_all_is_down_middle_and_up():
  outline = unet.blocks(320, (1, 2, 4, 4), 2)
  assert len(select(outline, "all")) == 25
  assert select(outline, "down") == outline[:12]
  with pytest.raises(ValueError, match="control must be 'all' or 'down', not 'up'"):
    select(outline, "up")


def test_maps_fit_their_blocks():
  maps = apply(PARAMS, FEATURE, TIMES)
  assert {name: value.shape for name, value in maps.items()} == {
    b.name: (3, 8 // b.rate, 8 // b.rate, b.channels) for b in OUTLINE
  }


def test_the_unet_takes_them():
  model = unet.UNet(channels=8, multipliers=(1, 2, 2), blocks=1, num_heads=2, context_dim=4)
  maps = jax.eval_shape(MODULE.apply, PARAMS, FEATURE, TIMES)
  f = jax.ShapeDtypeStruct
  arguments = (f((3, 8, 8, 4), jnp.float32), TIMES, f((3, 1, 4), jnp.float32), maps)
  out = jax.eval_shape(model.init_with_output, jax.random.key(0), *arguments)[0]
  assert out.shape == (3, 8, 8, 4)


@pytest.mark.parametrize("zero_init_res", [True, False])
def test_maps_start_at_zero(zero_init_res):
  module = FrameControl(OUTLINE[:1], 2, 6, zero_init_res=zero_init_res)
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  maps, start = jax.jit(module.init_with_output)(key, FEATURE, TIMES)
  np.testing.assert_array_equal(maps["down_0"], 0)
  starts_at_zero = not start["params"]["down_0_res"]["conv_out"]["kernel"].any()
  assert starts_at_zero == zero_init_res


def test_a_frames_map_does_not_depend_on_other_frames():
  together = apply(PARAMS, FEATURE, TIMES)
  order = [2, 0]
  some = apply(PARAMS, FEATURE[order], TIMES[order])
  alone = apply(PARAMS, FEATURE[1:2], TIMES[1:2])
  for name, value in together.items():
    np.testing.assert_allclose(some[name], value[np.array(order)], atol=1e-5)
    np.testing.assert_allclose(alone[name], value[1:2], atol=1e-5)


def test_every_map_depends_on_feature_and_time():
  maps = apply(PARAMS, FEATURE, TIMES)
  later, other = apply(PARAMS, FEATURE, TIMES + 0.3), apply(PARAMS, FEATURE[::-1], TIMES)
  for name, value in maps.items():
    assert np.abs(later[name] - value).max() > 1e-4, name
    assert np.abs(other[name] - value)[0].max() > 1e-4, name


def test_index_scale_multiplies_the_time():
  scaled = FrameControl(OUTLINE[:2], 2, 6, index_scale=30.0, norm_groups=4)
  maps, expected = scaled.apply(PARAMS, FEATURE, TIMES), apply(PARAMS, FEATURE, 30 * TIMES)
  for name, value in maps.items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_one_time_a_feature():
  with pytest.raises(ValueError, match="3 global features need as many frame times"):
    apply(PARAMS, FEATURE, TIMES[:2])


def test_rates_must_differ_by_a_power_of_two():
  with pytest.raises(ValueError, match="rate 3 and down_0's rate 1"):
    jax.eval_shape(FrameControl(OUTLINE, 3, 6).init, jax.random.key(0), FEATURE, TIMES)


def test_frame_time_can_scale_features() -> None:
  """A time whose scale is -1 silences the block, whatever the global feature."""
  block = ResBlock(8, scale_shift=True, groups=2)
  x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
  embedding = np.zeros((2, 6), np.float32)
  params = fill(jax.eval_shape(block.init, jax.random.key(0), x, embedding))
  params["params"]["embed"]["kernel"][:] = 0
  params["params"]["embed"]["bias"][:8] = -1  # a scale of zero
  params["params"]["embed"]["bias"][8:] = 0
  out = block.apply(params, x, embedding)
  np.testing.assert_allclose(
    out - x, np.broadcast_to(params["params"]["conv_out"]["bias"], x.shape), atol=1e-6
  )
  control = FrameControl((unet.Block("down_0", 1, 8),), 1, channels=8, scale_shift=True)
  shapes = jax.eval_shape(control.init, jax.random.key(0), x, np.zeros(2, np.float32))
  assert shapes["params"]["down_0_res"]["embed"]["kernel"].shape[-1] == 16


def test_remat_wraps_every_residual_block() -> None:
  for remat, count in (("none", 0), ("blocks", len(OUTLINE))):
    jaxpr = jax.make_jaxpr(MODULE.clone(remat=remat).apply)(PARAMS, FEATURE, TIMES)
    assert checkpoints(jaxpr) == count
  assert_remat_changes_nothing(MODULE.clone(unet_blocks=OUTLINE[:1]), PARAMS, FEATURE, TIMES)
