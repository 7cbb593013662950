"""--mode=evaluate --table=NAME: a paper's table with our figures beside the paper's.

A workdir fills the rows whose configuration it was trained with, by the protocols of papers.py. It
samples by its own settings, except those that a row is about; so a converted release checkpoint
samples as its authors' code does. Earlier evaluations of the same kind are reused.
"""

import dataclasses
import functools
import importlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import logging

from experiments.scoring import lgcvd_prediction, score_files
from experiments.setup import checks, systems
from experiments.tables.papers import SPEED, TABLES, Measure, Table
from videodiff_jax.choices import check_choice
from videodiff_jax.metrics.protocols import PredictionProtocol
from videodiff_jax.metrics.registry import REGISTRY, NamedProtocol
from videodiff_jax.training.workdir import read_config
from videodiff_jax.training.writers import format_table

_SMOKE = "smoke"
_NOT_RUN = "not run"
Records = dict[Measure, dict[str, Any]]
# Protocol -> features of the sets scored so far; the real and trivial sets occur again.
Seen = dict[str, lgcvd_prediction.Features]


def run(name: str, workdirs: Sequence[pathlib.Path]) -> str:
  """Evaluates the rows that the workdirs can fill and returns the table.

  Args:
    name: name of a table. With ':smoke' the same code scores a few clips of runs of ':smoke'
      configurations; these figures mean nothing.
    workdirs: folders of trained runs, in any order; without any, only the paper is shown.

  Raises:
    UserError: there is no such table, a workdir fills none of its rows, or two fill the same row.
  """
  table, smoke = find(name)
  configs = {m.config: load(m.config, smoke) for row in table.rows for m in row.ours}
  runs = assign(name, configs, workdirs)
  records: Records = {}
  seen: Seen = {}
  for measure in [m for row in table.rows for m in row.ours if m.config in runs]:
    workdir = runs[measure.config]
    logging.info("%s by %s, %s", workdir, measure.protocol, dict(measure.sample) or "as configured")
    records[measure] = _evaluate(workdir, measure, smoke, seen)
  own = {
    config: _own_sampling(read_config(workdir), configs[config]) for config, workdir in runs.items()
  }
  return report(table, runs, records, smoke, own)


def find(name: str) -> tuple[Table, bool]:
  """Returns the table of a name, and whether ':smoke' was added to the name."""
  table, _, variant = name.partition(":")
  if table == SPEED:
    raise checks.UserError(f"--table={SPEED} shows time and memory: give it to --mode=benchmark.")
  with checks.as_user_error():
    check_choice("table", table, [*TABLES, SPEED])
  if variant not in ("", _SMOKE):
    raise checks.UserError(f"No variant {variant!r} of a table; the only one is {_SMOKE!r}.")
  return TABLES[table], variant == _SMOKE


def load(name: str, smoke: bool = False) -> ml_collections.ConfigDict:
  """Loads the configuration of 'file:variants'."""
  file, _, variants = name.partition(":")
  config = importlib.import_module(f"configs.{file}")
  return config.get_config(f"{variants},{_SMOKE}" if smoke else variants)


def identity(config: ml_collections.ConfigDict) -> dict[str, str]:
  """Returns the values that decide which row a run fills: key -> JSON."""
  system = systems.of(config)
  found = {
    key: functools.reduce(lambda tree, part: tree[part], key.split("."), config)
    for key in system.identity
  }
  if "table_identity" in system.hooks:
    found |= system.hook("table_identity")(config)
  return {"system": config.system} | {key: json.dumps(value) for key, value in found.items()}


