"""--mode=ablation: measures a paper's claim about a part of a system on a small scale.

  python -m experiments.main --mode=ablation --config=configs/lgcvd_digits.py:occluded \
    --workdir=runs/lgcvd_ablation

The claims are GLOBER Table 3; LGC-VD Table 5, Sec. 4.2 (that epsilon shifts the brightness). Every
variant of config.ablation is trained with every seed, for equally many iterations, in an ordinary
workdir of its own, WORKDIR/VARIANT/seed_N. There it is scored on the same videos, drawn by
config.sample. The command may be run several times: finished runs are skipped, interrupted ones go
on. After every run WORKDIR/ablation.md and ablation.json are rewritten from all scores.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags, logging

from experiments.claims import claim_scores, rivals
from experiments.claims.claim_scores import Figures, Scorer
from experiments.scoring import score_files
from experiments.setup import checks, systems
from experiments.train import train
from experiments.workdirs import provenance
from videodiff_jax import command, locks, whole_files
from videodiff_jax.metrics.paired import paired_difference, paired_interval
from videodiff_jax.training.workdir import LOCK, steps_done
from videodiff_jax.training.writers import format_table

_TITLES = {
  "no_encoder": "baseline + two-stage training",
  "no_two_stage": "baseline + sequence encoder",
  "eps": "full, epsilon",
  "one_update": "full, one update",
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One variant with one seed: its configuration and its workdir."""

  variant: str
  seed: int
  config: ml_collections.ConfigDict
  workdir: pathlib.Path


def mode(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, options: flags.FlagValues
) -> None:
  """--mode=ablation; raises Terminated if SIGTERM ended it early."""
  if run(workdir, config, options.protocol) is None:
    raise command.Terminated


def run(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, protocol_name: str | None = None
) -> dict[str, Any] | None:
  """Trains and scores the missing runs, and compares all.

  Args:
    workdir: folder of all runs.
    config: configuration of the whole model; `ablation` sets what varies.
    protocol_name: protocol to score by; None takes config.evaluate.protocol.

  Returns:
    The content of ablation.json; None if SIGTERM ended it early (run it again to go on).
  """
  if (workdir / "config.json").is_file():
    raise checks.UserError(f"{workdir} is the workdir of a single run. Choose another --workdir.")
  runs = list(plan(workdir, config))
  for one in runs:
    checks.check_given(one.config)
  checks.check_training(config)
  scored_by = config.ablation.scored_by
  scorer = claim_scores.SCORERS[scored_by](config, protocol_name)
  with locks.hold(workdir / LOCK, f"runs an ablation in {workdir}"):
    return _run(workdir, runs, scorer)


def _run(workdir: pathlib.Path, runs: Sequence[Run], scorer: Scorer) -> dict[str, Any] | None:
  figures: dict[str, dict[int, Figures]] = {}
  result: dict[str, Any] = {}
  for number, one in enumerate(runs, 1):
    logging.info("Run %d of %d: %s, seed %d.", number, len(runs), one.variant, one.seed)
    if not _trained(one):
      _share(workdir, one)
      if not train.train(one.config, one.workdir, None):
        return None
    figures.setdefault(one.variant, {})[one.seed] = scorer.score(one.workdir, one.config)
    result = compare(figures, scorer, runs)
    _write(workdir, result)
    jax.clear_caches()  # else the programs of all runs stay in memory
  logging.info("%s", report(result))
  return result


def plan(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> Iterator[Run]:
  """Yields all runs, seed by seed, so that variants can be compared early.

  Raises:
    UserError: config.ablation.compared names an unknown variant.
  """
  ablation = config.ablation
  names = ablation.compared.split(",")
  for name in names:
    checks.choice("ablation.compared", name, tuple(ablation.variants))
  for seed in ablation.seeds:
    for name in names:
      overrides = ablation.variants[name]
      if "from" in overrides:
        variant = rivals.other_system(config, overrides)
      else:
        variant = config.copy_and_resolve_references()
        variant.update(overrides)
      variant.seed = seed
      yield Run(name, seed, variant, workdir / name / f"seed_{seed}")


def _trained(one: Run) -> bool:
  """Whether a run is finished; raises an error for a workdir of another configuration."""
  if not (one.workdir / "config.json").is_file():
    return False
  with train.claimed(one.config, one.workdir):
    pass
  return all(
    (steps_done(one.workdir, name) or 0) >= one.config.train[name].steps
    for name in one.config.stages
  )


def _share(workdir: pathlib.Path, one: Run) -> None:
  """Copies the stages of config.ablation.shared from another variant's finished run.

  They are the same for every variant of a seed, bit for bit, so that training them once suffices.
  """
  for name in one.config.ablation.shared:
    target, steps = one.workdir / name, one.config.train[name].steps
    for source in sorted(workdir.glob(f"*/seed_{one.seed}/{name}")):
      if target.exists() or (steps_done(source.parent, name) or 0) != steps:
        continue
      with train.claimed(one.config, one.workdir):
        half = target.with_name(f".{name}")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half)
        half.replace(target)
      logging.info("Stage %s is copied from %s.", name, source.parent)


