"""Score files: what stands in every one, and --mode=compare, which sets like beside like.

A score file is the JSON of one evaluation:
  protocol: its name and settings.
  scores: figures by name, in groups.
  intervals: [low, high] of those that have one, grouped alike (see metrics/resampling.py).
  deviations: of the best of several trajectories, the standard deviation over what they are the
    mean of, grouped alike.
  settings: what else moves a figure: data set (by the hash of its manifest), detectors (by their
    files' hashes), crop, codec, seeds; and the model's own: `sample`, the steps of its weights.
  config: the configuration of the run. versions: of the libraries it was computed with.
"""

import dataclasses
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
from videodiff_jax import text_files, whole_files
from videodiff_jax.inputs import video_io
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics.clip_protocols import ClipProtocol
from videodiff_jax.metrics.protocols import Protocol
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.training.workdir import steps_done
from videodiff_jax.training.writers import format_table

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "scipy", "pillow")
# What may differ between comparable files: the model, not how it is measured.
_OF_THE_MODEL = ("sample", "steps", "code", "weights")
# Of figures that were added to named protocols: a file without these settings has no such figure.
_ADDED = tuple(f"settings.{name}" for name in set_scores.SETTINGS)
_MOST_NAMED = 12
_FEW_STEPS = 4


def provenance(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The entries `config` and `versions`."""
  versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
  versions["python"] = platform.python_version()
  return {"config": json.loads(config.to_json()), "versions": versions}


def settings(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, store: FrameStore
) -> dict[str, Any]:
  """What moves a figure beside the protocol: the data, the detector, and the model's own."""
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
  """The samplers of a `config.sample` in words; what few steps draw is named a mean."""
  told = []
  for name, sampler in sample.items():
    if not isinstance(sampler, Mapping):
      continue
    steps = int(np.sum(sampler["num_steps"]))
    mean = f": {'a' if steps == 1 else 'nearly a'} conditional mean, not a sample"
    about = f"{sampler['kind']}, {steps} steps, grid {sampler['grid']!r}"
    told.append(f"{name} {about}{mean if steps <= _FEW_STEPS else ''}")
  return f"Drawn by {'; '.join(told)}."


def write(
  folder: pathlib.Path,
  record: dict[str, Any],
  sets: Mapping[str, np.ndarray],
  curves: Callable[[pathlib.Path], None] | None = None,
) -> pathlib.Path:
  """NAME.json of the protocol's name, last of all, with NAME.png (a strip) and NAME.gif.

  Args:
    folder: made where it is not there; earlier files in it are kept.
    record: what the file holds.
    sets: clips (n, f, h, w, c) uint8 to show one above the other, by what they are; as many of
      each as the smallest set has.
    curves: draws NAME_curves.png.

  Returns:
    The JSON file.
  """
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
  """Whole or not at all: an evaluation that is there is one that was finished."""
  whole_files.write_text(file, json.dumps(record, indent=2) + "\n")


def find(
  folder: pathlib.Path, protocol: Protocol | ClipProtocol | str, settings: dict[str, Any]
) -> dict[str, Any] | None:
  """The newest record of the same protocol and settings; another version of the code may differ."""
  as_written = with_defaults(
    protocol if isinstance(protocol, str) else dataclasses.asdict(protocol)
  )
  wanted, same = json.loads(json.dumps([as_written, settings | {"code": None}]))
  for record in reversed(records_in(folder).values()):
    found = {name: record["settings"].get(name) for name in same} | {"code": None}
    if [with_defaults(record["protocol"]), found] == [wanted, same]:
      return record
  return None


def records_in(folder: pathlib.Path) -> dict[pathlib.Path, dict[str, Any]]:
  """The score files of a folder, oldest first; other JSON that lies there is named and left out."""
  found = {}
  for file in folder.glob("*.json"):
    try:
      found[file] = (file.stat().st_mtime_ns, read(file))
    except (OSError, checks.UserError) as error:
      logging.warning("%s is left out: %s", file, error)
  return {file: record for file, (_, record) in sorted(found.items(), key=lambda one: one[1][0])}


def compare(files: Sequence[str]) -> str:
  """A table with a column a file.

  Raises:
    UserError: fewer than two files, no score file, or unlike measurements; names what differs.
  """
  if len(files) < 2:
    raise checks.UserError("--mode=compare needs two score files or more: A.json B.json ...")
  records = [read(pathlib.Path(file)) for file in files]
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
  """A score file; UserError where it is none."""
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
  """'protocol.num_videos' -> JSON of every setting that must be alike."""
  settings = {k: v for k, v in record["settings"].items() if k not in _OF_THE_MODEL}
  flat = _flat({"protocol": with_defaults(record["protocol"]), "settings": settings})
  return {name: json.dumps(value) for name, value in flat.items()}


def with_defaults(protocol: str | dict[str, Any]) -> dict[str, Any]:
  """A written protocol without its prose, with the settings that were added since."""
  if isinstance(protocol, str):
    return {"name": protocol}
  kind = ClipProtocol if "drawn" in protocol else Protocol
  defaults = {
    name: json.loads(json.dumps(field.default))  # as it is written
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
  lines = [
    f"  {name}: {a.get(name, 'not given')} and {b.get(name, 'not given')}"
    for name in names[:_MOST_NAMED]
  ]
  if len(names) > _MOST_NAMED:
    lines.append(f"  and {len(names) - _MOST_NAMED} more")
  raise checks.UserError(
    f"{file_a} and {file_b} were not measured alike, so their figures cannot be compared:\n"
    + "\n".join(lines)
    + "\nEvaluate both runs by one --protocol on one data set."
  )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def name_of(protocol: str | dict[str, Any]) -> str:
  """A protocol's name as a score file has it: alone, or among its settings."""
  return protocol if isinstance(protocol, str) else protocol["name"]


def _steps(record: dict[str, Any]) -> str:
  steps = record["settings"].get("steps", {})
  return ", ".join(f"{name} {count}" for name, count in steps.items()) or "not given"


def cell(value: float | None, ends: list[float] | None, deviation: float | None = None) -> str:
  """A figure, the standard deviation of what it is the mean of, its interval; '' without one."""
  if value is None:
    return ""
  spread = f" ± {deviation:.2g}" if deviation is not None else ""
  interval = f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else ""
  return f"{value:.4g}{spread}{interval}"
