"""Precision and recall of a drawn set (Kynkaanniemi et al. 2019): its quality and its coverage.

A set's manifold is the union of balls around its features. Each ball's radius is the distance to
the k-th nearest other feature.
"""

import chex
import numpy as np

NEIGHBOURS = 3  # k, as in the paper


def precision(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  """Tells which drawn clips lie in the real set's manifold; the precision is their fraction.

  Args:
    real: (n, d) features, n > 3.
    drawn: (m, d) features.

  Returns:
    (m,) bool.

  Raises:
    ValueError: there are three real clips or fewer.
  """
  chex.assert_rank([real, drawn], 2)
  chex.assert_equal_shape_suffix([real, drawn], 1)
  return (_distances(drawn, real) <= _radii(real)).any(axis=1)


def recall(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  """Tells (n,) which real clips lie in the drawn set's manifold; arguments as in `precision`."""
  return precision(drawn, real)


def _radii(x: np.ndarray) -> np.ndarray:
  """Returns (n,) the distance of each feature to its k-th nearest other feature."""
  if len(x) <= NEIGHBOURS:
    raise ValueError(f"A manifold needs more than {NEIGHBOURS} clips, not {len(x)}.")
  distances = _distances(x, x)
  np.fill_diagonal(distances, np.inf)
  return np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns (n, m) Euclidean distances; summing squared differences avoids cancellation."""
  y = y.astype(np.float64)
  return np.stack([np.sqrt(np.square(row - y).sum(axis=1)) for row in x.astype(np.float64)])