def glober_identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns derived values that decide which row a run of GLOBER fills."""
  own = config.condition == "class" or (
    config.condition == "text" and config.text.source != "prompt"
  )
  return {
    "condition": "each video's own" if own else "none, or one for all",
    "loss.lambda_cra > 0": config.loss.lambda_cra > 0,
  }


def assign(
  name: str,
  configs: dict[str, ml_collections.ConfigDict],
  workdirs: Sequence[pathlib.Path],
) -> dict[str, pathlib.Path]:
  """Matches workdirs to rows: name of a configuration -> the workdir trained with it."""
  saved = {workdir: read_config(workdir) for workdir in workdirs}
  for workdir, values in saved.items():
    checks.check_saved(values, workdir)
  runs = {workdir: identity(values) for workdir, values in saved.items()}
  wanted = {config: identity(values) for config, values in configs.items()}
  found: dict[str, pathlib.Path] = {}
  for workdir, of in runs.items():
    fitting = [config for config, values in wanted.items() if values == of]
    if not fitting:
      raise checks.UserError(f"{workdir} fills no row of table {name}:\n" + _apart(of, wanted))
    for config in fitting:
      if config in found:
        raise checks.UserError(
          f"{found[config]} and {workdir} were both trained with {config}: give one."
        )
      found[config] = workdir
  return found


def _apart(of: dict[str, str], wanted: dict[str, dict[str, str]]) -> str:
  """Lists, a line per configuration, how the run differs from it."""
  lines = []
  for config, values in wanted.items():
    differ = [key for key in values if values[key] != of.get(key)]
    values_of_run = ", ".join(f"{key} {of.get(key, 'absent')}, not {values[key]}" for key in differ)
    lines.append(f"  {config}: it has {values_of_run}")
  return "\n".join(lines)


def _own_sampling(saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict) -> list[str]:
  """Lists where a run's sampling differs from the row's, such as 'encoder_weights raw, not ema'."""
  given = json.loads(config.to_json())["sample"]
  own = json.loads(saved.to_json())["sample"]
  return [f"{key} {own[key]}, not {value}" for key, value in given.items() if own[key] != value]


def _evaluate(workdir: pathlib.Path, measure: Measure, smoke: bool, seen: Seen) -> dict[str, Any]:
  config = read_config(workdir)
  config.sample.update(dict(measure.sample))
  protocol = REGISTRY.find(measure.protocol)
  if smoke:
    protocol = _few(protocol)
  if isinstance(protocol, PredictionProtocol):
    features = seen.setdefault(protocol.name, lgcvd_prediction.features_of(protocol))
    return lgcvd_prediction.evaluate(workdir, config, protocol, features, reuse=True)
  return systems.of(config).hook("clip_protocols")(workdir, config, protocol, reuse=True)


def _few(protocol: NamedProtocol) -> NamedProtocol:
  """Returns the protocol with a few clips, which only tests that the code runs."""
  few: dict[str, Any]
  if isinstance(protocol, PredictionProtocol):
    few = {"num_videos": 2, "trajectories": 2, "sampler_steps": 2, "best": "video"}
    few["lpips_required"] = False
  else:
    few = {"num_real": 2, "num_drawn": 2}
  name = f"{protocol.name}_{_SMOKE}"
  return dataclasses.replace(protocol, name=name, about="Its figures mean nothing.", **few)


def report(
  table: Table,
  runs: dict[str, pathlib.Path],
  records: Records,
  smoke: bool,
  own: dict[str, list[str]],
) -> str:
  """Formats the table; `own` has `_own_sampling` of each configuration's run."""
  rows = []
  for row in table.rows:
    measured = zip(row.ours, row.paper)
    ours = [_cell(one, records, "±" in text) for one, text in measured] or [""] * len(row.paper)
    cells = [cell for pair in zip(row.paper, ours, strict=True) for cell in pair]
    rows.append((row.name, *cells))
  heading = ("", *(text for column in table.columns for text in (column, "here")))
  parts = [table.title, format_table(rows, heading), *table.notes, _legend(table, runs, own)]
  if records:
    parts.append("[low, high]: 95 % over the choice of videos, not over training.")
  if smoke:
    parts.append("':smoke': the figures here mean nothing.")
  return "\n\n".join(parts)


def _cell(measure: Measure, records: Records, with_deviation: bool) -> str:
  """Formats a figure of ours, with its deviation if the paper prints one."""
  if measure not in records:
    return _NOT_RUN
  group, *names = measure.score.split(".")
  figures, ends = (records[measure][kind][group] for kind in ("scores", "intervals"))
  deviations = records[measure].get("deviations", {}).get(group)
  for name in names:
    figures, ends, deviations = ((tree or {}).get(name) for tree in (figures, ends, deviations))
    if figures is None:
      return "left out"
  return score_files.cell(figures, ends, deviations if with_deviation else None)


def _legend(table: Table, runs: dict[str, pathlib.Path], own: dict[str, list[str]]) -> str:
  """Describes the run and protocol of each figure of ours."""
  used: dict[str, tuple[list[str], list[str]]] = {}
  for row in table.rows:
    for measure in row.ours:
      for known, name in zip(
        used.setdefault(measure.config, ([], [])), (row.name, measure.protocol)
      ):
        if name not in known:
          known.append(name)
  lines = []
  for config, (names, protocols) in used.items():
    file, _, variants = config.partition(":")
    path = f"configs/{file}.py" + (f":{variants}" if variants else "")
    source = f"{path}, {' and '.join(protocols)}: {runs.get(config, _NOT_RUN)}"
    lines.append(f"  {'; '.join(names)}\n    {source}")
    if differ := own.get(config):
      lines.append(f"    sampled as the run says: {'; '.join(differ)}")
  return "Here, by --config, protocol and workdir:\n" + "\n".join(lines)
