import importlib.util

import numpy as np
import pytest

from videodiff_jax.metrics import digit_reader

missing = [name for name in ("mlxtend", "sklearn") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
  bool(missing), reason=f'{missing} missing: pip install -e ".[demo]"'
)


def _clips(
  split: str, count: int, num_frames: int, size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
  from data.sets import moving_digits

  images, labels = moving_digits.digits(split)
  rng = np.random.default_rng(1)
  clips = [
    moving_digits.render(image, moving_digits.bounce(rng, size, num_frames), size)[..., None]
    for image in images[:count]
  ]
  return np.stack(clips), labels[:count].astype(int)


@pytest.fixture(scope="module")
def reader() -> digit_reader.DigitReader:
  clips, labels = _clips("train", 4500, 1)
  return digit_reader.fit(clips[:, 0], labels)


def test_real_digits_it_has_not_seen_are_read(reader):
  clips, labels = _clips("test", 500, 4)
  figures = reader.read(clips).figures(labels)
  assert figures["frames_right"].mean() >= 0.97
  assert figures["clip_right"].mean() >= 0.97
  assert figures["agreement"].mean() >= 0.97


def test_blots_and_other_labels_are_not(reader):
  clips, labels = _clips("test", 100, 4)
  figures = reader.read(clips).figures((labels + 1) % 10)
  assert figures["frames_right"].mean() < 0.05
  assert figures["agreement"].mean() >= 0.97
  mean = np.broadcast_to(clips.mean(axis=0, keepdims=True).astype(np.uint8), clips.shape)
  assert reader.read(mean).figures(labels)["clip_right"].mean() <= 0.15


def test_frames_without_a_digit_do_not_count_and_clips_without_one_are_wrong(reader):
  clips, labels = _clips("test", 10, 4)
  clips[:, 1:3] = 0
  clips[0] = 0
  readings = reader.read(clips)
  assert (readings.digits[:, 1:3] == -1).all()
  assert readings.clips[0] == -1
  figures = readings.figures(labels)
  assert all(values[0] == 0 for values in figures.values())
  np.testing.assert_array_equal(figures["visible"][1:], 0.5)
  assert figures["frames_right"][1:].mean() > 0.8


def test_the_shares_of_known_readings():
  digits = np.array([[3, 3, 5, -1], [1, 2, 2, 2]])
  figures = digit_reader.Readings(digits, np.array([3, 2])).figures(np.array([3, 1]))
  np.testing.assert_allclose(figures["visible"], [3 / 4, 1])
  np.testing.assert_allclose(figures["agreement"], [2 / 3, 3 / 4])
  np.testing.assert_allclose(figures["frames_right"], [2 / 3, 1 / 4])
  np.testing.assert_allclose(figures["clip_right"], [1, 0])


def test_larger_frames_are_read_alike():
  clips, labels = _clips("train", 600, 1, size=64)
  larger = digit_reader.fit(clips[:, 0], labels)
  clips, labels = _clips("test", 100, 2, size=64)
  assert larger.read(clips).figures(labels)["frames_right"].mean() > 0.9


def test_what_cannot_be_fitted_says_so():
  frames = np.full((4, 32, 32, 1), 200, np.uint8)
  with pytest.raises(ValueError, match="two classes"):
    digit_reader.fit(frames, np.zeros(4, int))
  with pytest.raises(ValueError, match="32 pixels or a multiple"):
    digit_reader.fit(frames[:, :20, :20], np.arange(4))


def test_a_digit_is_back_since_the_first_whole_frame_after_a_black_one():
  clips = np.zeros((2, 7, 32, 32, 1), np.uint8)
  for frame, light in enumerate([200, 60, 0, 0, 100, 195, 200]):
    clips[0, frame, 4:8, 4:8] = light
  clips[1, :, 4:8, 4:8] = 200  # always seen
  found = digit_reader.since_it_came_back(clips)
  np.testing.assert_array_equal(found, [[0, 0, 0, 0, 0, 1, 1], [0] * 7])
