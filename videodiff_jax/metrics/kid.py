"""The kernel distance of two sets of features, unbiased for few clips (Binkowski et al. 2018)."""

import numpy as np

_DEGREE = 3


def kernel_distance(a: np.ndarray, b: np.ndarray, paired: bool = False) -> float:
  """Computes the unbiased squared maximum mean discrepancy under (x . y / d + 1)^3, as KID does.

  For equal distributions its mean is 0 with any number of clips, and half of its values are
  negative. A Frechet distance of few clips, in contrast, is always too large.

  Args:
    a: (n, d) features, such as `i3d.features`; n >= 2.
    b: (m, d) features; m >= 2.
    paired: whether b[i] depends on a[i], as a prediction does on the video that it continues.
      Pairs are then left out (Gretton et al. 2012, Lemma 6), which needs n = m: they are nearer
      than clips of two independent sets, so that with them the distance would be too small.

  Raises:
    ValueError: a set has fewer than two clips, or the features' sizes differ.
  """
  if min(len(a), len(b)) < 2 or a.ndim != 2 or a.shape[1:] != b.shape[1:]:
    raise ValueError(f"A kernel distance needs (n, d) and (m, d), not {a.shape} and {b.shape}.")
  if paired and len(a) != len(b):
    raise ValueError(f"Paired sets have equally many clips, not {len(a)} and {len(b)}.")
  between = _of_different(a, b) if paired else float(_kernel(a, b).mean())
  return _of_different(a, a) + _of_different(b, b) - 2 * between


def _of_different(x: np.ndarray, y: np.ndarray) -> float:
  """Averages the kernel over x[i] and y[j] with i != j; both are (n, d)."""
  kernel = _kernel(x, y)
  return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x.astype(np.float64) @ y.T.astype(np.float64) / x.shape[1] + 1) ** _DEGREE
