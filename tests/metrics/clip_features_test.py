"""Batches, devices, preprocessing and errors of features of clips, by cheap networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import needs
from videodiff_jax.metrics import clip_features, i3d
from videodiff_jax.metrics.clip_features import Detector, extract

MEAN = Detector("Mean", 9, lambda channels: {}, lambda params, x: x.mean(axis=(2, 3, 4)))
DARKEST = Detector("Darkest", 3, lambda channels: {}, lambda params, x: x.min(axis=(1, 2, 3, 4)))


def videos(n: int, f: int = 9, size: int = 8, channels: int = 1) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (n, f, size, size, channels), dtype=np.uint8)


def means(clips: np.ndarray, **options: object) -> np.ndarray:
  (found,) = extract(clips, [MEAN], progress=False, **options)
  return found


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
  """The networks without the resize to 224; lists the (batch, devices) of every call."""
  calls = []

  def apply(params: list, batch: jax.Array, detectors: tuple, resize: str) -> list[jax.Array]:
    calls.append((len(batch), len(batch.sharding.device_set)))
    return [detector.apply(None, batch.astype(jnp.float32)) for detector in detectors]

  monkeypatch.setattr(clip_features, "_compiled", lambda backend: apply)
  return calls


@pytest.mark.parametrize("source", [32, 64, 256])
def test_resize_equals_torch(source: int):
  torch = needs("torch")
  x = np.random.default_rng(0).uniform(size=(1, 1, source, source)).astype(np.float32)
  expected = torch.nn.functional.interpolate(
    torch.tensor(x), size=(224, 224), mode="bilinear", align_corners=False
  )
  matrix = clip_features.resize_matrix(source, 224, "torch")
  np.testing.assert_allclose(matrix @ x[0, 0] @ matrix.T, expected[0, 0], atol=3e-6)


def test_resize_of_tensorflow_1_samples_at_left_edges():
  expected = [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
  np.testing.assert_array_equal(clip_features.resize_matrix(2, 4, "tf1"), expected)
  np.testing.assert_array_equal(
    clip_features.resize_matrix(4, 2, "tf1"), [[1, 0, 0, 0], [0, 0, 1, 0]]
  )
  expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
  np.testing.assert_array_equal(clip_features.resize_matrix(2, 4, "torch"), expected)


def test_preprocessing_crops_the_centre_square_after_the_resize():
  wide = np.tile(np.linspace(0, 1, 5, dtype=np.float32), (1, 1, 3, 1))[..., None]
  expected = np.tile([-0.5, 0.0, 0.5], (3, 1))
  for clip, truth in ((wide, expected), (wide.swapaxes(2, 3), expected.T)):
    np.testing.assert_allclose(
      clip_features.preprocess(clip, size=3)[0, 0, ..., 0], truth, atol=1e-6
    )
  assert clip_features.preprocess(wide, size=7).shape == (1, 1, 7, 7, 1)


def test_networks_see_the_resized_range():
  def corners(params: dict, x: jax.Array) -> jax.Array:
    assert x.shape == (1, 9, 224, 224, 1)
    return jnp.stack([x.min(axis=(1, 2, 3, 4)), x.max(axis=(1, 2, 3, 4)), x[:, 0, 0, 0, 0]], 1)

  clip = np.zeros((1, 9, 2, 2, 1), np.uint8)
  clip[:, 0, 1, 1], clip[:, 0, 0, 0] = 255, 51
  detector = Detector("Corners", 1, lambda channels: {}, corners)
  ((found,),) = extract(clip, [detector], progress=False)
  np.testing.assert_allclose(found, [-1.0, 1.0, -0.6], atol=1e-6)


def test_batches_are_padded_and_spread_over_devices(stub: list[tuple[int, int]]):
  devices, clips = jax.local_device_count(), videos(35)
  assert devices == 8
  np.testing.assert_allclose(means(clips, batch_size=2), clips.mean(axis=(2, 3, 4)), rtol=1e-5)
  assert stub == [(16, 8)] * 3


@pytest.mark.parametrize(("n", "call"), [(3, (3, 1)), (4, (4, 1)), (10, (12, 3))])
def test_few_clips_take_few_devices(stub: list[tuple[int, int]], n: int, call: tuple[int, int]):
  clips = videos(n)
  np.testing.assert_allclose(means(clips, batch_size=4), clips.mean(axis=(2, 3, 4)), rtol=1e-5)
  assert stub == [call]


def test_chunks_equal_one_array(stub: list[tuple[int, int]]):
  clips = videos(35)
  chunked = means((clips[i : i + 7] for i in range(0, 35, 7)), batch_size=1)
  np.testing.assert_allclose(chunked, means(clips), rtol=1e-6)


def test_two_networks_see_one_pass(stub: list[tuple[int, int]]):
  clips = videos(11)
  chunks = (clips[i : i + 4] for i in range(0, 11, 4))  # an iterator: there is no second pass
  darkest, mean = extract(chunks, [DARKEST, MEAN], batch_size=2, progress=False)
  np.testing.assert_array_equal(darkest, clips.min(axis=(1, 2, 3, 4)))
  np.testing.assert_allclose(mean, clips.mean(axis=(2, 3, 4)), rtol=1e-5)
  assert stub == [(12, 6)]


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    (videos(1, f=8), "Mean needs clips of 9 frames or more, not 8"),
    (videos(1, f=2), "Darkest needs clips of 3 frames or more, not 2"),
    (videos(1).astype(np.float32), "uint8 videos in 0..255, not float32"),
    (videos(1, channels=2), r"1 or 3\), not"),
    (videos(1)[0], r"1 or 3\), not"),
    (videos(0), "no clips for features by Darkest and Mean"),
    ([videos(1), videos(1, f=10)], "one shape"),
  ],
)
def test_wrong_videos_are_errors(stub: list[tuple[int, int]], wrong: np.ndarray, message: str):
  with pytest.raises(ValueError, match=message):
    extract(wrong, [DARKEST, MEAN], progress=False)
  assert not stub


def test_i3d_and_unknown_resize_are_told_before_anything_is_computed(stub: list[tuple[int, int]]):
  with pytest.raises(ValueError, match="I3D needs clips of 9 frames or more, not 8"):
    i3d.features(videos(1, f=8))
  with pytest.raises(ValueError, match=r"'pil'.*torch, tf1"):
    i3d.features(videos(1), resize="pil")
  assert not stub
