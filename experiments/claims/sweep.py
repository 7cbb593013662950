"""--mode=sweep: measures the quality of a workdir's clips against the time to draw them.

  python -m experiments.main --mode=sweep --workdir=runs/NAME

Every sampler, grid and number of steps of config.sweep draws the same clips from the same noise,
few steps first. WORKDIR/sweep.json holds all points and is written after each one, so that a killed
sweep goes on with the next. sweep.md and sweep.png show the points.
"""

import json
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import flags, logging

from experiments.claims.sweep_sets import Bench
from experiments.measures import digits, set_scores
from experiments.scoring import score_files
from experiments.setup import checks, frame_stores, systems
from experiments.workdirs import outputs, provenance
from videodiff_jax import locks, text_files, whole_files
from videodiff_jax.metrics import images, resampling
from videodiff_jax.training.workdir import read_config
from videodiff_jax.training.writers import format_table, plot_points

_SEED = 0
# Figure -> (heading, digits after the point).
_FIGURES = {
  "fvd": ("FVD", 1),
  "frames_right": ("frames that read as their digit", 3),
  "agreement": ("agreement of a clip's frames", 3),
  "sharpness": ("sharpness", 2),
  "i3d_kernel_distance": ("KID", 3),
  "alexnet_frame_frechet": ("Frechet distance of frames", 2),
}
_PLOTTED = ("fvd", "frames_right", "sharpness")


class Point(NamedTuple):
  """The sampler settings of a set of clips."""

  kind: str
  grid: str
  steps: int


