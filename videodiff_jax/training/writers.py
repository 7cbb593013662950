"""What a run leaves for people: a line in fixed columns, metrics.jsonl, TensorBoard, curves."""

import io
import json
import math
import pathlib
import time
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tqdm
from absl import logging

from videodiff_jax import text_files, whole_files

Points = Sequence[tuple[float, float]]

VALIDATION = "validation_"  # before the names of held-out clips' losses
_FLUSH_EVERY = 60.0  # seconds
_FIXED = ("step", "loss", "gradient_norm", "steps_per_s", "frames_per_s", "left")


class MetricWriter:
  """Writes a stage's metrics; one a stage, on the first host only.

  Metrics are numbers by name. `metrics.jsonl` is appended to (a resumed run goes on in the same
  file) and holds one JSON object a line.
  """

  def __init__(self, folder: pathlib.Path, enabled: bool = True):
    self._enabled = enabled
    if not enabled:
      return
    folder.mkdir(parents=True, exist_ok=True)
    self._file = folder / "metrics.jsonl"
    self._board: _Board | None = None  # of a finished stage nothing is written
    self._header: tuple[str, ...] = ()

  def write(self, step: int, metrics: dict[str, float], seconds_left: float) -> None:
    """One line to the screen, one to metrics.jsonl, scalars to TensorBoard."""
    if not self._enabled:
      return
    self._record(step, metrics)
    columns = {"step": str(step)} | {name: f"{value:.4g}" for name, value in metrics.items()}
    columns["left"] = tqdm.tqdm.format_interval(seconds_left)
    fixed = [name for name in _FIXED[:-1] if name in columns]
    names = (*fixed, *sorted(set(columns) - set(_FIXED)), "left")
    if names != self._header:
      self._header = names
      tqdm.tqdm.write("  ".join(f"{_short(name):>10}" for name in names))
    tqdm.tqdm.write("  ".join(f"{columns[name]:>10}" for name in names))

  def write_validation(self, step: int, losses: dict[str, float]) -> None:
    """As `write`, in a line of their own."""
    if not self._enabled:
      return
    self._record(step, losses)
    told = ", ".join(f"{name.removeprefix(VALIDATION)} {x:.4g}" for name, x in losses.items())
    tqdm.tqdm.write(f"validation at step {step}: {told}")

  def _record(self, step: int, metrics: dict[str, float]) -> None:
    whole_files.append_line(self._file, json.dumps({"step": step, **metrics}))
    self._board = self._board or _Board(self._file.parent)
    self._board.write(step, metrics)

  def close(self) -> None:
    if self._enabled and self._board:
      self._board.close()


class _Board:
  """TensorBoard's scalars.

  Written here: the thread that tensorboardX leaves it to ends where a disk is full, and whoever
  writes on then waits for it for ever.
  """

  def __init__(self, folder: pathlib.Path):
    # It loads torch where that is installed: not at every import of ours.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._event, self._scalar, self._folder = event_pb2.Event, summary.scalar, folder
    with whole_files.named(folder / "events.out.tfevents"):
      self._file = event_file_writer.EventsWriter(str(folder / "events"))
    self._flushed = 0.0

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    with whole_files.named(self._folder / "events.out.tfevents"):
      for name, value in metrics.items():
        summary = self._scalar(name, value)
        self._file.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
      if time.monotonic() - self._flushed > _FLUSH_EVERY:
        self._file.flush()
        self._flushed = time.monotonic()

  def close(self) -> None:
    try:
      self._file.close()
    except OSError as error:  # what it holds is in metrics.jsonl, too
      logging.warning("TensorBoard's file in %s is not whole: %s", self._folder, error)


def _short(name: str) -> str:
  """A column's heading of at most ten letters."""
  names = {"gradient_norm": "grad_norm", "steps_per_s": "steps/s", "frames_per_s": "frames/s"}
  return names.get(name, name.replace("gradient_norm_", "grad_"))[:10]


def read_metrics(file: pathlib.Path) -> list[dict[str, float]]:
  """A row a step of a metrics.jsonl, in order of steps; what is written twice, as written last.

  None where there is no such file. Lines that are no row of ours are passed over with a warning.
  """
  rows: dict[int, dict[str, float]] = {}
  for row in text_files.read_log(file, _is_row) if file.is_file() else ():
    rows.setdefault(row["step"], {}).update(row)
  return [row for _, row in sorted(rows.items())]


def _is_row(row: dict[str, Any]) -> bool:
  """Whether a line holds a step and numbers that can be drawn."""
  drawn = (isinstance(x, float) or (isinstance(x, int) and abs(x) < 2**53) for x in row.values())
  return isinstance(row.get("step"), int) and all(drawn)


def points(rows: Iterable[dict[str, float]], name: str) -> Points:
  """(step, value) of one metric."""
  return [(row["step"], row[name]) for row in rows if name in row]


