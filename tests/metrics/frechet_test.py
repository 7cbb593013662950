import functools

import numpy as np
import pytest
import scipy.linalg

from videodiff_jax.metrics import frechet


def exact_sample(mean: np.ndarray, cov: np.ndarray, count: int, seed: int) -> np.ndarray:
  """(count, d) draws whose sample mean and unbiased covariance are exactly the given ones."""
  x = np.random.default_rng(seed).normal(size=(count, len(mean)))
  x -= x.mean(axis=0)
  whiten = np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
  return mean + x @ whiten @ np.linalg.cholesky(cov).T


def random_covariance(d: int, seed: int) -> np.ndarray:
  x = np.random.default_rng(seed).normal(size=(d, 2 * d))
  return x @ x.T / d


def test_distance_of_axis_aligned_gaussians():
  std_a, std_b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1])
  mean = np.array([1.0, -2.0, 0.0])
  a = exact_sample(mean, np.diag(std_a**2), 40, seed=0)
  b = exact_sample(0 * mean, np.diag(std_b**2), 60, seed=1)
  expected = 5.0 + np.sum((std_a - std_b) ** 2)
  np.testing.assert_allclose(frechet.fvd(a, b), expected, rtol=1e-9)


def test_distance_of_gaussians_whose_covariances_do_not_commute():
  cov_a, cov_b = random_covariance(6, 0), random_covariance(6, 1)
  a, b = exact_sample(np.zeros(6), cov_a, 50, 2), exact_sample(np.ones(6), cov_b, 50, 3)
  root = scipy.linalg.sqrtm(cov_a @ cov_b)
  expected = 6.0 + np.trace(cov_a + cov_b - 2 * root).real
  np.testing.assert_allclose(frechet.fvd(a, b), expected, rtol=1e-8)


def test_population_covariance_divides_by_the_count():
  a, b = (np.random.default_rng(seed).normal(size=(9, 3)) for seed in (0, 1))
  covs = [np.cov(x.T, ddof=0) for x in (a, b)]
  root = scipy.linalg.sqrtm(covs[0] @ covs[1])
  apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
  expected = apart + np.trace(covs[0] + covs[1] - 2 * root).real
  np.testing.assert_allclose(frechet.fvd(a, b, "population"), expected, rtol=1e-8)
  assert frechet.fvd(a, b) > expected


def test_a_set_is_at_no_distance_from_itself_also_when_covariance_is_singular():
  x = np.random.default_rng(0).normal(size=(10, 40))
  assert abs(frechet.fvd(x, x)) < 1e-5


def test_shards_in_any_split_equal_one_pass():
  # A mean far above the spread is where sums of squares lose their digits.
  x = 1e4 + np.random.default_rng(0).normal(size=(101, 7))
  whole = frechet.Statistics().add(x)
  streamed = frechet.Statistics()
  for part in np.split(x, [1, 1, 40, 77]):
    streamed = streamed.add(part)
  merged = frechet.Statistics().add(x[50:]).merge(frechet.Statistics().add(x[:50]))
  for other in (streamed, merged):
    assert other.count == 101
    np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(other.covariance, whole.covariance, atol=1e-9)
  np.testing.assert_allclose(whole.covariance, np.cov(x.T), atol=1e-9)


def test_eight_shards_equal_one_pass():
  """As eight devices or hosts would have them, of FVD's 400 features, also in the distance."""
  sets = [5 + np.random.default_rng(seed).normal(1, 2, (500 + seed, 400)) for seed in (0, 1)]
  whole = [frechet.Statistics().add(x) for x in sets]
  merged = []
  for x in sets:
    shards = [frechet.Statistics().add(part) for part in np.array_split(x, 8)]
    merged.append(functools.reduce(frechet.Statistics.merge, shards))
  for ours, theirs in zip(merged, whole, strict=True):
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-9)
    np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-9)
  distance = frechet.frechet_distance(*whole)
  assert frechet.frechet_distance(*merged) == pytest.approx(distance, abs=1e-9 * distance)


def test_too_few_or_broken_features_are_errors():
  with pytest.raises(ValueError, match="at least 2 samples, not 1"):
    frechet.fvd(np.ones((1, 4)), np.ones((5, 4)))
  with pytest.raises(ValueError, match="finite"):
    frechet.Statistics().add(np.array([[1.0, np.nan]]))
  with pytest.raises(ValueError, match=r"\(4,\)"):
    frechet.Statistics().add(np.ones(4))
