"""The Frechet distance between two sets of features, from statistics that can be streamed."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Mean and scatter of the features added so far, in float64; `Statistics()` has none."""

  count: int = 0
  mean: np.ndarray | float = 0.0  # (d,)
  scatter: np.ndarray | float = 0.0  # (d, d), summed outer products of deviations from the mean

  def add(self, features: np.ndarray) -> "Statistics":
    """Returns the statistics with `features` (n, d) added."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
      raise ValueError(f"Features must be finite and (n, d), not {features.shape}.")
    if not len(features):
      return self
    mean = features.mean(axis=0)
    centred = features - mean
    return self.merge(Statistics(len(features), mean, centred.T @ centred))

  def merge(self, other: "Statistics") -> "Statistics":
    """Merges two sets' statistics (Chan et al., 1979), stably even for distant means."""
    count = self.count + other.count
    if not count:
      return self
    delta = np.subtract(other.mean, self.mean)
    between = np.multiply.outer(delta, delta) * (self.count * other.count / count)
    mean = self.mean + delta * (other.count / count)
    return Statistics(count, mean, self.scatter + other.scatter + between)

  @property
  def covariance(self) -> np.ndarray:
    """(d, d) unbiased covariance: divided by count - 1 as in TF-GAN (StyleGAN-V: by count)."""
    if self.count < 2:
      raise ValueError(f"A covariance needs at least 2 samples, not {self.count}.")
    return np.asarray(self.scatter) / (self.count - 1)


def frechet_distance(a: Statistics, b: Statistics, covariance: str = "unbiased") -> float:
  """Computes |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2), roots by eigenvalues.

  It is biased upwards for few samples: compare figures of equal counts only.

  Args:
    a: statistics of one set.
    b: statistics of the other.
    covariance: 'unbiased' or 'population' (divided by count: StyleGAN-V).
  """
  cov_a, cov_b = a.covariance, b.covariance
  if covariance == "population":
    cov_a, cov_b = (cov * (s.count - 1) / s.count for cov, s in ((cov_a, a), (cov_b, b)))
  values, vectors = np.linalg.eigh(cov_a)
  root_a = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
  cross = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(min=0)).sum()
  return float(np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def fvd(
  real_features: np.ndarray, fake_features: np.ndarray, covariance: str = "unbiased"
) -> float:
  """Computes the Frechet video distance of two sets (n, 400) of `metrics.i3d.features`."""
  real, fake = (Statistics().add(features) for features in (real_features, fake_features))
  return frechet_distance(real, fake, covariance)
