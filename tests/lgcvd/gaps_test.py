import itertools

import pytest

from videodiff_jax.lgcvd import gaps


@pytest.mark.parametrize(
  ("num_frames", "strides", "longest"),
  [(8, (1,), 6), (8, (1, 3), 20), (8, (1, 7), 48), (8, (1, 3, 9), 62), (3, (1, 2, 4), 7)],
)
def test_every_gap_up_to_the_longest_is_filled(num_frames, strides, longest):
  assert gaps.longest_gap(num_frames, strides) == longest
  for gap in range(1, longest + 1):
    known = {0, gap + 1}
    for level in gaps.plan(gap, num_frames, strides):
      drawn = set()
      for places in level:
        assert {places[0], places[-1]} <= known
        assert 2 < len(places) <= num_frames
        assert not drawn & {*places[1:-1]} and not known & {*places[1:-1]}
        drawn |= {*places[1:-1]}
        # No step is wider than what was trained, nor unlike another of its fragment.
        steps = [b - a for a, b in itertools.pairwise(places)]
        assert max(steps) <= max(strides) and max(steps) - min(steps) <= 1
      known |= drawn
    assert known == set(range(gap + 2))


@pytest.mark.parametrize("stride", [1, 3, 9])
def test_a_distance_of_whole_steps_is_at_the_trained_stride(stride):
  ((places,), *finer) = gaps.plan(7 * stride - 1, 8, (1, 3, 9))
  assert places == tuple(range(0, 7 * stride + 1, stride))
  assert len(finer) == [1, 3, 9].index(stride)


def test_the_finest_stride_that_spans_the_gap():
  (places,), (one, two) = gaps.plan(7, 8, (1, 7))
  assert places == (0, 4, 8)
  assert one == (0, 1, 2, 3, 4) and two == (4, 5, 6, 7, 8)
  assert gaps.plan(8, 8, (1, 3))[0] == [(0, 3, 6, 9)]
  assert gaps.plan(7, 8, (1, 3))[0] == [(0, 3, 5, 8)]


@pytest.mark.parametrize(
  ("gap", "strides", "message"),
  [
    (7, (1,), "A gap of 7 frames .* longest gap is 6, .* trained at stride 1"),
    (21, (1, 3), r"longest gap is 20, .* strides 1, 3\. .*data\.stride_multiples"),
    (1, (2, 4), r"begin with 1, not be \(2, 4\)"),
    (1, (), "begin with 1"),
    (1, (1, 8), "must be from 2 to 7, which fragments of 8 frames fill, not 8"),
    (1, (1, 3, 3), "must be from 4 to 21, .* not 3"),
  ],
)
def test_what_nothing_fills_is_told(gap, strides, message):
  with pytest.raises(ValueError, match=message):
    gaps.plan(gap, 8, strides)
