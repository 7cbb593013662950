import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers import fill
from videodiff_jax.models import layers, target


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def params_of(module: nn.Module, *inputs: jax.Array) -> dict:
  return fill(jax.eval_shape(module.init, jax.random.key(0), *inputs))


def test_sinusoid_is_cosines_then_sines():
  code = layers.sinusoid(np.array([0.0, 0.25, 999.0]), 6)
  frequencies = 1e4 ** (-np.arange(3) / 3)
  angles = np.array([[0.0], [0.25], [999.0]]) * frequencies
  expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
  np.testing.assert_allclose(code, expected, atol=1e-4)


def test_sinusoid_of_odd_width_ends_in_a_zero_column():
  code = layers.sinusoid(np.array([[1.0, 2.0]]), 7)
  assert code.shape == (1, 2, 7)
  np.testing.assert_array_equal(code[..., 6], 0)
  np.testing.assert_array_equal(code[..., :6], layers.sinusoid(np.array([[1.0, 2.0]]), 6))


@pytest.mark.parametrize("side", [2, 3, 4, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [layers.SYMMETRIC, ((0, 1), (0, 1))])
def test_conv3x3_by_shifted_copies_equals_convolution(side, stride, padding):
  x, kernel = normal(2, side, side, 5), normal(3, 3, 5, 7, seed=1)
  jaxpr = str(jax.make_jaxpr(lambda x: layers.conv3x3(x, kernel, stride, padding))(x))
  assert "conv_general_dilated" not in jaxpr
  expected = lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  actual = layers.conv3x3(jnp.asarray(x), kernel, stride, padding)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_conv3x3_leaves_large_batches_to_the_library():
  jaxpr = str(jax.make_jaxpr(layers.conv3x3)(normal(4, 8, 8, 3), normal(3, 3, 3, 3)))
  assert "conv_general_dilated" in jaxpr


@pytest.mark.parametrize("sides", [(1, 1), (3, 5)])
def test_conv_transpose_by_phases_equals_the_dilated_convolution(sides):
  x, kernel = normal(2, *sides, 4), normal(3, 3, 4, 6, seed=1)
  expected = lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    ((1, 2), (1, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  actual = layers.conv_transpose3x3(jnp.asarray(x), kernel)
  assert actual.shape == (2, 2 * sides[0], 2 * sides[1], 6)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
  jaxpr = str(jax.make_jaxpr(jax.grad(lambda x: layers.conv_transpose3x3(x, kernel).sum()))(x))
  assert "conv_general_dilated" not in jaxpr


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("temporal_kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_frames_equals_a_3d_convolution(frames, temporal_kernel, stride):
  x = normal(2, frames, 6, 6, 3)
  kernel = normal(temporal_kernel, 3, 3, 3, 4, seed=1)
  pad = temporal_kernel // 2
  expected = lax.conv_general_dilated(
    x,
    kernel,
    (1, stride, stride),
    [(pad, pad), (1, 1), (1, 1)],
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )
  actual = layers.conv_frames(jnp.asarray(x), kernel, stride)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_accelerators_take_one_convolution_and_get_the_same_map(stride, monkeypatch):
  x, kernel = jnp.asarray(normal(2, 3, 4, 4, 3)), normal(3, 3, 3, 3, 4, seed=1)
  frames = layers.conv_frames(x, kernel, stride)
  maps = layers.conv3x3(x[:, 0], kernel[0], stride)
  monkeypatch.setattr(target, "device_kind", lambda: "TPU v5e")
  text = str(jax.make_jaxpr(lambda x: layers.conv_frames(x, kernel, stride))(x))
  assert text.count("conv_general_dilated") == 1 and "concatenate" not in text
  np.testing.assert_allclose(layers.conv_frames(x, kernel, stride), frames, atol=1e-5)
  np.testing.assert_allclose(layers.conv3x3(x[:, 0], kernel[0], stride), maps, atol=1e-5)


def test_group_norm_is_the_same_on_accelerators(monkeypatch):
  x, params = jnp.asarray(normal(2, 3, 5, 12)), {"scale": normal(12), "bias": normal(12, seed=1)}
  here = layers.GroupNorm(4).apply({"params": params}, x)
  monkeypatch.setattr(target, "device_kind", lambda: "NVIDIA H100")
  there = layers.GroupNorm(4).apply({"params": params}, x)
  np.testing.assert_allclose(there, here, atol=1e-6)


def test_resample_repeats_up_and_averages_down():
  x = jnp.asarray(normal(2, 4, 4, 3))
  up = layers.resample(x, 2)
  assert up.shape == (2, 16, 16, 3)
  np.testing.assert_array_equal(up[:, 4:8, 8:12], np.broadcast_to(x[:, 1:2, 2:3], (2, 4, 4, 3)))
  np.testing.assert_allclose(layers.resample(up, -2), x, atol=1e-6)
  np.testing.assert_allclose(layers.resample(x, -1)[:, 0, 0], x[:, :2, :2].mean((1, 2)), atol=1e-6)


def test_resample_refuses_sides_that_do_not_divide():
  with pytest.raises(ValueError, match="6x6 map cannot be scaled down by 4"):
    layers.resample(jnp.zeros((1, 6, 6, 1)), -2)


def reference_norm(x: np.ndarray, groups: int, epsilon: float) -> np.ndarray:
  y = x.astype(np.float64).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
  y = (y - y.mean((1, 3), keepdims=True)) / np.sqrt(y.var((1, 3), keepdims=True) + epsilon)
  return y.reshape(x.shape)


@pytest.mark.parametrize(
  "channels, groups", [(16, 16), (64, 32), (48, 24), (320, 32), (7, 7), (50, 25)]
)
def test_group_norm_takes_the_largest_divisor_up_to_32(channels, groups):
  x = normal(2, 3, 5, channels)
  variables = {"params": {"scale": np.ones(channels), "bias": np.zeros(channels)}}
  actual = layers.GroupNorm().apply(variables, x)
  np.testing.assert_allclose(actual, reference_norm(x, groups, 1e-5), atol=1e-5)


def test_group_norm_keeps_its_digits_far_from_zero():
  """Naive sums of squares lose all of a spread of 0.01 around 100 in float32."""
  offset = np.repeat(np.array([100.0, -3.0], np.float32), 16)
  x = (normal(2, 4, 4, 32) * 0.01 + offset).astype(np.float32)
  variables = {"params": {"scale": np.ones(32), "bias": np.zeros(32)}}
  actual = layers.GroupNorm(2).apply(variables, x)
  np.testing.assert_allclose(actual, reference_norm(x, 2, 1e-5), atol=2e-3)


def test_group_norm_gradient_matches_the_reference_form():
  x, w = normal(2, 9, 8), normal(2, 9, 8, seed=1)

  def plain(x):
    y = x.reshape(2, 9, 4, 2)
    y = (y - y.mean((1, 3), keepdims=True)) / jnp.sqrt(y.var((1, 3), keepdims=True) + 1e-5)
    return (y.reshape(x.shape) * w).sum()

  def ours(x):
    variables = {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}
    return (layers.GroupNorm(4).apply(variables, x) * w).sum()

  np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(plain)(x), atol=2e-5)


def test_group_norm_computes_in_float32_and_keeps_the_dtype():
  x = normal(1, 64, 8) + 50  # bfloat16 sums of these would be off by whole units
  variables = {"params": {"scale": np.ones(8), "bias": np.zeros(8)}}
  y = layers.GroupNorm(1).apply(variables, jnp.asarray(x, jnp.bfloat16))
  assert y.dtype == jnp.bfloat16
  rounded = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32)
  np.testing.assert_allclose(y.astype(np.float32), reference_norm(rounded, 1, 1e-5), atol=0.02)


def test_groups_of_one_channel_erase_an_embedding():
  """Why narrow networks need fewer groups than the release's 32."""
  x, embedding = normal(1, 4, 4, 8), normal(1, 6)
  for groups, erased in [(8, True), (4, False)]:
    block = layers.ResBlock(8, groups=groups)
    variables = params_of(block, x, embedding)
    variables["params"]["embed"]["kernel"] *= 100
    moved = block.apply(variables, x, -embedding) - block.apply(variables, x, embedding)
    assert (np.abs(moved).max() < 1e-4) == erased


def test_zero_init_makes_a_residual_block_start_as_the_identity():
  x = normal(1, 4, 4, 8)
  for zero_init in (True, False):
    block = layers.ResBlock(8, zero_init=zero_init)
    y = block.apply(block.init(jax.random.key(0), x), x)
    assert np.allclose(y, x) == zero_init


@pytest.mark.parametrize("levels, side", [(2, 16), (0, 4), (-1, 2)])
def test_residual_block_resamples_and_takes_an_embedding(levels, side):
  x, embedding = normal(2, 4, 4, 8), normal(2, 6)
  block = layers.ResBlock(12, levels=levels, groups=4)
  variables = params_of(block, x, embedding)
  y = block.apply(variables, x, embedding)
  assert y.shape == (2, side, side, 12)
  moved = block.apply(variables, x, embedding * np.array([[2], [1]], np.float32))
  assert not np.allclose(moved[0], y[0]) and np.allclose(moved[1], y[1])
