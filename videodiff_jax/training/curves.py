"""Compares a run with the learning curves kept with trained weights (curves.json).

The file is JSON:

  {"margin": 0.15,
   "stages": {"autoencoder": {"training": [[50, 0.31], [100, 0.24], ...],
                              "validation": [[250, 0.22], [500, 0.19], ...],
                              "best": [500, 0.19]}, ...}}

Points are [step, loss]. 'best' is the lowest point of 'validation'. Where a stage was not
validated, 'validation' is [] and 'best' is null. 'margin' is the fraction by which a validation
loss may exceed the curve before a run counts as worse. `experiments.export.curves` makes the file
from a workdir.
"""

import dataclasses
import math
import pathlib

import numpy as np
from absl import logging

from videodiff_jax import text_files, typed


@dataclasses.dataclass
class Expected:
  """The validation losses of a stage in another run.

  Attributes:
    file: the file that holds them.
    stage: the stage's name.
    steps: steps of the losses, increasing.
    losses: one validation loss per step.
    margin: the fraction above them beyond which a run counts as worse.
  """

  file: pathlib.Path
  stage: str
  steps: list[float]
  losses: list[float]
  margin: float
  _worse: bool = False

  def at(self, step: int) -> float | None:
    """Returns the loss expected after `step`: interpolated, or the last; None before the first."""
    if step < self.steps[0]:
      return None
    return float(np.interp(step, self.steps, self.losses))

  def compare(self, step: int, loss: float) -> None:
    """Warns when a run's loss leaves the margin, and logs when it is within it again."""
    known = self.at(step)
    if known is None:
      return
    worse = not loss <= known * (1 + self.margin)
    if worse != self._worse:
      log = logging.warning if worse else logging.info
      log(
        "Stage %s at step %d: validation loss %.4g, %+.0f %% against %.4g in %s: %s the margin of "
        "%.0f %%.",
        self.stage, step, loss, 100 * (loss / known - 1), known, self.file,
        "worse than" if worse else "again within", 100 * self.margin,
      )  # fmt: skip
    self._worse = worse


def read(file: str | pathlib.Path) -> dict[str, Expected]:
  """Reads the expected losses of each stage from a curves.json.

  Raises:
    ValueError: the file is missing, has another form, or has no validation losses.
  """
  file = typed.path(file, "config.expected")
  try:
    found = text_files.read_json(file)
    margin = float(found["margin"])
    curves = {}
    for name, stage in found["stages"].items():
      if points := stage["validation"]:
        steps, losses = zip(*sorted((float(step), float(loss)) for step, loss in points))
        curves[name] = Expected(file, name, list(steps), list(losses), margin)
  except OSError as error:
    raise ValueError(f"{file} cannot be read: {error.strerror}.") from error
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f"{file} does not hold learning curves ({error!r}).") from error
  every = [margin, *(loss for curve in curves.values() for loss in curve.losses)]
  if not all(math.isfinite(x) and x >= 0 for x in every):
    raise ValueError(f"{file} does not hold learning curves: a loss or the margin is no number.")
  if not curves:
    raise ValueError(f"{file} has no validation losses: its run was not validated.")
  return curves
