"""Kernel distance of two sets of features, which few clips do not bias (Binkowski et al. 2018)."""

import numpy as np

_DEGREE = 3


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
  """The unbiased squared maximum mean discrepancy under (x . y / d + 1)^3, as KID has it.

  Of equal distributions its mean is 0 whatever the number of clips, and single values are below
  it half of the time; a Frechet distance of few clips is always too large.

  Args:
    a: (n, d), such as `i3d.features`; n >= 2.
    b: (m, d); m >= 2.

  Raises:
    ValueError: fewer than two clips in a set, or unlike features.
  """
  if min(len(a), len(b)) < 2 or a.ndim != 2 or a.shape[1:] != b.shape[1:]:
    raise ValueError(f"A kernel distance needs (n, d) and (m, d), got {a.shape} and {b.shape}.")
  return _within(a) + _within(b) - 2 * float(_kernel(a, b).mean())


def _within(x: np.ndarray) -> float:
  """The mean over pairs of different clips."""
  kernel = _kernel(x, x)
  return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x.astype(np.float64) @ y.T.astype(np.float64) / x.shape[1] + 1) ** _DEGREE
