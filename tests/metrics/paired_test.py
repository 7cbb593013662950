import numpy as np
import pytest

from videodiff_jax.metrics.paired import paired_difference, paired_interval


def test_mean_and_error_of_crossed_factors() -> None:
  """The error has the size of the mean's own scatter, seeds and videos both drawn anew."""
  rng = np.random.default_rng(0)
  means, errors = [], []
  for _ in range(2000):
    seeds, videos = rng.normal(0, 0.5, (6, 1)), rng.normal(0, 2.0, (1, 30))
    both = rng.normal(0, 10.0, (1, 30))  # a video's difficulty, the same for both runs
    b = both + rng.normal(size=(6, 1))
    mean, error = paired_difference(b + 3 + seeds + videos + rng.normal(size=(6, 30)), b)
    means.append(mean)
    errors.append(error)
  assert np.mean(means) == pytest.approx(3, abs=0.03)
  assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.05)


def test_one_seed_or_one_figure_a_seed() -> None:
  a = np.array([[1.0, 2.0, 6.0]])
  for x in (a, a.T):
    mean, error = paired_difference(x, np.zeros_like(x))
    assert (mean, error) == (3.0, pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3)))
  assert paired_difference(a[:, :1], a[:, 1:2]) == (-1.0, None)


def test_intervals_are_as_wide_as_so_few_seeds_ask() -> None:
  """Student's t at 97.5 % with two degrees of freedom is 4.303."""
  assert paired_interval(1.0, 0.5, 3) == pytest.approx((1 - 2.1513, 1 + 2.1513), abs=1e-4)
  assert paired_interval(1.0, None, 1) is None and paired_interval(1.0, 0.5, 1) is None


def test_no_pairs() -> None:
  with pytest.raises(ValueError, match=r"one shape \(seeds, videos\), not \(2, 3\) and \(2, 4\)"):
    paired_difference(np.zeros((2, 3)), np.zeros((2, 4)))
