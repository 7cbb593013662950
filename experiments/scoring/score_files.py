"""Score files: their common content, and --mode=compare, which shows comparable ones side by side.

A score file is the JSON of one evaluation:
  protocol: name and settings of the protocol.
  scores: figures by name, in groups.
  intervals: [low, high] of figures that have an interval, in the same groups (see
    metrics/resampling.py).
  deviations: standard deviation of each figure that is a mean over best trajectories, in the same
    groups.
  settings: everything else that changes a figure: data set (by the hash of its manifest),
    detectors (by their files' hashes), crop, codec, seeds; and the model's own: `sample`, the steps
    of its weights.
  config: configuration of the run.
  versions: versions of the libraries in use.
"""

import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments.measures import set_scores
from experiments.setup import checks
from experiments.workdirs import numbered
from experiments.workdirs.provenance import code_version
from videodiff_jax import storage, text_files, whole_files
from videodiff_jax.choices import summarise
from videodiff_jax.inputs import video_io
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics.clip_protocols import ClipProtocol
from videodiff_jax.metrics.protocols import PredictionProtocol
from videodiff_jax.metrics.registry import NamedProtocol
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.training import hosts
from videodiff_jax.training.workdir import steps_done
from videodiff_jax.training.writers import format_table

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "scipy", "pillow")
# Settings that may differ between comparable files: those of the model, not of the measurement.
_OF_THE_MODEL = ("sample", "steps", "code", "weights")
# Settings of figures that were added later; a file without these settings lacks the figures.
_ADDED = tuple(f"settings.{name}" for name in set_scores.SETTINGS)
_FEW_STEPS = 4


