"""Intervals by resampling: how much a score would change on other videos of the same kind."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import chex
import numpy as np

RESAMPLINGS = 5
_STUDENT = 2.776  # t at 97.5 % with RESAMPLINGS - 1 degrees of freedom

Name = TypeVar("Name", bound=Hashable)
Resample = Callable[[np.random.Generator], Mapping[Name, float]]


def intervals(
  scores: Mapping[Name, float], resample: Resample[Name], seed: int
) -> dict[Name, list[float]]:
  """Computes the 95 % interval of each score: score -+ t s, s the spread of five resampled scores.

  It is centred on the score itself, not on the resampled scores, since a set with repeated videos
  always has a larger Frechet distance. The interval does not cover training or sampling again.

  Args:
    scores: name -> figure.
    resample: computes the same scores on videos drawn with replacement by its generator.
    seed: seed of that generator.

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
  """Computes means over the same n videos, and their intervals.

  Args:
    values: name -> (n,) figures.
    seed: seed of the resampling.
  """
  chex.assert_rank([*values.values()], 1)
  chex.assert_equal_shape([*values.values()])
  count = len(next(iter(values.values())))

  def means(chosen: np.ndarray) -> dict[Name, float]:
    return {name: float(each[chosen].mean()) for name, each in values.items()}

  scores = means(np.arange(count))
  return scores, intervals(scores, lambda rng: means(with_replacement(rng, count)), seed)


def with_replacement(rng: np.random.Generator, count: int) -> np.ndarray:
  """Draws indices (count,) of videos with replacement."""
  return rng.integers(0, count, count)