def compare(
  figures: Mapping[str, Mapping[int, Figures]], scorer: Scorer, runs: Sequence[Run]
) -> dict[str, Any]:
  """Computes the means of every variant, and paired differences to the reference.

  Args:
    figures: variant -> seed -> figures from `scorer`.
    scorer: scorer of all runs.
    runs: all planned runs.
  """
  configs = {run.variant: run.config for run in runs}
  reference = runs[0].config.ablation.reference
  rows: dict[str, Any] = {}
  for name, seeds in figures.items():
    common = sorted(seeds.keys() & figures.get(reference, {}).keys())
    row: dict[str, Any] = {"seeds": sorted(seeds), "mean": {}, "by_seed": {}, "difference": {}}
    row["updates"] = systems.of(configs[name]).updates(configs[name])
    row["steps"] = {stage: configs[name].train[stage].steps for stage in configs[name].stages}
    row["sample"] = configs[name].sample.to_dict()
    for column in _common(seeds.values()):
      means = {seed: float(of[column].mean()) for seed, of in seeds.items()}
      row["by_seed"][column] = means
      row["mean"][column] = float(np.mean(list(means.values())))
      if column in _common(figures[reference][seed] for seed in common if name != reference):
        ours, theirs = (
          np.stack([figures[which][seed][column] for seed in common]) for which in (name, reference)
        )
        mean, error = paired_difference(ours, theirs)
        interval = paired_interval(mean, error, len(common))
        row["difference"][column] = {
          "mean": mean, "standard_error": error, "interval": interval, "seeds": common
        }  # fmt: skip
    rows[name] = row
  return {
    "reference": reference,
    "scored": scorer.settings,
    "about": scorer.about,
    "columns": {name: list(column) for name, column in scorer.columns.items()},
    "variants": rows,
    "code": provenance.code_version(),
  }


def _common(of_seeds: Iterable[Figures]) -> list[str]:
  """Returns the columns that every seed has; score files of earlier versions may lack some."""
  every = list(of_seeds)
  return [column for column in (every or [{}])[0] if all(column in of for of in every)]


def tables(result: dict[str, Any]) -> dict[str, list[tuple[str, ...]]]:
  """Makes the tables: title -> rows, the heading first."""
  rows = result["variants"]
  columns = {
    name: column
    for name, column in result["columns"].items()
    if any(name in row["mean"] for row in rows.values())
  }
  heading = ("variant", "seeds", "updates", *(title for title, _ in columns.values()))
  means, differences = [heading], [heading]
  for name, row in rows.items():
    title, updates = _TITLES.get(name, name), str(row["updates"])
    cells = (
      f"{row['mean'][c]:.{digits}f}" if c in row["mean"] else ""
      for c, (_, digits) in columns.items()
    )
    means.append((title, str(len(row["seeds"])), updates, *cells))
    if found := row["difference"]:
      cells = (_cell(found[c], digits) if c in found else "" for c, (_, digits) in columns.items())
      count = len(next(iter(found.values()))["seeds"])
      differences.append((title, str(count), updates, *cells))
  found = {"Means": means}
  if len(differences) > 1:
    reference = result["reference"]
    found[f"Differences to {_TITLES.get(reference, reference)!r}"] = differences
  return found


def _cell(difference: dict[str, Any], digits: int) -> str:
  mean, ends = f"{difference['mean']:+.{digits}f}", difference["interval"]
  return mean if ends is None else f"{mean} [{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]"


def notes(result: dict[str, Any]) -> str:
  """Explains how to read the tables."""
  trained: dict[str, list[str]] = {}
  for name, row in result["variants"].items():
    steps = ", ".join(f"{count} of {stage}" for stage, count in row["steps"].items())
    as_told = f"{steps}. {score_files.drawn_by(row['sample'])}"
    trained.setdefault(as_told, []).append(_TITLES.get(name, name))
  each = " ".join(f"{', '.join(names)}: {as_told}" for as_told, names in trained.items())
  return (
    f"Iterations of {each} {result['about']} Updates: "
    "optimiser steps; where they differ, so may all figures for that reason alone. Differences are "
    "paired over seeds and, where a figure is of each video, over videos; [low, high]: 95 %, by "
    "Student's t with a degree of freedom fewer than seeds, over both as crossed random factors."
  )


def report(result: dict[str, Any]) -> str:
  """Formats the tables as text."""
  parts = [f"{title}\n{format_table(rows[1:], rows[0])}" for title, rows in tables(result).items()]
  return "\n\n".join([*parts, notes(result)])


def _write(folder: pathlib.Path, result: dict[str, Any]) -> None:
  parts = ["# Ablation", notes(result)]
  for title, rows in tables(result).items():
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    parts += [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
  whole_files.write_text(folder / "ablation.md", "\n\n".join(parts) + "\n")
  whole_files.write_text(folder / "ablation.json", json.dumps(result, indent=2) + "\n")
