"""Does a network use what guides it? Its prediction and loss when one condition is swapped.

Noise and timesteps stay the same, so that all that changes comes from the condition.
"""

from collections.abc import Mapping

import numpy as np

from videodiff_jax.metrics import resampling

Stats = dict[str, np.ndarray]
Answer = tuple[np.ndarray, np.ndarray]  # predictions (n, ...) and their losses (n,)


def compare(told: Answer, swapped: Answer) -> Stats:
  """What is kept of n examples, (n,) float64 each.

  Args:
    told: of the examples under their own condition.
    swapped: of the same ones under another.

  Returns:
    'power' and 'change', mean squares of the prediction and of its difference; 'loss' and
    'swapped_loss'.
  """

  def mean_square(x: np.ndarray) -> np.ndarray:
    return np.square(x.astype(np.float32)).reshape(len(x), -1).mean(axis=1, dtype=np.float64)

  return {
    "power": mean_square(told[0]),
    "change": mean_square(swapped[0].astype(np.float32) - told[0]),
    "loss": told[1].astype(np.float64),
    "swapped_loss": swapped[1].astype(np.float64),
  }


def figures(
  swaps: Mapping[str, Stats], seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
  """Figures of each swap, and their intervals over clips.

  Args:
    swaps: name -> `compare`, means over the examples of each of n clips, (n,).
    seed: of the resampling.

  Returns:
    name -> 'change', the rms of the prediction's difference in units of the prediction's rms: 0 if
    the network ignores the condition, sqrt(2) if the two predictions have nothing in common;
    'loss_change', how much larger the loss is with the swap, in units of the loss; 'loss', that
    with the swap. And their intervals.
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
