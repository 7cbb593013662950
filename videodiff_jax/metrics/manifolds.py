"""Precision and recall of a drawn set (Kynkaanniemi et al. 2019): is it real-like, is all there?

A set's manifold is the union of balls around its features, each as large as the distance to the
k-th nearest other one.
"""

import numpy as np

NEIGHBOURS = 3  # k of the paper


def precision(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  """Which drawn clips lie in the real set's manifold; their share is the precision.

  Args:
    real: (n, d) features, n > 3.
    drawn: (m, d).

  Returns:
    (m,) bool.

  Raises:
    ValueError: three real clips or fewer.
  """
  return (_distances(drawn, real) <= _radii(real)).any(axis=1)


def recall(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  """(n,) bool: which real clips lie in the drawn set's manifold; arguments as of `precision`."""
  return precision(drawn, real)


def _radii(x: np.ndarray) -> np.ndarray:
  """(n,): the distance of each to its k-th nearest other one."""
  if len(x) <= NEIGHBOURS:
    raise ValueError(f"A manifold needs more than {NEIGHBOURS} clips, got {len(x)}.")
  distances = _distances(x, x)
  np.fill_diagonal(distances, np.inf)
  return np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """(n, m) Euclidean distances; squares are summed a row at a time, which cancels nothing."""
  y = y.astype(np.float64)
  return np.stack([np.sqrt(np.square(row - y).sum(axis=1)) for row in x.astype(np.float64)])