def best_validation(rows: Iterable[dict[str, float]]) -> tuple[float, float] | None:
  """(step, loss) where the validation loss is lowest; None without any."""
  finite = [point for point in points(rows, VALIDATION + "loss") if math.isfinite(point[1])]
  return min(finite, key=lambda point: point[1], default=None)


def plot_curves(file: pathlib.Path, out: pathlib.Path) -> None:
  """Draws every metric of a metrics.jsonl over the steps, one panel each, into a PNG.

  A validation's losses are in the panels of the training's, the best marked.
  """
  pyplot = load_pyplot()
  rows = read_metrics(file)
  if pyplot is None or not rows:  # none: stopped before the first step
    return
  names = panel_names(rows)
  across = 3
  down = -(-len(names) // across)
  figure, axes = pyplot.subplots(down, across, figsize=(4 * across, 2.6 * down), squeeze=False)
  for panel, name in zip(axes.flat, names):
    best = best_validation(rows) if name == "loss" else None
    draw_metric(panel, name, both_lines(rows, name), best)
  for panel in axes.flat[len(names) :]:
    panel.axis("off")
  figure.tight_layout()
  save_figure(figure, out)


def draw_metric(
  panel: Any, title: str, lines: Mapping[str, Points], best: Sequence[float] | None
) -> None:
  """Draws a metric's lines into a panel of matplotlib; `best` (step, value) is marked."""
  for label, line in lines.items():
    panel.plot(*zip(*line), linewidth=1, label=label)
  if best:
    panel.plot(*best, "o", markersize=4, label=f"best: {best[1]:.3g} at {best[0]:g}")
  panel.set_title(title, fontsize=9)
  if len(lines) > 1:
    panel.legend(fontsize=7)
  if "loss" in title and min(value for line in lines.values() for _, value in line) > 0:
    panel.set_yscale("log")


def both_lines(rows: Sequence[dict[str, float]], name: str) -> dict[str, Points]:
  """A metric's (step, value) in 'training' and in 'validation', each only where it is logged."""
  lines = {"training": points(rows, name), "validation": points(rows, VALIDATION + name)}
  return {label: line for label, line in lines.items() if line}


def panel_names(rows: Iterable[dict[str, float]]) -> list[str]:
  """The metrics that have a panel each; a validation's is that of the training's."""
  every = dict.fromkeys(key.removeprefix(VALIDATION) for row in rows for key in row)
  return [name for name in every if name != "step"]


def plot_lines(
  panels: Mapping[str, Mapping[str, Sequence[float]]], first: int, xlabel: str, out: pathlib.Path
) -> None:
  """Draws a panel a title, with a line a label over `first`, `first` + 1, ..., into a PNG."""
  pyplot = load_pyplot()
  if pyplot is None:
    return
  figure, axes = pyplot.subplots(
    1, len(panels), figsize=(4 * len(panels), 3), squeeze=False, layout="tight"
  )
  for panel, (title, lines) in zip(axes.flat, panels.items()):
    for label, values in lines.items():
      panel.plot(range(first, first + len(values)), values, linewidth=1, label=label)
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(xlabel, fontsize=8)
    panel.legend(fontsize=7)
  save_figure(figure, out)


def plot_points(
  panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
  xlabel: str,
  out: pathlib.Path,
) -> None:
  """Draws a panel a title, with a line a label through its points (x, y), into a PNG.

  x is on a logarithmic axis: all are positive.
  """
  pyplot = load_pyplot()
  if pyplot is None:
    return
  figure, axes = pyplot.subplots(
    1, len(panels), figsize=(5 * len(panels), 4), squeeze=False, layout="tight"
  )
  for panel, (title, lines) in zip(axes.flat, panels.items()):
    for label, points in lines.items():
      panel.plot(*zip(*points), linewidth=1, marker="o", markersize=3, label=label)
    panel.set_xscale("log")
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(xlabel, fontsize=8)
    panel.legend(fontsize=7)
  save_figure(figure, out)


def save_figure(figure: Any, out: pathlib.Path) -> None:
  """Writes a figure of matplotlib as a PNG, whole or not at all, and closes it."""
  data = io.BytesIO()
  figure.savefig(data, format="png", dpi=90)
  load_pyplot().close(figure)
  whole_files.write_bytes(out, data.getvalue())


def load_pyplot() -> types.ModuleType | None:
  """matplotlib.pyplot, drawing into files; None, and a warning, where it is not installed."""
  try:
    import matplotlib
  except ImportError:
    logging.warning('No curves drawn: matplotlib is missing (pip install -e ".[demo]").')
    return None
  matplotlib.use("Agg")
  from matplotlib import pyplot

  return pyplot


def format_table(rows: Iterable[tuple[str, ...]], heading: tuple[str, ...]) -> str:
  """Plain-text table with aligned columns."""
  table = [heading, *[tuple(map(str, row)) for row in rows]]
  widths = [max(len(row[i]) for row in table) for i in range(len(heading))]
  lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in table]
  return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
