"""Intervals: as wide as the score varies over sets of videos, and about the score."""

import numpy as np
import pytest

from videodiff_jax.metrics import resampling


def interval_of_mean(values: np.ndarray, seed: int) -> list[float]:
  def again(rng: np.random.Generator) -> dict[str, float]:
    return {"mean": values[resampling.with_replacement(rng, len(values))].mean()}

  return resampling.intervals({"mean": values.mean()}, again, seed)["mean"]


def test_covers_the_mean_of_all_videos_about_as_often_as_it_says() -> None:
  rng = np.random.default_rng(0)
  covered, widths = 0, []
  for trial in range(300):
    low, high = interval_of_mean(rng.normal(3.0, 2.0, size=50), trial)
    covered += low < 3.0 < high
    widths.append(high - low)
  assert 0.9 < covered / 300 < 0.99
  # 2 t sigma / sqrt(n), and c4(5) = 0.94: a spread of five is a little too small.
  assert np.mean(widths) == pytest.approx(2 * 2.776 * 2.0 / np.sqrt(50) * 0.94, rel=0.1)


def test_is_centred_on_the_score_and_fixed_by_its_seed() -> None:
  values = np.arange(20.0)
  low, high = interval_of_mean(values, 0)
  assert (low + high) / 2 == pytest.approx(values.mean()) and low < high
  assert interval_of_mean(values, 0) == [low, high] != interval_of_mean(values, 1)
  assert interval_of_mean(np.ones(5), 0) == [1.0, 1.0]
