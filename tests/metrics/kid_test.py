import numpy as np
import pytest

from videodiff_jax.metrics.kid import kernel_distance


def _loop(a: np.ndarray, b: np.ndarray) -> float:
  """Eq. 4 of Gretton et al. 2012, term by term."""

  def k(x: np.ndarray, y: np.ndarray) -> float:
    return (sum(p * q for p, q in zip(x, y)) / len(x) + 1) ** 3

  n, m = len(a), len(b)
  own = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
  other = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
  return own + other - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_equals_the_sum_over_pairs():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(0.5, 2, size=(5, 4))
  assert kernel_distance(a, b) == pytest.approx(_loop(a.astype(float), b), rel=1e-10)


def test_few_clips_do_not_bias_it():
  rng = np.random.default_rng(1)
  values = [kernel_distance(*rng.normal(size=(2, 8, 10))) for _ in range(400)]
  error = np.std(values) / np.sqrt(len(values))
  assert abs(np.mean(values)) < 3 * error
  assert min(values) < 0
  far = kernel_distance(rng.normal(size=(8, 10)), rng.normal(1, size=(8, 10)))
  assert far > 5 * np.std(values)


def test_pairs_that_depend_on_each_other_do_not_bias_it():
  """b[i] is nearer to a[i] than to other clips, yet both sets have one distribution."""
  rng = np.random.default_rng(2)
  values = []
  for _ in range(400):
    shared, *own = rng.normal(size=(3, 8, 10))
    a, b = (shared + x for x in own)
    values.append([kernel_distance(a, b, paired) for paired in (False, True)])
  (naive, fair), error = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(len(values))
  assert abs(fair) < 3 * error[1] and naive < -3 * error[0]
  assert kernel_distance(a, a, paired=True) == 0 > kernel_distance(a, a)
  assert kernel_distance(a, b + 2, paired=True) > 5 * np.std(values, axis=0)[1]


def test_sets_that_cannot_be_compared():
  with pytest.raises(ValueError, match="not 4 and 3"):
    kernel_distance(np.zeros((4, 3)), np.zeros((3, 3)), paired=True)
  with pytest.raises(ValueError, match=r"\(1, 3\)"):
    kernel_distance(np.zeros((1, 3)), np.zeros((4, 3)))
  with pytest.raises(ValueError, match=r"\(4, 2\)"):
    kernel_distance(np.zeros((4, 2)), np.zeros((4, 3)))
