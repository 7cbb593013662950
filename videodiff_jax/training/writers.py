"""Writes a run's metrics: lines on the screen, metrics.jsonl, TensorBoard and learning curves."""

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

from videodiff_jax import copies, text_files, whole_files

Points = Sequence[tuple[float, float]]

VALIDATION = "validation_"  # prefix of the names of held-out clips' losses
_FLUSH_EVERY = 60.0  # seconds
_FIXED = ("step", "loss", "gradient_norm", "steps_per_s", "frames_per_s", "left")


class MetricWriter:
  """Writes the metrics of one stage; it is enabled on the first host only.

  Metrics map names to numbers. `metrics.jsonl` holds one JSON object per line; a resumed run
  appends to the same file. In object storage the files are written again as a whole, once a minute
  and by `send`.
  """

  def __init__(self, folder: pathlib.Path, enabled: bool = True):
    self._enabled = enabled
    if not enabled:
      return
    self._spool = copies.Spool(folder, ("metrics.jsonl",))
    self._file = self._spool.folder / "metrics.jsonl"
    self._sent = time.monotonic()
    self._board: _Board | None = None  # opened at the first record; a finished stage has none
    self._header: tuple[str, ...] = ()

  def write(self, step: int, metrics: dict[str, float], seconds_left: float) -> None:
    """Writes a line to the screen, one to metrics.jsonl, and scalars to TensorBoard."""
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
    """Writes validation losses as `write` does, in a line of their own on the screen."""
    if not self._enabled:
      return
    self._record(step, losses)
    listed = ", ".join(f"{name.removeprefix(VALIDATION)} {x:.4g}" for name, x in losses.items())
    tqdm.tqdm.write(f"validation at step {step}: {listed}")

  def _record(self, step: int, metrics: dict[str, float]) -> None:
    whole_files.append_line(self._file, json.dumps({"step": step, **metrics}))
    self._board = self._board or _Board(self._file.parent)
    self._board.write(step, metrics)
    if time.monotonic() - self._sent > _FLUSH_EVERY:
      self.send()

  def send(self) -> None:
    """Brings object storage up to date, as before a checkpoint; does nothing on a disk."""
    if self._enabled:
      self._spool.send()
      self._sent = time.monotonic()

  def close(self) -> None:
    if self._enabled:
      if self._board:
        self._board.close()
      self._spool.close()


class _Board:
  """Writes scalars for TensorBoard.

  tensorboardX's own writer uses a thread. On a full disk that thread ends, and the next write
  waits for it forever. So the events are written here.
  """

  def __init__(self, folder: pathlib.Path):
    # Imported late: tensorboardX loads torch where it is installed.
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
    except OSError as error:  # metrics.jsonl holds the same numbers
      logging.warning("TensorBoard's file in %s is incomplete: %s", self._folder, error)


def _short(name: str) -> str:
  """Returns a column's heading of at most ten characters."""
  names = {"gradient_norm": "grad_norm", "steps_per_s": "steps/s", "frames_per_s": "frames/s"}
  return names.get(name, name.replace("gradient_norm_", "grad_"))[:10]


def read_metrics(file: pathlib.Path) -> list[dict[str, float]]:
  """Reads a metrics.jsonl as one row per step, in order of steps; later lines replace earlier ones.

  The list is empty where there is no such file. Other lines are skipped with a warning.
  """
  rows: dict[int, dict[str, float]] = {}
  for row in text_files.read_log(file, _is_row) if file.is_file() else ():
    rows.setdefault(row["step"], {}).update(row)
  return [row for _, row in sorted(rows.items())]


def _is_row(row: dict[str, Any]) -> bool:
  """Tells whether a line holds a step and numbers that can be drawn."""
  drawn = (isinstance(x, float) or (isinstance(x, int) and abs(x) < 2**53) for x in row.values())
  return isinstance(row.get("step"), int) and all(drawn)


def points(rows: Iterable[dict[str, float]], name: str) -> Points:
  """Returns the (step, value) points of one metric."""
  return [(row["step"], row[name]) for row in rows if name in row]


def best_validation(rows: Iterable[dict[str, float]]) -> tuple[float, float] | None:
  """Returns (step, loss) where the validation loss is lowest; None where there is none."""
  finite = [point for point in points(rows, VALIDATION + "loss") if math.isfinite(point[1])]
  return min(finite, key=lambda point: point[1], default=None)


def plot_curves(file: pathlib.Path, out: pathlib.Path) -> None:
  """Plots every metric of a metrics.jsonl over the steps, one panel each, as a PNG.

  Validation losses share the panels of the training losses, and the best is marked.
  """
  pyplot = load_pyplot()
  rows = read_metrics(file)
  if pyplot is None or not rows:  # no rows: the run stopped before its first line
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
  """Plots a metric's lines in a matplotlib panel and marks `best` (step, value)."""
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
  """Returns a metric's (step, value) points in 'training' and 'validation', where logged."""
  lines = {"training": points(rows, name), "validation": points(rows, VALIDATION + name)}
  return {label: line for label, line in lines.items() if line}


def panel_names(rows: Iterable[dict[str, float]]) -> list[str]:
  """Returns the names of the metrics with a panel; training and validation share one."""
  every = dict.fromkeys(key.removeprefix(VALIDATION) for row in rows for key in row)
  return [name for name in every if name != "step"]


def plot_lines(
  panels: Mapping[str, Mapping[str, Sequence[float]]], first: int, xlabel: str, out: pathlib.Path
) -> None:
  """Plots a PNG with one panel per title and one line per label over `first`, `first` + 1, ..."""
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
  """Plots a PNG with one panel per title and one line per label through its points (x, y).

  The x axis is logarithmic, so all x must be positive.
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
    # Powers of ten label too few points, and the default labels between them overlap.
    panel.xaxis.set_major_locator(pyplot.LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(pyplot.FormatStrFormatter("%g"))
    panel.xaxis.set_minor_locator(pyplot.NullLocator())
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(xlabel, fontsize=8)
  axes.flat[-1].legend(fontsize=7, bbox_to_anchor=(1, 1), loc="upper left")  # hides no line
  save_figure(figure, out)


def save_figure(figure: Any, out: pathlib.Path) -> None:
  """Writes a matplotlib figure as a PNG atomically, and closes it."""
  data = io.BytesIO()
  figure.savefig(data, format="png", dpi=90)
  pyplot = load_pyplot()
  assert pyplot is not None  # there is a figure
  pyplot.close(figure)
  whole_files.write_bytes(out, data.getvalue())


def load_pyplot() -> types.ModuleType | None:
  """Loads matplotlib.pyplot for drawing to files; None, with a warning, if it is not installed."""
  try:
    import matplotlib
  except ImportError:
    logging.warning('No curves drawn: matplotlib is missing (pip install -e ".[demo]").')
    return None
  matplotlib.use("Agg")
  from matplotlib import pyplot

  return pyplot


def format_table(rows: Iterable[tuple[str, ...]], heading: tuple[str, ...]) -> str:
  """Formats a plain-text table with aligned columns."""
  table = [heading, *[tuple(map(str, row)) for row in rows]]
  widths = [max(len(row[i]) for row in table) for i in range(len(heading))]
  lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in table]
  return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
