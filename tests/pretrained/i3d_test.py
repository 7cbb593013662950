import numpy as np

from tests.weights import require
from videodiff_jax.pretrained import i3d


def test_folded_batch_norm_equals_convolution_then_norm():
  rng = np.random.default_rng(0)
  kernel, x = rng.normal(size=(1, 1, 1, 5, 4)), rng.normal(size=(7, 5))
  bias, mean, var = rng.normal(size=4), rng.normal(size=4), rng.uniform(0.1, 2, size=4)
  params = {"a/b": {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": bias}}}
  statistics = {"a/b": {"BatchNorm_0": {"mean": mean[None], "var": var[None]}}}
  unit = i3d._fold({"block": params}, {"block": statistics})["block"]["a_b"]
  expected = (x @ kernel[0, 0, 0] - mean) / np.sqrt(var + 1e-3) + bias
  np.testing.assert_allclose(x @ unit["kernel"][0, 0, 0] + unit["bias"], expected, rtol=1e-12)


def test_grey_network_sums_the_first_kernel_over_colours():
  require(i3d.WEIGHTS)
  rgb, grey = i3d.load(3), i3d.load(1)
  first = rgb.pop("Conv3d_1a_7x7")["kernel"]
  ours = grey.pop("Conv3d_1a_7x7")["kernel"]
  assert first.shape == (7, 7, 7, 3, 64)
  np.testing.assert_array_equal(ours[:, :, :, 0], first.sum(axis=3))
  np.testing.assert_array_equal(
    rgb["Mixed_5c"]["Branch_1_Conv3d_0b_3x3"]["kernel"],
    grey["Mixed_5c"]["Branch_1_Conv3d_0b_3x3"]["kernel"],
  )
