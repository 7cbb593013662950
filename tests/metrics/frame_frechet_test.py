"""The distance of frames: its network against torch, what moves it, its streaming and errors."""

import numpy as np
import pytest

from tests.helpers import needs
from tests.metrics import torch_trunk
from tests.weights import require
from videodiff_jax.metrics import frame_frechet, frechet
from videodiff_jax.pretrained import lpips as pretrained


def clips(n: int, f: int, channels: int = 3, seed: int = 0) -> np.ndarray:
  """(n, f, 32, 32, c) uint8: a grating of random colours and direction that shifts."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:32, :32] / 4
  turn, phase = rng.uniform(0, np.pi, (n, 1, 1, 1, 1)), rng.uniform(0, 6, (n, 1, 1, 1, channels))
  waves = np.cos(turn) * x[..., None] + np.sin(turn) * y[..., None] + phase
  waves = waves + np.arange(f).reshape(1, f, 1, 1, 1) / 2
  return (127 + 100 * np.sin(waves)).astype(np.uint8)


def features(videos: np.ndarray) -> np.ndarray:
  require(frame_frechet.WEIGHTS)
  return frame_frechet.features(videos, progress=False)


def random_features(n: int = 40, f: int = 3, d: int = 6, seed: int = 0) -> np.ndarray:
  # A mean far above the spread is where sums of squares lose their digits.
  return 1e4 + np.random.default_rng(seed).normal(size=(n, f, d))


def test_features_equal_torch():
  """Resize, trunk and mean over space in torch with the same weights."""
  torch = needs("torch")
  videos = clips(1, 2)
  ours = features(videos)
  assert ours.shape == (1, 2, 256) and ours.dtype == np.float32
  pictures = torch.tensor(videos[0].transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
  options = {"size": (224, 224), "mode": "bilinear", "align_corners": False}
  pictures = torch.nn.functional.interpolate(pictures, **options)
  with torch.no_grad():
    last = torch_trunk.build("alex", pretrained.load("alex"))(pictures)[-1]
  expected = last.mean(dim=(2, 3)).numpy()
  assert expected.max() > 1
  np.testing.assert_allclose(ours[0], expected, atol=2e-5)


def test_grey_is_as_if_repeated():
  grey = clips(1, 1, channels=1)
  np.testing.assert_allclose(features(grey), features(grey.repeat(3, axis=-1)), atol=1e-5)


def test_worse_frames_are_farther_and_their_order_does_not_matter():
  real = clips(8, 2)
  noise = np.random.default_rng(1).normal(size=real.shape)
  noisy = [(real + level * noise).clip(0, 255).astype(np.uint8) for level in (8, 25, 60)]
  sets = [features(videos) for videos in (real, clips(8, 2, seed=1), *noisy)]
  others, *by_level = [frame_frechet.alexnet_frame_frechet(sets[0], x) for x in sets[1:]]
  assert 0 < others < by_level[0] < by_level[1] < by_level[2]
  backwards = sets[0][::-1, ::-1]
  assert abs(frame_frechet.alexnet_frame_frechet(sets[0], backwards)) < 1e-4


def test_frames_are_the_samples():
  a, b = random_features(), random_features(30, seed=1) + 0.5
  for covariance in ("unbiased", "population"):
    distance = frame_frechet.alexnet_frame_frechet(a, b, covariance)
    expected = frechet.fvd(a.reshape(-1, 6), b.reshape(-1, 6), covariance)
    assert distance == pytest.approx(expected, rel=1e-9)


def test_chunks_and_shards_equal_one_pass(monkeypatch):
  every = random_features(n=64)
  whole = frechet.Statistics().add(every.reshape(-1, 6))
  monkeypatch.setattr(frame_frechet, "_CHUNK", 7)
  merged = frechet.Statistics()
  for shard in np.split(every, 8):
    merged = merged.merge(frame_frechet.statistics(shard))
  for found in (merged, frame_frechet.statistics(every)):
    assert found.count == 192
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, whole.covariance, atol=1e-9)


def test_wrong_features_are_errors():
  good = random_features()
  with pytest.raises(ValueError, match="needs 2 clips each, not 1"):
    frame_frechet.alexnet_frame_frechet(good, good[:1])
  with pytest.raises(ValueError, match=r"must be \(n, f, d\), not \(40, 6\)"):
    frame_frechet.alexnet_frame_frechet(good[:, 0], good)
  with pytest.raises(ValueError, match="finite"):
    frame_frechet.alexnet_frame_frechet(good, good * np.nan)
  with pytest.raises(ValueError, match=r"by AlexNet need uint8 videos in 0\.\.255, not float64"):
    frame_frechet.features(clips(2, 1) / 255)