def provenance(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the entries `config` and `versions`."""
  versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
  versions["python"] = platform.python_version()
  return {"config": json.loads(config.to_json()), "versions": versions}


def settings(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, store: FrameStore
) -> dict[str, Any]:
  """Returns the settings that change a figure beside the protocol: data, detector and model."""
  data = config.data
  return {
    "data": data.name,
    "stride": data.stride,
    "image_size": data.image_size,
    "crop": "centre square",
    "range": "uint8",
    "codec": store.codec,
    "data_fingerprint": store.fingerprint,
    "detector_sha256": i3d_weights.WEIGHTS.sha256,
    "sample": config.sample.to_dict(),
    "steps": {name: steps_done(workdir, name) for name in config.stages},
    "code": code_version(),
  }


def drawn_by(sample: Mapping[str, Any]) -> str:
  """Describes the samplers of a `config.sample`; with few steps, samples are called means."""
  described = []
  for name, sampler in sample.items():
    if not isinstance(sampler, Mapping):
      continue
    steps = int(np.sum(sampler["num_steps"]))
    mean = f": {'a' if steps == 1 else 'nearly a'} conditional mean, not a sample"
    about = f"{sampler['kind']}, {steps} steps, grid {sampler['grid']!r}"
    described.append(f"{name} {about}{mean if steps <= _FEW_STEPS else ''}")
  return f"Drawn by {'; '.join(described)}."


def write(
  folder: pathlib.Path,
  record: dict[str, Any],
  sets: Mapping[str, np.ndarray],
  curves: Callable[[pathlib.Path], None] | None = None,
) -> pathlib.Path:
  """Writes NAME.png (a strip), NAME.gif and, last, NAME.json; NAME is the protocol's.

  Of several hosts, the first writes them.

  Args:
    folder: folder of the files, made if missing; earlier files in it are kept.
    record: content of the JSON file.
    sets: name -> clips (n, f, h, w, c) uint8 to show one above the other; as many of each as the
      smallest set has.
    curves: function that draws NAME_curves.png; None draws none.

  Returns:
    The path of the JSON file.
  """
  return storage.path(hosts.decide(lambda: str(_write(folder, record, sets, curves))))


def _write(
  folder: pathlib.Path,
  record: dict[str, Any],
  sets: Mapping[str, np.ndarray],
  curves: Callable[[pathlib.Path], None] | None,
) -> pathlib.Path:
  name = name_of(record["protocol"])
  count = min(map(len, sets.values()))
  rows = {f"{what} {i}": clips[i] for i in range(count) for what, clips in sets.items()}
  names = (f"{name}.json", f"{name}.png", f"{name}.gif", f"{name}_curves.png")
  with numbered.files(folder, *names) as (file, strip, gif, plot):
    video_io.write_strip(strip, rows)
    video_io.write_gif(gif, video_io.mosaic(clips[:count] for clips in sets.values()))
    if curves is not None:
      curves(plot)
    save(file, record)
  return folder / file.name


def save(file: pathlib.Path, record: dict[str, Any]) -> None:
  """Writes a record atomically, so that an existing file is a finished evaluation."""
  whole_files.write_text(file, json.dumps(record, indent=2) + "\n")


def find(
  folder: pathlib.Path, protocol: NamedProtocol, settings: dict[str, Any]
) -> dict[str, Any] | None:
  """Finds the newest record of the same protocol and settings; the code's version may differ."""
  written = with_defaults(protocol.written())
  wanted, same = json.loads(json.dumps([written, settings | {"code": None}]))
  for record in reversed(records_in(folder).values()):
    found = {name: record["settings"].get(name) for name in same} | {"code": None}
    if [with_defaults(record["protocol"]), found] == [wanted, same]:
      return record
  return None


def records_in(folder: pathlib.Path) -> dict[pathlib.Path, dict[str, Any]]:
  """Reads the score files of a folder, oldest first; skips other JSON files with a warning."""
  found = {}
  for file in folder.glob("*.json"):
    try:
      found[file] = (file.stat().st_mtime_ns, read(file))
    except (OSError, checks.UserError) as error:
      logging.warning("%s is skipped: %s", file, error)
  return {file: record for file, (_, record) in sorted(found.items(), key=lambda one: one[1][0])}


def compare(files: Sequence[str]) -> str:
  """Makes a table with a column for each file.

  Raises:
    UserError: fewer than two files; a file is no score file; or they were not measured alike (the
      message names the differences).
  """
  if len(files) < 2:
    raise checks.UserError("--mode=compare needs two score files or more: A.json B.json ...")
  records = [read(storage.path(file)) for file in files]
  first = measured(records[0])
  for file, record in zip(files[1:], records[1:]):
    _refuse_unlike(first, measured(record), files[0], file)
  flat = [_flat(record["scores"]) for record in records]
  intervals = [_flat(record.get("intervals", {})) for record in records]
  letters = [chr(ord("A") + i) if len(files) <= 26 else str(i + 1) for i in range(len(files))]
  rows = []
  for name in dict.fromkeys(name for scores in flat for name in scores):
    cells = [cell(scores.get(name), ends.get(name)) for scores, ends in zip(flat, intervals)]
    rows.append((name.replace(".", " / "), *cells))
  legend = [
    f"{letter}: {file} (steps {_steps(record)}, code {record['settings'].get('code')})"
    for letter, file, record in zip(letters, files, records)
  ]
  heading = f"protocol {name_of(records[0]['protocol'])!r}"
  parts = [*legend, "", format_table(rows, (heading, *letters))]
  if any(intervals):
    parts += ["", "[low, high]: 95 % over the choice of videos, not over training."]
  return "\n".join(parts)


def read(file: pathlib.Path) -> dict[str, Any]:
  """Reads a score file; raises UserError for any other file."""
  try:
    record = text_files.read_json(file)
    for key, kinds in (("protocol", (str, dict)), ("scores", dict), ("settings", dict)):
      if not isinstance(record[key], kinds):
        raise TypeError(f"{key!r} is of the wrong kind")
    name_of(record["protocol"])
    figures = [*_flat(record["scores"]).values(), *_flat(record.get("deviations", {})).values()]
    figures += [x for low, high in _flat(record.get("intervals", {})).values() for x in (low, high)]
    if not all(isinstance(x, int | float) for x in figures):
      raise TypeError("a figure is no number")
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise checks.UserError(f"{file} is no score file ({error!r}).") from error
  return record


def measured(record: dict[str, Any]) -> dict[str, str]:
  """Returns every setting that must be alike, as 'protocol.num_videos' -> JSON."""
  settings = {k: v for k, v in record["settings"].items() if k not in _OF_THE_MODEL}
  flat = _flat({"protocol": with_defaults(record["protocol"]), "settings": settings})
  return {name: json.dumps(value) for name, value in flat.items()}


def with_defaults(protocol: str | dict[str, Any]) -> dict[str, Any]:
  """Returns a written protocol without its prose; settings added later get their defaults."""
  if isinstance(protocol, str):
    return {"name": protocol}
  kind = ClipProtocol if "drawn" in protocol else PredictionProtocol
  defaults = {
    name: json.loads(json.dumps(field.default))  # in the form that the file has
    for name, field in kind.__dataclass_fields__.items()
    if name not in ("name", "about")
  }
  given = {name: value for name, value in protocol.items() if name != "about"}
  return {"name": given["name"]} | defaults | given


def _refuse_unlike(a: dict[str, str], b: dict[str, str], file_a: str, file_b: str) -> None:
  names = [
    name
    for name in a | b
    if a.get(name) != b.get(name) and not (name in _ADDED and (name not in a or name not in b))
  ]
  if not names:
    return
  lines = [f"{name}: {a.get(name, 'not given')} and {b.get(name, 'not given')}" for name in names]
  raise checks.UserError(
    f"{file_a} and {file_b} were not measured alike, so their figures cannot be compared:\n  "
    + summarise(lines, most=12, separator="\n  ")
    + "\nEvaluate both runs by one --protocol on one data set."
  )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def name_of(protocol: str | dict[str, Any]) -> str:
  """Returns the name of a score file's protocol, which is a name alone or a dict of settings."""
  return protocol if isinstance(protocol, str) else protocol["name"]


def _steps(record: dict[str, Any]) -> str:
  steps = record["settings"].get("steps", {})
  return ", ".join(f"{name} {count}" for name, count in steps.items()) or "not given"


def cell(value: float | None, ends: list[float] | None, deviation: float | None = None) -> str:
  """Formats a figure with its standard deviation and interval; '' without a figure."""
  if value is None:
    return ""
  spread = f" ± {deviation:.2g}" if deviation is not None else ""
  interval = f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else ""
  return f"{value:.4g}{spread}{interval}"
