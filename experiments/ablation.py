"""--mode=ablation: LGC-VD Table 5, Sec. 4.2 (that epsilon shifts the brightness).

  python -m experiments.main --mode=ablation --config=configs/lgcvd_digits.py \
    --workdir=runs/lgcvd_ablation

Every variant of config.ablation is trained with every seed, for equally many iterations, in an
ordinary workdir of its own, WORKDIR/VARIANT/seed_N; then scored there on the same videos, drawn by
config.sample.sampler: the paper's unless another is asked for, as a claim on samples wants. It may
take several sittings: what is finished is skipped, what was interrupted goes on. After every run
WORKDIR/ablation.md and ablation.json are written anew from all scores there are.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from experiments import checks, score_files, score_prediction, train
from videodiff_jax.lgcvd import networks
from videodiff_jax.metrics.paired import paired_difference
from videodiff_jax.metrics.protocols import Protocol
from videodiff_jax.training.workdir import steps_done
from videodiff_jax.training.writers import format_table

_REFERENCE = "full"
_TITLES = {
  "no_encoder": "baseline + two-stage training",
  "no_two_stage": "baseline + sequence encoder",
  "eps": "full, epsilon",
  "one_update": "full, one update",
}
# Name in the records -> (heading, digits after the point).
_COLUMNS = {
  "psnr": ("PSNR, dB", 2),
  "ssim": ("SSIM", 3),
  "lpips": ("LPIPS", 3),
  "fvd": ("FVD", 1),
  "position_error": ("position error, px", 2),
  "brightness_shift": ("brightness shift", 2),
  "brightness_shift_last": ("at the last frame", 2),
  "brightness_error": ("brightness error", 2),
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One variant with one seed: its configuration and its workdir."""

  variant: str
  seed: int
  config: ml_collections.ConfigDict
  workdir: pathlib.Path


def run(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, protocol_name: str | None = None
) -> dict[str, Any] | None:
  """Trains and scores what is missing, and compares.

  Args:
    workdir: of all runs.
    config: of the full model; `ablation` says what varies.
    protocol_name: how to score; None takes config.evaluate.protocol.

  Returns:
    What ablation.json holds; None where SIGTERM ended it early (run it again to go on).
  """
  if (workdir / "config.json").is_file():
    raise checks.UserError(f"{workdir} is the workdir of a single run. Choose another --workdir.")
  protocol = score_prediction.find_protocol(protocol_name or config.evaluate.protocol)
  runs = list(plan(workdir, config))
  for one in runs:
    checks.check_config(one.config)
  checks.check_training(config)
  score_prediction.check(protocol, train.open_store(config, protocol.split))

  features = score_prediction.features_of(protocol)
  records: dict[str, dict[int, dict[str, Any]]] = {}
  result = None
  for number, one in enumerate(runs, 1):
    logging.info("Run %d of %d: %s, seed %d.", number, len(runs), one.variant, one.seed)
    if not _trained(one) and not train.train(one.config, one.workdir, None):
      return None
    record = score_prediction.evaluate(one.workdir, one.config, protocol.name, features, reuse=True)
    records.setdefault(one.variant, {})[one.seed] = record
    result = compare(records, protocol, runs)
    _write(workdir, result)
    jax.clear_caches()  # or the programs of all runs would stay in memory
  logging.info("%s", report(result))
  return result


