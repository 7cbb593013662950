import numpy as np
import pytest

from tests.helpers import needs
from videodiff_jax.metrics import images


def frames(channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """(2, 3, 20, 17, c) smooth pictures and noisy copies of them."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:20, :17]
  waves = 127 + 100 * np.sin(y / 4 + rng.uniform(0, 6, (2, 3, 1, 1)) + x / 7)
  a = np.repeat(waves[..., None], channels, axis=-1) + rng.normal(0, 5, (2, 3, 20, 17, channels))
  noise = rng.normal(0, 15, a.shape)
  return tuple(z.clip(0, 255).astype(np.uint8) for z in (a, a + noise))


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_to_scikit_image(channels: int):
  skimage = needs("skimage.metrics")
  a, b = frames(channels)
  psnr, ssim = images.psnr(a, b), images.ssim(a, b)
  assert psnr.shape == ssim.shape == (2, 3)
  for i in np.ndindex(2, 3):
    expected = skimage.peak_signal_noise_ratio(a[i], b[i], data_range=255)
    np.testing.assert_allclose(psnr[i], expected, rtol=1e-12)
    expected = skimage.structural_similarity(
      a[i],
      b[i],
      data_range=255,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    )
    np.testing.assert_allclose(ssim[i], expected, atol=1e-9)


def test_floats_have_a_peak_of_one():
  a, b = frames(3)
  floats = (a / 255, (b / 255).astype(np.float32))
  np.testing.assert_allclose(images.psnr(*floats), images.psnr(a, b), rtol=1e-6)
  np.testing.assert_allclose(images.ssim(*floats), images.ssim(a, b), atol=1e-6)


def test_video_psnr_is_of_the_mean_squared_error():
  a = np.zeros((2, 2, 4, 4, 1), np.uint8)
  b = a.copy()
  b[:, 0], b[:, 1] = 6, 2  # squared errors of 36 and 4, and 20 in the mean
  assert images.video_psnr(a, b).shape == (2,)
  np.testing.assert_allclose(images.video_psnr(a, b), 10 * np.log10(255**2 / 20))
  np.testing.assert_allclose(images.psnr(a, b).mean(), 10 * np.log10(255**2 / 12))
  with pytest.raises(ValueError, match=r"\(\.\.\., f, h, w, c\)"):
    images.video_psnr(a[0, 0], b[0, 0])


def test_uniform_window_equals_scikit_images_default():
  skimage = needs("skimage.metrics")
  a, b = (x / 255 for x in frames(3))
  ssim = images.ssim(a, b, window="uniform")
  for i in np.ndindex(2, 3):
    expected = skimage.structural_similarity(a[i], b[i], data_range=1, channel_axis=-1)
    np.testing.assert_allclose(ssim[i], expected, atol=1e-9)


def test_known_values():
  a = np.full((2, 12, 12, 1), 100, np.uint8)
  np.testing.assert_allclose(images.psnr(a, a + 5), 20 * np.log10(255 / 5))
  assert np.isinf(images.psnr(a, a)).all()
  np.testing.assert_allclose(images.ssim(a, a), 1.0)
  # Flat pictures differ in luminance alone.
  c1 = (0.01 * 255) ** 2
  expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
  np.testing.assert_allclose(images.ssim(a, a + 50), expected)


def test_differences_of_bytes_do_not_wrap():
  dark, bright = np.zeros((12, 12, 1), np.uint8), np.full((12, 12, 1), 255, np.uint8)
  np.testing.assert_allclose(images.psnr(dark, bright), 0.0)


@pytest.mark.parametrize("metric", [images.psnr, images.ssim])
def test_wrong_input_is_an_error(metric):
  a = np.zeros((12, 12, 1), np.uint8)
  with pytest.raises(ValueError, match="float32"):
    metric(a.astype(np.float32), a)
  with pytest.raises(ValueError, match="int64"):
    metric(a.astype(np.int64), a.astype(np.int64))
  with pytest.raises(ValueError, match="one shape"):
    metric(a, a[:11])
  for wrong in (a - 0.5, a + 255.0):
    with pytest.raises(ValueError, match=r"need frames in \[0, 1\], not in \["):
      metric(a.astype(float), wrong)


def test_ssim_needs_a_whole_window():
  a = np.zeros((10, 12, 1), np.uint8)
  with pytest.raises(ValueError, match="11 pixels"):
    images.ssim(a, a)
  with pytest.raises(ValueError, match="7 pixels"):
    images.ssim(a[:6], a[:6], window="uniform")
  with pytest.raises(ValueError, match="Choose one of: gaussian, uniform"):
    images.ssim(a, a, window="square")
