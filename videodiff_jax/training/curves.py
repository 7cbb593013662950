"""Learning curves kept with trained weights (curves.json), and a run compared with them.

The file is JSON:

  {"margin": 0.15,
   "stages": {"autoencoder": {"training": [[50, 0.31], [100, 0.24], ...],
                              "validation": [[250, 0.22], [500, 0.19], ...],
                              "best": [500, 0.19]}, ...}}

Points are [step, loss]. 'best' is the lowest of 'validation', which is [] and null where the stage
was not validated. 'margin' is by what share a validation loss may lie above the curve before a run
is said to be worse. `experiments.export.curves` makes the file from a workdir.
"""

import dataclasses
import math
import pathlib

import numpy as np
from absl import logging

from videodiff_jax import text_files, typed


@dataclasses.dataclass
class Expected:
  """A stage's validation losses in another run.

  Attributes:
    file: where they stand.
    stage: its name.
    steps: of the losses, increasing.
    losses: as many.
    margin: share above them from which on a run is worse.
  """

  file: pathlib.Path
  stage: str
  steps: list[float]
  losses: list[float]
  margin: float
  _worse: bool = False

  def at(self, step: int) -> float | None:
    """The loss expected after `step`: interpolated, beyond the last step the last; None before."""
    if step < self.steps[0]:
      return None
    return float(np.interp(step, self.steps, self.losses))

  def compare(self, step: int, loss: float) -> None:
    """Warns where a run gets worse than this by more than the margin; says when it is past."""
    known = self.at(step)
    if known is None:
      return
    worse = not loss <= known * (1 + self.margin)
    if worse != self._worse:
      log = logging.warning if worse else logging.info
      log(
        "Stage %s at step %d: validation loss %.4g, %+.0f %% beside the %.4g of %s: %s the margin "
        "of %.0f %%.",
        self.stage, step, loss, 100 * (loss / known - 1), known, self.file,
        "worse than" if worse else "again within", 100 * self.margin,
      )  # fmt: skip
    self._worse = worse


def read(file: str | pathlib.Path) -> dict[str, Expected]:
  """What a curves.json says of each stage.

  Raises:
    ValueError: there is no such file, or it is of another form.
  """
  file = typed.path(file, "config.expected")
  try:
    found = text_files.read_json(file)
    margin = float(found["margin"])
    curves = {}
    for name, of in found["stages"].items():
      if of["validation"]:
        steps, losses = zip(*sorted((float(step), float(loss)) for step, loss in of["validation"]))
        curves[name] = Expected(file, name, list(steps), list(losses), margin)
  except OSError as error:
    raise ValueError(f"{file} cannot be read: {error.strerror}.") from error
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f"{file} is no file of learning curves ({error!r}).") from error
  every = [margin, *(loss for curve in curves.values() for loss in curve.losses)]
  if not all(math.isfinite(x) and x >= 0 for x in every):
    raise ValueError(f"{file} is no file of learning curves: a loss or the margin is no number.")
  if not curves:
    raise ValueError(f"{file} has no validation losses: its run was not validated.")
  return curves
