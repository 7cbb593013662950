"""Measures how much a network uses a condition, by its prediction and loss when it is swapped.

Noise and timesteps stay the same, so that every change comes from the condition.
"""

from collections.abc import Mapping

import chex
import numpy as np

from videodiff_jax.metrics import resampling

Stats = dict[str, np.ndarray]
Answer = tuple[np.ndarray, np.ndarray]  # predictions (n, ...) and their losses (n,)


def compare(true: Answer, swapped: Answer) -> Stats:
  """Compares n examples under their own and under another condition.

  Args:
    true: predictions and losses under the examples' own conditions.
    swapped: predictions and losses of the same examples under another condition.

  Returns:
    name -> (n,) float64: 'power' and 'change', mean squares of the prediction and of its
    difference; 'loss' and 'swapped_loss'.
  """

  predictions, losses = zip(true, swapped)
  chex.assert_equal_shape(predictions)
  chex.assert_shape(losses, (len(true[0]),))

  def mean_square(x: np.ndarray) -> np.ndarray:
    return np.square(x.astype(np.float32)).reshape(len(x), -1).mean(axis=1, dtype=np.float64)

  return {
    "power": mean_square(true[0]),
    "change": mean_square(swapped[0].astype(np.float32) - true[0]),
    "loss": true[1].astype(np.float64),
    "swapped_loss": swapped[1].astype(np.float64),
  }


def figures(
  swaps: Mapping[str, Stats], seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
  """Computes the figures of each swap and their intervals over clips.

  Args:
    swaps: name -> the results of `compare`, averaged over the examples of each of n clips, (n,).
    seed: seed of the resampling.

  Returns:
    For each swap its figures: 'change', the rms of the prediction's difference divided by the
    prediction's rms, 0 if the network ignores the condition and sqrt(2) if the two predictions are
    unrelated; 'loss_change', the relative increase of the loss by the swap; and 'loss', the loss
    with the swap. And for each swap the figures' intervals.
  """
  scores, spread = {}, {}
  for name, stats in swaps.items():

    def row(clips: np.ndarray, stats: Stats = stats) -> dict[str, float]:
      mean = {key: float(values[clips].mean()) for key, values in stats.items()}
      return {
        "change": np.sqrt(mean["change"] / mean["power"]),
        "loss_change": (mean["swapped_loss"] - mean["loss"]) / mean["loss"],
        "loss": mean["swapped_loss"],
      }

    def again(rng: np.random.Generator, row=row, count: int = len(stats["loss"])) -> dict:
      return row(resampling.with_replacement(rng, count))

    scores[name] = {key: float(value) for key, value in row(np.arange(len(stats["loss"]))).items()}
    spread[name] = resampling.intervals(scores[name], again, seed)
  return scores, spread
