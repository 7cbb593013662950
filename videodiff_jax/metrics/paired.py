"""Compares two runs on the same seeds and the same videos."""

import numpy as np
from scipy import stats


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float | None]:
  """Computes the mean of a - b and its standard error over seeds and videos.

  Differences of one seed share its training, and differences of one video its difficulty, so they
  are not independent. The error is that of a mean over two crossed random factors. Their variances
  are estimated by the method of moments (negative estimates become 0):
  var_seed / s + var_video / v + var_rest / (s v).

  Args:
    a: (s, v), a figure for each of s seeds and v videos; (s, 1) where a seed has a single figure.
    b: like `a`, for the same seeds and videos.

  Returns:
    (mean, standard error); the error is None for a single pair.
  """
  if a.shape != b.shape or a.ndim != 2 or not a.size:
    raise ValueError(
      f"Paired figures must have one shape (seeds, videos), not {a.shape} and {b.shape}."
    )
  difference = np.asarray(a, np.float64) - b
  mean = float(difference.mean())
  s, v = difference.shape
  if s * v == 1:
    return mean, None
  if min(s, v) == 1:
    return mean, float(difference.std(ddof=1) / np.sqrt(s * v))
  of_seeds, of_videos = difference.mean(axis=1), difference.mean(axis=0)
  rest = difference - of_seeds[:, None] - of_videos + mean
  var_rest = (rest**2).sum() / ((s - 1) * (v - 1))
  var_seed = max(of_seeds.var(ddof=1) - var_rest / v, 0.0)
  var_video = max(of_videos.var(ddof=1) - var_rest / s, 0.0)
  return mean, float(np.sqrt(var_seed / s + var_video / v + var_rest / (s * v)))


def paired_interval(mean: float, error: float | None, seeds: int) -> tuple[float, float] | None:
  """Computes the 95 % interval of a `paired_difference` by Student's t.

  Args:
    mean: the mean difference.
    error: its standard error; None for a single pair.
    seeds: s. The factor with fewer levels limits how well the error is known, so t has s - 1
      degrees of freedom.

  Returns:
    (low, high), or None for a single seed, which says nothing about others.
  """
  if error is None or seeds < 2:
    return None
  half = float(stats.t.ppf(0.975, seeds - 1)) * error
  return mean - half, mean + half
