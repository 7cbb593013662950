import numpy as np
import pytest

from videodiff_jax.metrics import manifolds


def test_points_on_a_line():
  """Radii to the third neighbour: 3, 2, 2, 3 of 0..3 and 99 of 100."""
  real = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
  drawn = np.array([[-2.9], [5.9], [6.1], [4.0], [198.9], [199.1]])
  np.testing.assert_array_equal(
    manifolds.precision(real, drawn), [True, True, True, True, True, False]
  )
  real = real[:4]
  np.testing.assert_array_equal(
    manifolds.precision(real, drawn), [True, True, False, True, False, False]
  )


def test_a_copied_clip_is_precise_and_recalls_little():
  rng = np.random.default_rng(0)
  real = rng.normal(size=(50, 6))
  drawn = real[:1] + rng.normal(scale=1e-3, size=(50, 6))
  assert manifolds.precision(real, drawn).all()
  assert manifolds.recall(real, drawn).mean() <= 0.02
  same = rng.normal(size=(50, 6))
  assert manifolds.recall(real, same).mean() > 0.5
  np.testing.assert_array_equal(manifolds.recall(real, same), manifolds.precision(same, real))


def test_too_few_clips():
  with pytest.raises(ValueError, match="more than 3"):
    manifolds.precision(np.zeros((3, 2)), np.zeros((9, 2)))
