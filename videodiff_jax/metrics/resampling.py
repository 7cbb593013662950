"""How far a score would be off on other videos of the same kind: an interval by resampling."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

RESAMPLINGS = 5
_STUDENT = 2.776  # t at 97.5 % with RESAMPLINGS - 1 degrees of freedom

Name = TypeVar("Name", bound=Hashable)
Resample = Callable[[np.random.Generator], Mapping[Name, float]]


def intervals(
  scores: Mapping[Name, float], resample: Resample[Name], seed: int
) -> dict[Name, list[float]]:
  """The 95 % interval of each score: score -+ t s, s the spread of five resampled ones.

  It is centred on the score and not on the resampled ones: a set in which videos repeat has a
  larger Frechet distance, whatever the videos. Training and sampling again are not in it.

  Args:
    scores: name -> figure.
    resample: computes the same scores on videos drawn with replacement from its generator.
    seed: of that generator.

  Returns:
    name -> [low, high].
  """
  rng = np.random.default_rng(seed)
  again = [resample(rng) for _ in range(RESAMPLINGS)]
  half = {name: _STUDENT * np.std([row[name] for row in again], ddof=1) for name in scores}
  return {name: [float(value - half[name]), float(value + half[name])]
          for name, value in scores.items()}  # fmt: skip


def of_means(
  values: Mapping[Name, np.ndarray], seed: int
) -> tuple[dict[Name, float], dict[Name, list[float]]]:
  """Means over the same n videos, and their intervals.

  Args:
    values: name -> (n,).
    seed: as of `intervals`.
  """
  count = len(next(iter(values.values())))

  def means(chosen: np.ndarray) -> dict[Name, float]:
    return {name: float(each[chosen].mean()) for name, each in values.items()}

  scores = means(np.arange(count))
  return scores, intervals(scores, lambda rng: means(with_replacement(rng, count)), seed)


def with_replacement(rng: np.random.Generator, count: int) -> np.ndarray:
  """(count,) indices of videos."""
  return rng.integers(0, count, count)
