"""--mode=export: writes a workdir's averaged weights as a folder to share, with a model card."""

import json
import pathlib
import shutil
from typing import Any

import ml_collections
from absl import flags, logging
from flax import traverse_util

from data.prepare import EMBEDDED
from experiments.export import card, curves
from experiments.scoring import score_files
from experiments.setup import systems
from experiments.setup.errors import UserError
from experiments.workdirs import numbered, provenance
from videodiff_jax import copies, shipped, storage, typed
from videodiff_jax.training import exported, partitioning
from videodiff_jax.training.flops import count_parameters
from videodiff_jax.training.workdir import (
  load_ema,
  newest_meta,
  read_config,
  steps_done,
  write_config,
)
from videodiff_jax.training.writers import read_metrics

_MOST_MB = 20  # size limit of a file of weights in the repository
_KEPT = ("all.gif", "strip.png", "settings.json")  # small files of a folder of samples


def export(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """Makes a folder of a workdir's weights, newest scores and samples, curves, and a card.

  Args:
    workdir: folder of a run whose stages all have a checkpoint.
    config: configuration whose `sample` replaces the run's own in the exported config; or None.
    options: flags; `out` is the folder to make, `notes` a file for `card.read_notes`.

  Raises:
    UserError: --out is missing or exists, the notes have unknown sections, or the run samples with
      weights that are not averaged.
    CheckpointError: a stage has no checkpoint.
  """
  out = _place(workdir, options.out)
  notes = card.read_notes(options.notes and pathlib.Path(options.notes))
  saved = read_config(workdir)
  if config is not None:
    saved.sample = config.sample
  if saved.sample.get("encoder_weights") == "raw":
    raise UserError(
      "config.sample.encoder_weights is 'raw', but only averaged weights are exported: set it to "
      "'ema'."
    )
  # Written under another name and renamed at the end, so that an existing folder is complete.
  remote = storage.is_remote(out)
  half = copies.scratch() / out.name if remote else out.with_name(f".{out.name}.unfinished")
  shutil.rmtree(half, ignore_errors=True)
  half.mkdir(parents=True)
  saved = portable(saved)
  write_config(half, saved)
  if (workdir / "text.npz").is_file():
    shutil.copy(copies.local(workdir / "text.npz"), half)
  manifest, facts = {}, {}
  for name in systems.of(saved).stages.NAMES:
    manifest[name], facts[name] = _stage(saved, workdir, half, name)
    _check_size(out, name, manifest[name]["bytes"])
  logged = curves.curves_of(workdir)
  (half / "curves.json").write_text(json.dumps(logged) + "\n")
  if logged["stages"]:
    curves.plot(logged, half / "curves.png")
  steps = {name: entry["step"] for name, entry in manifest.items()}
  records = _scores(workdir, half, steps)
  pictures = _samples(workdir, half)
  known = [entry for entry in provenance.read(workdir) if provenance.mode_of(entry) == "train"]
  text = card.write(out.name, saved, facts, known, records, pictures, notes)
  (half / "README.md").write_text(text)
  exported.write_manifest(half, manifest, provenance.code_version())
  rest = sum(f.stat().st_size for f in half.rglob("*") if f.suffix != ".safetensors") / 1e6
  if remote:
    copies.send(half, out, last=exported.MANIFEST)
  else:
    half.rename(out)
  sizes = ", ".join(f"{name} {entry['bytes'] / 1e6:.2f} MB" for name, entry in manifest.items())
  logging.info("Exported to %s: weights %s; other files %.2f MB.", out, sizes, rest)
  for line in text.splitlines():
    if line.startswith(card.OPEN):
      logging.warning("README.md still needs: %s", line.removeprefix(card.OPEN).strip())


def portable(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns a copy without paths of this machine; an embedded data set prepares itself again."""
  flat = traverse_util.flatten_dict(json.loads(config.to_json()), sep=".", keep_empty_nodes=True)
  for key, value in flat.items():
    if isinstance(value, str):
      flat[key] = card.portable_path(value)
  if flat["data.name"] in EMBEDDED:
    flat["data.dir"] = ""
  return ml_collections.ConfigDict(traverse_util.unflatten_dict(flat, sep="."))


def _place(workdir: pathlib.Path, out: str | None) -> pathlib.Path:
  if out is None:
    raise UserError("--mode=export needs --out=DIR, such as --out=experiments/pretrained/NAME.")
  if exported.is_exported(workdir):
    raise UserError(f"{workdir} is an exported folder already: copy it, or export its workdir.")
  place = typed.path(out, "--out").absolute()
  if place.exists():
    raise UserError(f"{place} exists already and is not overwritten: give another --out.")
  return place


def _check_size(out: pathlib.Path, name: str, size: int) -> None:
  if out.parent == shipped.FOLDER and size > _MOST_MB * 1e6:
    raise UserError(
      f"Stage {name!r} takes {size / 1e6:.1f} MB, but a file in experiments/pretrained may have at "
      f"most {_MOST_MB}: train smaller networks, or export to another folder."
    )


def _stage(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, half: pathlib.Path, name: str
) -> tuple[dict[str, Any], card.StageFacts]:
  """Writes a stage's weights; returns its entry in the manifest and its facts for the card."""
  stage = systems.of(config).stages.make_stage(config, name)
  ema = load_ema(config, workdir, stage, partitioning.make_mesh())
  step, meta = steps_done(workdir, name), newest_meta(workdir, name)
  assert step is not None and meta is not None  # its weights were just loaded
  entry = exported.write(half, name, step, ema)
  rows = read_metrics(workdir / name / "metrics.jsonl")
  rows = [row for row in rows if row.get("steps_per_s", 0) > 0]
  steps = [row["step"] for row in rows]
  seconds = sum(
    (step - before) / row["steps_per_s"] for row, step, before in zip(rows, steps, [0, *steps])
  )
  return entry, card.StageFacts(
    parameters=count_parameters(ema["ema_params"]),
    megabytes=entry["bytes"] / 1e6,
    step=entry["step"],
    steps=config.train[name].steps,
    seconds=seconds,
    code=meta["code"],
    devices=meta.get("devices", ""),
  )


def _scores(
  workdir: pathlib.Path, half: pathlib.Path, steps: dict[str, int]
) -> dict[str, dict[str, Any]]:
  """Copies the newest score file of each protocol, of the exported steps, with its pictures."""
  newest: dict[str, pathlib.Path] = {}
  every = score_files.records_in(workdir / "evaluations")
  for file, record in every.items():
    if record["settings"].get("steps") != steps:
      logging.warning("%s is left out: it scores other steps than the exported ones.", file)
    else:
      newest[score_files.name_of(record["protocol"])] = file
  records = {}
  for file in newest.values():
    record = every[file]
    if "config" in record:
      kept = portable(ml_collections.ConfigDict(record["config"]))
      record["config"] = json.loads(kept.to_json())
    (half / "evaluations").mkdir(exist_ok=True)
    score_files.save(half / "evaluations" / file.name, record)
    records[f"evaluations/{file.name}"] = record
  return records


def _samples(workdir: pathlib.Path, half: pathlib.Path) -> list[str]:
  """Copies the small files of each mode's newest samples; returns the paths of their GIFs."""
  newest: dict[str, pathlib.Path] = {}
  for folder in numbered.sample_folders(workdir / "samples"):
    newest[folder.name.split("_")[1]] = folder
  pictures = []
  for folder in newest.values():
    place = half / "samples" / folder.name
    place.mkdir(parents=True)
    for name in _KEPT:
      if (folder / name).is_file():
        shutil.copy(copies.local(folder / name), place)
    if (place / "all.gif").is_file():
      pictures.append(f"samples/{folder.name}/all.gif")
  return pictures
