"""Learning curves of a workdir (curves.json), which are shipped with trained weights."""

import json
import pathlib
from typing import Any

from videodiff_jax.training.workdir import read_config
from videodiff_jax.training.writers import (
  VALIDATION,
  best_validation,
  draw_metric,
  load_pyplot,
  points,
  read_metrics,
  save_figure,
)

MARGIN = 0.15


def curves_of(workdir: pathlib.Path, margin: float = MARGIN) -> dict[str, Any]:
  """Makes the content of a curves.json from a run's logs; see `videodiff_jax.training.curves`.

  A stage without validation has 'validation' [] and 'best' None. A stage that was not trained,
  because its weights were given, is left out.

  Args:
    workdir: folder of a run, finished or not.
    margin: relative excess over these validation losses from which another run counts as worse.

  Raises:
    CheckpointError: the folder is not a workdir.
  """
  stages = {}
  for name in read_config(workdir).stages:
    rows = read_metrics(workdir / name / "metrics.jsonl")
    if rows:
      stages[name] = {
        "training": points(rows, "loss"),
        "validation": points(rows, VALIDATION + "loss"),
        "best": best_validation(rows),
      }
  # The form that a file gives back: lists instead of tuples.
  return json.loads(json.dumps({"margin": margin, "stages": stages}))


def plot(curves: dict[str, Any], out: pathlib.Path) -> None:
  """Draws the result of `curves_of` as a PNG: a panel per stage, with the best validation marked.

  If matplotlib is missing, logs a warning and draws nothing.
  """
  pyplot, stages = load_pyplot(), curves["stages"]
  if pyplot is None:
    return
  size = (4 * len(stages), 3)
  figure, axes = pyplot.subplots(1, len(stages), figsize=size, squeeze=False, layout="tight")
  for panel, (name, of) in zip(axes.flat, stages.items()):
    lines = {label: of[label] for label in ("training", "validation") if of[label]}
    draw_metric(panel, f"{name}: loss", lines, of["best"])
    panel.set_xlabel("step", fontsize=8)
  save_figure(figure, out)
