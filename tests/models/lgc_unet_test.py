import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import checkpoints, fill
from videodiff_jax.models import lgc_unet
from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder
from videodiff_jax.training import flops

SMALL = {"channels": 8, "multipliers": (1, 2), "attention_rates": (2,), "head_channels": 8}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.cache
def inputs(side: int = 8) -> tuple[np.ndarray, ...]:
  """Three frames of two channels, one conditioning frame, and a global context."""
  context = normal(2, side // 2, side // 2, 16, seed=2)
  t = np.array([3.0, 700.0], np.float32)
  return normal(2, side, side, 6), t, normal(2, side, side, 3, seed=1), context


@functools.cache
def variables() -> dict:
  return fill(jax.eval_shape(LGCUNet(**SMALL).init, jax.random.key(0), *inputs()), scale=0.2)


@functools.cache
def applied(**options):
  return jax.jit(LGCUNet(**SMALL, **options).apply)


def attending(model: lgc_unet._Network, *values) -> set[str]:
  params = jax.eval_shape(model.init, jax.random.key(0), *values)["params"]
  return {name.rsplit("_", 1)[0] for name in params if "attention_" in name}


def test_parameters_and_operations_of_the_release():
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  unet, encoder = LGCUNet(decoder_attention="mirrored"), SequenceEncoder()
  fragment, context = f((1, 64, 64, 24)), f((1, 8, 8, 512))
  values = fragment, f((1,)), f((1, 64, 64, 8)), context
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
  of_unet = jax.eval_shape(unet.init, jax.random.key(0), *values)
  of_encoder = jax.eval_shape(encoder.init, jax.random.key(0), fragment)
  assert (count(of_unet), count(of_encoder)) == (63_403_032, 33_104_640)
  forward = jax.make_jaxpr(unet.apply)(of_unet, *values)
  assert flops.count(forward) == pytest.approx(39.57e9, rel=1e-3)
  forward = jax.make_jaxpr(encoder.apply)(of_encoder, fragment)
  assert flops.count(forward) == pytest.approx(17.12e9, rel=1e-3)
  feature, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), fragment)
  assert feature.shape == context.shape


def test_which_levels_attend():
  four = {**SMALL, "multipliers": (1, 1, 1, 1), "attention_rates": (4,), "channels": 16}
  values = (*inputs()[:3], normal(2, 1, 1, 16))
  matched = attending(LGCUNet(**four), *values)
  mirrored = attending(LGCUNet(**four, decoder_attention="mirrored"), *values)
  # On the way up the maps have sides 1, 2, 4, 8; step 1 has the rate 4.
  assert matched == {"down_2_attention", "up_1_attention"}
  assert mirrored == {"down_2_attention", "up_2_attention"}
  everywhere = attending(LGCUNet(**four | {"attention_rates": (1, 2, 4, 8)}), *values)
  assert everywhere == {f"{way}_{i}_attention" for way in ("down", "up") for i in range(4)}


def test_unknown_decoder_attention_lists_the_choices():
  model = LGCUNet(**SMALL, decoder_attention="both")
  with pytest.raises(ValueError, match=r"'both'.*matched, mirrored"):
    jax.eval_shape(model.init, jax.random.key(0), *inputs())


@pytest.mark.parametrize("sides", [(8, 8), (7, 10), (5, 5)])
@pytest.mark.parametrize("frames, given", [(3, 1), (2, 4)])
def test_any_resolution_and_any_number_of_frames(sides, frames, given):
  model, encoder = LGCUNet(**SMALL), SequenceEncoder(**SMALL)
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  fragment = f((2, *sides, frames))
  feature, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), fragment)
  assert feature.shape == (2, -(-sides[0] // 2), -(-sides[1] // 2), 16)
  values = fragment, f((2,)), f((2, *sides, 2 * given)), feature
  out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), *values)
  assert out.shape == (2, *sides, frames) and out.dtype == jnp.float32


def test_every_input_matters_and_samples_do_not_mix():
  y = applied()(variables(), *inputs())
  for i in range(4):
    nudged = [np.copy(value) for value in inputs()]
    nudged[i][0] += 1 + np.arange(nudged[i].shape[-1]) if i != 1 else 100
    moved = np.abs(applied()(variables(), *nudged) - y).max((1, 2, 3))
    assert moved[0] > 1e-3 and moved[1] < 1e-5, i


def test_without_a_context_there_is_no_cross_attention():
  names = jax.eval_shape(LGCUNet(**SMALL).init, jax.random.key(0), *inputs()[:3])["params"]
  assert "middle_cross" not in names and "middle_cross" in variables()["params"]


def test_a_condition_of_another_size_is_refused():
  x, t, condition, context = inputs()
  with pytest.raises(ValueError, match="must have the batch and sides"):
    jax.eval_shape(LGCUNet(**SMALL).init, jax.random.key(0), x, t, condition[:, :4], context)


def test_heads_must_divide():
  with pytest.raises(ValueError, match=r"16 channels do not split into heads of 12"):
    jax.eval_shape(LGCUNet(**SMALL | {"head_channels": 12}).init, jax.random.key(0), *inputs())


def test_timestep_code_is_sines_then_cosines():
  code = lgc_unet.timestep_code(np.array([0.0, 1.0, 999.0]), 6)
  angles = np.array([[0.0], [1.0], [999.0]]) * [1.0, 1e-2, 1e-4]
  np.testing.assert_allclose(
    code, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-4
  )


@pytest.mark.parametrize(
  "channels, divides, groups", [(128, None, 32), (48, None, 12), (48, 32, 8), (2, None, 1)]
)
def test_norm_groups(channels, divides, groups):
  assert lgc_unet.norm_groups(channels, divides) == groups


def test_a_fresh_block_only_scales_its_input():
  x = normal(1, 4, 4, 8)
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  for block in (lgc_unet.StackedResBlock(8), lgc_unet.StackedAttention(None)):
    y, _ = jax.jit(block.init_with_output)(key, x)
    np.testing.assert_allclose(y, x / np.sqrt(2), atol=1e-6)


@pytest.mark.parametrize("remat, count", [("none", 0), ("blocks", 18)])
def test_remat_wraps_every_block(remat, count):
  jaxpr = jax.make_jaxpr(LGCUNet(**SMALL, remat=remat).apply)(variables(), *inputs())
  assert checkpoints(jaxpr) == count


def test_bfloat16_computes_near_float32_and_returns_float32():
  out = applied(dtype=jnp.bfloat16)(variables(), *inputs())
  exact = applied()(variables(), *inputs())
  assert out.dtype == jnp.float32
  assert 0 < np.abs(out - exact).max() < 0.1 * np.abs(exact).max()