def plan(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> Iterator[Run]:
  """All runs, seed by seed, so that variants can be compared early.

  Raises:
    UserError: config.ablation.compared names a variant that is not there, or there is no seed.
  """
  ablation = config.ablation
  names = ablation.compared.split(",")
  for name in names:
    checks.choice("ablation.compared", name, tuple(ablation.variants))
  if not ablation.seeds:
    raise checks.UserError("config.ablation.seeds is empty; give at least one.")
  for seed in ablation.seeds:
    for name in names:
      variant = config.copy_and_resolve_references()
      variant.update(ablation.variants[name])
      variant.seed = seed
      yield Run(name, seed, variant, workdir / name / f"seed_{seed}")


def _trained(one: Run) -> bool:
  """Whether it is finished; a workdir of another configuration is an error all the same."""
  if not (one.workdir / "config.json").is_file():
    return False
  train.claim_workdir(one.config, one.workdir)
  (name,) = one.config.stages
  return (steps_done(one.workdir, name) or 0) >= one.config.train[name].steps


def compare(
  records: Mapping[str, Mapping[int, Mapping[str, Any]]], protocol: Protocol, runs: Sequence[Run]
) -> dict[str, Any]:
  """Means of every variant, and paired differences to the full model.

  Args:
    records: variant -> seed -> record of `score_prediction.evaluate`.
    protocol: of all of them.
    runs: all that are planned.
  """
  configs = {run.variant: run.config for run in runs}
  figures = {name: {seed: _figures(r) for seed, r in of.items()} for name, of in records.items()}
  sample = next(record["settings"]["sample"] for of in records.values() for record in of.values())
  rows: dict[str, Any] = {}
  for name, seeds in figures.items():
    common = sorted(seeds.keys() & figures.get(_REFERENCE, {}).keys())
    columns = next(iter(seeds.values()))
    updates = _updates(configs[name])
    row: dict[str, Any] = {"seeds": sorted(seeds), "updates": updates, "mean": {}, "by_seed": {}}
    row["difference"] = {}
    for column in columns:
      means = {seed: float(of[column].mean()) for seed, of in seeds.items()}
      row["by_seed"][column] = means
      row["mean"][column] = float(np.mean(list(means.values())))
      if name != _REFERENCE and common:
        ours, full = (
          np.stack([figures[which][seed][column] for seed in common])
          for which in (name, _REFERENCE)
        )
        mean, error = paired_difference(ours, full)
        row["difference"][column] = {"mean": mean, "standard_error": error, "seeds": common}
    rows[name] = row
  return {
    "protocol": dataclasses.asdict(protocol),
    "iterations": runs[0].config.train.lgcvd.steps,
    "sample": sample,
    "variants": rows,
    "code": train.code_version(),
  }


def _updates(config: ml_collections.ConfigDict) -> int:
  """Optimiser steps of the whole training."""
  objective = networks.make_objective(config, networks.build(config))
  return objective.num_updates * config.train.lgcvd.steps


def _figures(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """column -> (v,) of the videos, or (1,) where a run has one figure in all."""
  videos, scores = record["videos"]["predicted"], record["scores"]["prediction"]["predicted"]
  figures = {}
  for column in _COLUMNS:
    if column in videos:
      figures[column] = np.array(videos[column])
    elif column in scores:
      figures[column] = np.array([scores[column]])
  return figures


def tables(result: dict[str, Any]) -> dict[str, list[tuple[str, ...]]]:
  """Title -> rows, the heading first."""
  rows = result["variants"]
  columns = [column for column in _COLUMNS if column in next(iter(rows.values()))["mean"]]
  heading = ("variant", "seeds", "updates", *(_COLUMNS[column][0] for column in columns))
  means, differences = [heading], [heading]
  for name, row in rows.items():
    start = (_TITLES.get(name, name), str(len(row["seeds"])), str(row["updates"]))
    digits = [_COLUMNS[column][1] for column in columns]
    means.append((*start, *(f"{row['mean'][c]:.{d}f}" for c, d in zip(columns, digits))))
    if row["difference"]:
      cells = (_cell(row["difference"][c], d) for c, d in zip(columns, digits))
      count = len(row["difference"][columns[0]]["seeds"])
      differences.append((start[0], str(count), start[2], *cells))
  found = {"Means": means}
  if len(differences) > 1:
    found["Differences to the full model"] = differences
  return found


def _cell(difference: dict[str, Any], digits: int) -> str:
  error = difference["standard_error"]
  spread = "" if error is None else f" ± {error:.{digits}f}"
  return f"{difference['mean']:+.{digits}f}{spread}"


def notes(result: dict[str, Any]) -> str:
  """How the tables are to be read."""
  protocol = result["protocol"]
  return (
    f"{result['iterations']} iterations each; {protocol['num_frames']} frames predicted from "
    f"{protocol['past']} of {protocol['num_videos']} test videos, protocol {protocol['name']!r}. "
    f"{score_files.drawn_by(result['sample'])} Updates: optimiser steps; where they differ, so may "
    "all figures for that reason alone. Brightness: drawn minus true mean, in levels of 255, over "
    "the horizon and at its last frame; its error is the mean absolute value. Differences are "
    "paired over seeds and videos, ± one standard error over both (videos and seeds as crossed "
    "random factors; FVD: over seeds alone). With so few seeds twice that is less than a 95 % "
    "interval."
  )


def report(result: dict[str, Any]) -> str:
  """The tables as text."""
  parts = [f"{title}\n{format_table(rows[1:], rows[0])}" for title, rows in tables(result).items()]
  return "\n\n".join([*parts, notes(result)])


def _write(folder: pathlib.Path, result: dict[str, Any]) -> None:
  parts = ["# Ablation", notes(result)]
  for title, rows in tables(result).items():
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    parts += [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
  (folder / "ablation.md").write_text("\n\n".join(parts) + "\n")
  (folder / "ablation.json").write_text(json.dumps(result, indent=2) + "\n")
