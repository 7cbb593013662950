"""Learning curves of a workdir, as trained weights are shipped with them (curves.json)."""

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
  """The content of a curves.json, see `videodiff_jax.training.curves`, of what a run has logged.

  A stage that was not validated has 'validation' [] and 'best' None; one that was not trained, as
  its weights were given, is left out.

  Args:
    workdir: of a run, finished or not.
    margin: share above these validation losses from which on another run is worse.

  Raises:
    CheckpointError: no workdir.
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
  # As a file gives it back: lists, no tuples.
  return json.loads(json.dumps({"margin": margin, "stages": stages}))


def plot(curves: dict[str, Any], out: pathlib.Path) -> None:
  """Draws what `curves_of` gives into a PNG, a panel a stage, the best validation loss marked.

  Nothing is drawn, with a warning, where matplotlib is missing.
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
