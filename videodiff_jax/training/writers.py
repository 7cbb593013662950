"""What a run leaves for people: a line in fixed columns, metrics.jsonl, TensorBoard, curves."""

import json
import pathlib
import types
from collections.abc import Iterable, Mapping, Sequence

import tqdm
from absl import logging

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
    self._file = (folder / "metrics.jsonl").open("a")
    import tensorboardX  # loads torch where that is installed: not at every import of ours

    self._board = tensorboardX.SummaryWriter(str(folder))
    self._header: tuple[str, ...] = ()

  def write(self, step: int, metrics: dict[str, float], seconds_left: float) -> None:
    """One line to the screen, one to metrics.jsonl, scalars to TensorBoard."""
    if not self._enabled:
      return
    self._file.write(json.dumps({"step": step, **metrics}) + "\n")
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(name, value, step)
    columns = {"step": str(step)} | {name: f"{value:.4g}" for name, value in metrics.items()}
    columns["left"] = tqdm.tqdm.format_interval(seconds_left)
    fixed = [name for name in _FIXED[:-1] if name in columns]
    names = (*fixed, *sorted(set(columns) - set(_FIXED)), "left")
    if names != self._header:
      self._header = names
      tqdm.tqdm.write("  ".join(f"{_short(name):>10}" for name in names))
    tqdm.tqdm.write("  ".join(f"{columns[name]:>10}" for name in names))

  def close(self) -> None:
    if self._enabled:
      self._file.close()
      self._board.close()


def _short(name: str) -> str:
  """A column's heading of at most ten letters."""
  names = {"gradient_norm": "grad_norm", "steps_per_s": "steps/s", "frames_per_s": "frames/s"}
  return names.get(name, name.replace("gradient_norm_", "grad_"))[:10]


def read_metrics(file: pathlib.Path) -> list[dict[str, float]]:
  """The lines of a metrics.jsonl, the latest of each step, in order of steps."""
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def plot_curves(file: pathlib.Path, out: pathlib.Path) -> None:
  """Draws every metric of a metrics.jsonl over the steps, one panel each, into a PNG."""
  pyplot = _pyplot()
  rows = read_metrics(file)
  if pyplot is None or not rows:  # none: stopped before the first step
    return
  names = [name for name in rows[-1] if name != "step"]
  across = 3
  down = -(-len(names) // across)
  figure, axes = pyplot.subplots(down, across, figsize=(4 * across, 2.6 * down), squeeze=False)
  for panel, name in zip(axes.flat, names):
    points = [(row["step"], row[name]) for row in rows if name in row]
    panel.plot(*zip(*points), linewidth=1)
    panel.set_title(name, fontsize=9)
    if "loss" in name and min(value for _, value in points) > 0:
      panel.set_yscale("log")
  for panel in axes.flat[len(names) :]:
    panel.axis("off")
  figure.tight_layout()
  figure.savefig(out, dpi=90)
  pyplot.close(figure)


def plot_lines(
  panels: Mapping[str, Mapping[str, Sequence[float]]], first: int, xlabel: str, out: pathlib.Path
) -> None:
  """Draws a panel a title, with a line a label over `first`, `first` + 1, ..., into a PNG."""
  pyplot = _pyplot()
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
  figure.savefig(out, dpi=90)
  pyplot.close(figure)


def _pyplot() -> types.ModuleType | None:
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