def mode(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """--mode=sweep."""
  run(workdir, config, options.protocol)


def run(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, protocol: str | None = None
) -> dict[str, Any]:
  """Draws and scores the missing points.

  Args:
    workdir: folder of the run.
    config: configuration whose `sample`, `evaluate` and `sweep` replace the workdir's own; or None.
    protocol: protocol for LGC-VD; None takes config.evaluate.protocol.

  Returns:
    The content of sweep.json.

  Raises:
    UserError: a sampler is unknown, or sweep.json is of other weights or settings.
    LockedError: another process sweeps this workdir.
  """
  set_scores.locate()  # reported before the long sampling, not after it
  bench = systems.of(read_config(workdir)).hook("sweep")(workdir, config, protocol)
  points = plan((config or bench.pipeline.config).sweep)
  for point in points:
    bench.drawing(*point)  # reports now a point that cannot be drawn
  out = outputs.folder(workdir)
  # Two sweeps at once would overwrite each other's points.
  with locks.hold(out / "sweep.lock", f"sweeps {workdir}"):
    record = _begun(out / "sweep.json", bench)
    done = {_point(row) for row in record["points"]}
    missing = [point for point in points if point not in done]
    judge: Judge | None = None
    for number, point in enumerate(missing, 1):
      logging.info("Point %d of %d: %s, grid %r, %d steps.", number, len(missing), *point)
      judge = judge or Judge(bench)  # not where nothing is missing
      record["points"].append(measure(bench, judge, point))
      _write(out, record)
  logging.info("%s\n\nWritten to %s.", report(record), out / "sweep.json")
  return record


def plan(wanted: ml_collections.ConfigDict) -> list[Point]:
  """Returns all points of a `config.sweep`, few steps first, so that they can be compared early."""
  points = [
    Point(kind, grid, steps)
    for steps in sorted(wanted.steps)
    for kind in wanted.kinds
    for grid in wanted.grids
  ]
  if not points:
    raise checks.UserError("config.sweep has no points: give steps, kinds and grids.")
  return points


class Judge:
  """Scores every point."""

  def __init__(self, bench: Bench):
    real = bench.reference()
    self._reference = set_scores.features(real)
    self._edges = images.gradient_energy(real).mean()
    self._labels, self._paired = bench.labels, bench.paired
    if bench.labels is not None:
      self._reader = digits.reader(frame_stores.open_store(bench.pipeline.config, "train"))

  def __call__(self, drawn: np.ndarray) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Computes figures of drawn clips (n, f, h, w, c) uint8, and their intervals over clips."""
    real, features = self._reference, set_scores.features(drawn)
    each = {"sharpness": images.gradient_energy(drawn).mean(axis=1) / self._edges}
    if self._labels is not None:
      readings = self._reader.read(drawn).figures(self._labels[: len(drawn)])
      each |= {name: readings[name] for name in ("frames_right", "agreement")}

    def figures(of_real: np.ndarray, of_drawn: np.ndarray) -> dict[str, float]:
      means = {name: float(values[of_drawn].mean()) for name, values in each.items()}
      sets = real.take(of_real), features.take(of_drawn)
      return means | set_scores.figures(*sets, paired=self._paired)

    def again(rng: np.random.Generator) -> dict[str, float]:
      of_real = resampling.with_replacement(rng, len(real))
      of_drawn = of_real if self._paired else resampling.with_replacement(rng, len(features))
      return figures(of_real, of_drawn)

    scores = figures(np.arange(len(real)), np.arange(len(features)))
    return scores, resampling.intervals(scores, again, _SEED)


def measure(bench: Bench, judge: Judge, point: Point) -> dict[str, Any]:
  """Makes a row of sweep.json: the point, its seconds per clip, its figures and their intervals.

  The first part is drawn twice, since its program is compiled the first time.
  """
  pipeline = bench.drawing(*point)
  bench.draw(pipeline, bench.starts[0])
  drawn, seconds = [], []
  for start in bench.starts:
    began = time.monotonic()
    drawn.append(bench.draw(pipeline, start))
    seconds.append(time.monotonic() - began)
  scores, intervals = judge(np.concatenate(drawn))
  return {
    **point._asdict(),
    "seconds_a_clip": statistics.median(seconds) / bench.starts.step,
    "scores": scores,
    "intervals": intervals,
    "code": provenance.code_version(),
  }


def _begun(file: pathlib.Path, bench: Bench) -> dict[str, Any]:
  """Reads the record of an earlier call, or starts one without points."""
  record = {
    "settings": bench.settings,
    **score_files.provenance(bench.pipeline.config),
    "points": [],
  }
  if not file.is_file():
    return record
  earlier = text_files.read_json(file)
  try:
    [(_point(row), row["scores"], row["seconds_a_clip"]) for row in earlier["points"]]
    earlier["settings"].keys()
  except (KeyError, TypeError, AttributeError) as error:
    raise checks.UserError(
      f"{file} was not written by --mode=sweep: move it, then run this again."
    ) from error
  now = json.loads(json.dumps(bench.settings))
  if earlier["settings"] != now:
    differ = sorted(
      key for key in earlier["settings"].keys() | now.keys()
      if earlier["settings"].get(key) != now.get(key)
    )  # fmt: skip
    raise checks.UserError(
      f"{file} was measured with other settings ({', '.join(differ)}): move it away, or give "
      "the settings that it was measured with."
    )
  return earlier


def _point(row: dict[str, Any]) -> Point:
  return Point(*(row[name] for name in Point._fields))


def tables(record: dict[str, Any]) -> list[tuple[str, ...]]:
  """Makes a row for each point, fastest first, after the heading."""
  rows = sorted(record["points"], key=lambda row: row["seconds_a_clip"])
  names = _measured(rows)
  heading = ("sampler", "grid", "steps", "seconds a clip", *(_FIGURES[n][0] for n in names))
  lines = [heading]
  for row in rows:
    cells = (
      f"{row['scores'][n]:.{d}f} [{row['intervals'][n][0]:.{d}f}, {row['intervals'][n][1]:.{d}f}]"
      for n, d in ((name, _FIGURES[name][1]) for name in names)
    )
    lines.append(
      (row["kind"], row["grid"], str(row["steps"]), f"{row['seconds_a_clip']:.3g}", *cells)
    )
  return lines


def _measured(rows: Sequence[dict[str, Any]]) -> list[str]:
  return [name for name in _FIGURES if all(name in row["scores"] for row in rows)]


def notes(record: dict[str, Any]) -> str:
  """Explains how to read the table."""
  settings = record["settings"]
  return (
    f"{settings['about']} Seconds: of one clip on {settings['device']}, compiled before, in parts "
    f"of {settings['part']} clips; the weights' {settings['weights']}. [low, high]: 95 % over the "
    "choice of clips."
  )


def report(record: dict[str, Any]) -> str:
  """Formats the table as text."""
  heading, *rows = tables(record)
  return f"{format_table(rows, heading)}\n\n{notes(record)}"


def _write(out: pathlib.Path, record: dict[str, Any]) -> None:
  heading, *rows = tables(record)
  lines = [heading, ("---",) * len(heading), *rows]
  table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
  text = f"# Quality against seconds\n\n{notes(record)}\n\n{table}\n"
  whole_files.write_text(out / "sweep.md", text)
  panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
  there = _measured(record["points"])
  for name in (name for name in _PLOTTED if name in there):
    lines_of = panels.setdefault(_FIGURES[name][0], {})
    for row in sorted(record["points"], key=lambda row: row["steps"]):
      point = row["seconds_a_clip"], row["scores"][name]
      lines_of.setdefault(f"{row['kind']}, {row['grid']}", []).append(point)
  plot_points(panels, "seconds a clip", out / "sweep.png")
  score_files.save(out / "sweep.json", record)
