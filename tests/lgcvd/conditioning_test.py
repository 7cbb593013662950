import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.lgcvd import conditioning
from videodiff_jax.lgcvd.conditioning import TaskMix, given_positions, task_positions

RELEASE = {"prediction": 0.45, "generation": 0.4, "interpolation": 0.05, "random": 0.1}


def frames(*lead: int) -> np.ndarray:
  return np.random.default_rng(0).uniform(-1, 1, (*lead, 4, 5, 3)).astype(np.float32)


def test_stacking_is_frame_by_frame_and_reversible():
  video = frames(2, 8)
  stacked = conditioning.stack_frames(video)
  assert stacked.shape == (2, 4, 5, 24)
  np.testing.assert_array_equal(stacked[..., 6:9], video[:, 2])
  np.testing.assert_array_equal(conditioning.split_frames(stacked, 8), video)


def test_masks_and_both_values_of_u():
  given = frames(2, 2)
  positions = jnp.array([[0, 7], [3, -1]])
  y = conditioning.local_condition(given, positions, 8)
  assert y.shape == (2, 4, 5, 8)
  np.testing.assert_array_equal(y[0, ..., :3], given[0, 0])
  np.testing.assert_array_equal(y[0, ..., 4:7], given[0, 1])
  np.testing.assert_allclose(y[..., 3], np.broadcast_to([[[-7 / 9]], [[-1 / 9]]], (2, 4, 5)))
  np.testing.assert_allclose(y[0, ..., 7], 7 / 9, rtol=1e-6)
  # No frame: black, and so is its mask. No fragment: grey.
  np.testing.assert_array_equal(y[1, ..., 4:], -1)
  np.testing.assert_array_equal(conditioning.empty_fragment((1, 2)), 0)


def test_frames_are_taken_and_put_at_their_positions():
  window, positions = frames(2, 5), jnp.array([[4, 1], [-1, 2]])
  taken = conditioning.frames_at(window, positions)
  np.testing.assert_array_equal(taken[0], window[0, [4, 1]])
  np.testing.assert_array_equal(taken[1, 1], window[1, 2])
  put = conditioning.put_frames(jnp.zeros_like(window), taken, positions)
  expected = np.zeros_like(window)
  expected[0, [4, 1]], expected[1, 2] = window[0, [4, 1]], window[1, 2]
  np.testing.assert_array_equal(put, expected)


@pytest.mark.parametrize(
  "task, positions",
  [
    ("prediction", (0, 1)),
    ("live_photo", (0, -1)),
    ("generation", (-1, -1)),
    ("interpolation", (0, 7)),
  ],
)
def test_positions_of_the_release_s_tasks(task, positions):
  assert task_positions(task, 8, 2) == positions


def test_positions_of_other_shapes():
  assert task_positions("interpolation", 10, 3) == (0, 1, 9)
  assert given_positions(1, 1, 8, 2, gap=3) == (0, 4)
  assert given_positions(2, 1, 8, 4) == (0, 1, 7, -1)
  with pytest.raises(ValueError, match="the longest gap is 6"):
    given_positions(1, 1, 8, 2, gap=7)
  with pytest.raises(ValueError, match="do not fit the 2 slots"):
    given_positions(2, 1, 8, 2)
  with pytest.raises(ValueError, match=r"'random'.*prediction, live_photo"):
    task_positions("random", 8, 2)


def named(positions: np.ndarray) -> str:
  return {(0, 1): "prediction", (-1, -1): "generation", (0, 7): "interpolation"}.get(
    tuple(positions), "random"
  )


def test_the_mix_has_its_shares_and_both_windows_agree():
  drawn = TaskMix(RELEASE).draw(jax.random.key(0), 4000)
  first, second, continues = (np.asarray(x) for x in drawn)
  names = np.array([named(row) for row in first])
  for name, share in RELEASE.items():
    # Some of the random pairs look like another task's.
    assert (names == name).mean() == pytest.approx(share, abs=0.03), name
  sure = names == "random"
  np.testing.assert_array_equal(first[~sure & continues], second[~sure & continues])
  assert not continues[names == "generation"].any() and not continues[sure].any()
  assert continues[names == "prediction"].mean() > 0.95
  assert (first[sure] != second[sure]).any()


@pytest.mark.parametrize("task, last", [("random", 6), ("infilling", 7)])
def test_drawn_positions_are_distinct_and_cover_the_fragment(task, last):
  drawn = TaskMix({task: 1.0}).draw(jax.random.key(1), 2000)
  for positions in (drawn.first, drawn.second):
    assert (positions[:, 0] != positions[:, 1]).all()
    for slot in range(2):
      values, counts = np.unique(positions[:, slot], return_counts=True)
      assert values.tolist() == list(range(-1, last + 1))
      assert counts.min() > 0.7 * counts.mean()
  assert not drawn.continues.any()


def test_one_frame_goes_on_as_prediction():
  drawn = TaskMix({"live_photo": 1.0}).draw(jax.random.key(0), 2)
  np.testing.assert_array_equal(drawn.first, [[0, -1]] * 2)
  np.testing.assert_array_equal(drawn.second, [[0, 1]] * 2)
  assert drawn.continues.all()


def test_a_batch_s_task_is_common_to_its_samples():
  mix = TaskMix(RELEASE, per="batch")
  draws = [mix.draw(jax.random.key(i), 4) for i in range(40)]
  for drawn in draws:
    assert drawn.first.shape == (4, 2) and drawn.continues.shape == (4,)
    for value in drawn:
      assert (value == value[:1]).all()
  assert len({tuple(np.asarray(drawn.first[0])) for drawn in draws}) > 2


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"shares": {"pacing": 1.0}}, "Unknown task 'pacing'.*prediction, live_photo"),
    ({"shares": {"prediction": 0.5}}, "sum to 1"),
    ({"shares": RELEASE, "per": "epoch"}, r"'epoch'.*sample, batch"),
    ({"shares": RELEASE, "slots": 8}, "8 slots do not leave frames of 8"),
  ],
)
def test_a_mix_that_cannot_be_drawn_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    TaskMix(**settings)
