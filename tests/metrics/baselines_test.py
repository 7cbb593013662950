import numpy as np
import pytest

from videodiff_jax.metrics import baselines

VIDEO = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 8, 1), dtype=np.uint8)
# Frames whose every pixel is ten times their index.
RAMP = np.broadcast_to(10 * np.arange(16, dtype=np.uint8)[:, None, None, None], (16, 4, 4, 1))


def values(video: np.ndarray) -> list[int]:
  return video[:, 0, 0, 0].tolist()


def test_shuffled_frames_permute_each_clip_apart():
  shuffled = baselines.shuffled_frames(VIDEO, seed=0)
  orders = []
  for clip, original in zip(shuffled, VIDEO):
    order = [next(i for i, frame in enumerate(original) if (frame == x).all()) for x in clip]
    assert sorted(order) == list(range(6))
    orders.append(tuple(order))
  assert len(set(orders)) > 1
  np.testing.assert_array_equal(shuffled, baselines.shuffled_frames(VIDEO, seed=0))
  assert (shuffled != baselines.shuffled_frames(VIDEO, seed=1)).any()
  # A clip's order does not depend on how many follow it.
  np.testing.assert_array_equal(shuffled[:2], baselines.shuffled_frames(VIDEO[:2], seed=0))


def test_constant_baselines():
  frozen = baselines.frozen_first_frame(VIDEO)
  np.testing.assert_array_equal(frozen, np.repeat(VIDEO[:, :1], 6, axis=1))
  assert not baselines.black(VIDEO).any()
  mean = baselines.mean_frame(VIDEO)
  assert mean.shape == VIDEO.shape and mean.dtype == np.uint8
  np.testing.assert_array_equal(mean[:, 0], np.rint(VIDEO.mean(axis=1)))
  np.testing.assert_array_equal(mean[:, 0], mean[:, 5])


def test_blur_spreads_a_spot_in_space_alone():
  video = np.zeros((2, 3, 17, 17, 3), np.uint8)
  video[0, 1, 8, 8, 2] = 255
  blurred = baselines.blurred(video, sigma=1.0)
  assert blurred[0, 1, 8, 8, 2] == 41  # 255 / (2 pi), and the window's sum
  assert blurred[0, 1, 8, 9, 2] == blurred[0, 1, 7, 8, 2] == 25
  blurred[0, 1, :, :, 2] = 0
  assert not blurred.any()


def test_nearest_keyframe():
  assert values(baselines.nearest_keyframe(RAMP, [0, 5, 10, 15])) == (
    [0] * 3 + [50] * 5 + [100] * 5 + [150] * 3
  )
  assert values(baselines.nearest_keyframe(RAMP, [12, 4]))[8] == 40  # the earlier of two


def test_crossfade_is_linear_between_keyframes_and_flat_outside():
  assert values(baselines.crossfaded_keyframes(RAMP, [0, 5, 10, 15])) == values(RAMP)
  faded = values(baselines.crossfaded_keyframes(RAMP, [4, 12]))
  assert faded == [40] * 4 + values(RAMP)[4:13] + [120] * 3
  steps = np.where(np.arange(16) < 8, 0, 200).astype(np.uint8)[:, None, None, None]
  faded = baselines.crossfaded_keyframes(np.broadcast_to(steps, RAMP.shape), [0, 5, 10, 15])
  assert values(faded)[5:11] == [0, 40, 80, 120, 160, 200]


@pytest.mark.parametrize("keys", [[], [0, 16], [-1, 3]])
def test_keyframes_beyond_the_clip_are_errors(keys: list[int]):
  with pytest.raises(ValueError, match=r"0\.\.15"):
    baselines.nearest_keyframe(RAMP, keys)


def test_nearest_neighbours_equal_brute_force():
  rng = np.random.default_rng(1)
  bank = rng.integers(0, 256, (7, 4, 5, 5, 3), dtype=np.uint8)
  queries = rng.integers(0, 256, (3, 4, 5, 5, 3), dtype=np.uint8)
  queries[1] = bank[5]
  difference = queries[:, None].astype(float) - bank
  expected = np.sqrt((difference**2).reshape(3, 7, -1).mean(axis=-1))
  found, distances = baselines.nearest_neighbours(queries, iter(bank))
  np.testing.assert_array_equal(found, expected.argmin(axis=1))
  np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-12)
  assert found[1] == 5 and distances[1] == 0


def test_nearest_neighbours_need_equal_clips():
  with pytest.raises(ValueError, match="one shape"):
    baselines.nearest_neighbours(VIDEO, VIDEO[:, :5])
  with pytest.raises(ValueError, match="no training clip"):
    baselines.nearest_neighbours(VIDEO, [])
