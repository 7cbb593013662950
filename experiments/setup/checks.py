"""Checks of a run before anything is compiled; each failure is one clear error."""

import fnmatch
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import ml_collections

from data.prepare import EMBEDDED, REMOVED
from experiments.setup import range_table, ranges, systems
from experiments.setup.errors import UserError, as_user_error, choice
from videodiff_jax import storage, typed
from videodiff_jax.choices import did_you_mean, summarise
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import partitioning

__all__ = ["UserError", "as_user_error"]  # re-exported for the commands

# Keys that may differ between a workdir's config.json and the run that resumes it.
_MAY_CHANGE = (
  "ablation", "after", "checksums", "evaluate", "expected", "mesh", "precision", "profile", "remat",
  "sample", "stages", "sweep"
)  # fmt: skip
_MOST_BATCH = 32e9  # bytes; several are read ahead
_MAY_CHANGE_DATA = ("cache", "dir", "local_dir", "threads")
_MAY_CHANGE_TRAIN = (
  "accumulate", "checkpoint_every", "keep", "log_every", "preview_every", "steps", "validate_every"
)  # fmt: skip


# Keys of either system that hold paths; '' means no path. The first are of this machine alone.
_ON_DISK = ("data.local_dir",)
_PATHS = (
  *_ON_DISK, "data.dir", "expected", "text.vocabulary", "init.run", "init.kl_vae", "init.unet",
  "init.generator", "init.text_encoder",
)  # fmt: skip


def check_paths(config: ml_collections.ConfigDict) -> None:
  """Raises UserError, with the key's name, for a value that is no path, or a bucket not there."""
  for key in _PATHS:
    group, _, name = key.rpartition(".")
    value = (config.get(group, {}) if group else config).get(name, "")
    if value:
      with as_user_error():
        place = typed.path(value, f"config.{key}", on_disk=key in _ON_DISK)
        storage.check(place, f"config.{key}")


def check_given(config: Any) -> None:
  """Raises UserError if --config does not give a valid configuration of a system.

  Adds three checks to `check_config`: the value is a ConfigDict, no key is missing, and no key is
  unknown (for example mistyped).
  """
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"get_config returns a {type(config).__name__}; it must return a ConfigDict, such as base() "
      "of configs/common.py."
    )
  if "system" in config:
    choice("system", config.system, systems.names())
  if missing := _missing(config) if "system" in config else "system":
    raise UserError(
      f"--config lacks keys: {missing}. Start from a file of configs/, as these "
      "start from configs/common.py."
    )
  _check_known(config)
  check_config(config)
  check_paths(config)


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for values from which no network or training loop can be built."""
  choice("system", config.system, systems.names())
  table = systems.of(config).ranges
  ranges.check(table, config)
  for name, changes in config.get("ablation", {}).get("variants", {}).items():
    if "from" not in changes:  # another system's variant is checked when it runs
      ranges.check(table, changes, f"ablation.variants.{name}.")
  schedule = config.get("diffusion", {}).get("schedule", {})
  if "beta_end" in schedule and schedule.beta_start > schedule.beta_end:
    raise UserError(
      f"config.diffusion.schedule.beta_start ({schedule.beta_start}) is above beta_end "
      f"({schedule.beta_end}): noise grows from step to step."
    )
  system = systems.of(config)
  names = system.stages.NAMES
  if tuple(config.stages) != tuple(n for n in names if n in config.stages):
    raise UserError(f"config.stages must keep the order {', '.join(names)}.")
  system.check(config)


def check_training(config: ml_collections.ConfigDict) -> None:
  """Raises UserError if the mesh or a batch does not fit the devices, or no data set is given."""
  try:
    mesh = partitioning.make_mesh(config.mesh.data, config.mesh.fsdp)
  except ValueError as error:
    raise UserError(str(error)) from error
  names = systems.of(config).stages.NAMES
  if missing := [name for name in names[: len(config.stages)] if name not in config.stages]:
    raise UserError(
      f"config.stages is {tuple(config.stages)}, but these stages need the networks of "
      f"{missing[0]}: add {missing[0]} to config.stages. Finished stages are skipped."
    )
  check_batches(config, config.stages, mesh.devices.size)
  if not config.data.dir and config.data.name not in EMBEDDED:
    raise UserError(
      "config.data.dir is empty. Prepare a store (python -m data.prepare --help) and give its "
      "folder as --config.data.dir=DIR."
    )


def check_following(modes: Sequence[str]) -> None:
  """Raises UserError if a mode after training measures one host, but there are several."""
  if "sweep" in modes and jax.process_count() > 1:
    raise UserError(
      "config.after has 'sweep', which measures one host: remove it from config.after, and run "
      "--mode=sweep on one host after training."
    )


def check_batches(
  config: ml_collections.ConfigDict, names: Iterable[str], devices: int, where: str = ""
) -> None:
  """Raises UserError if a named stage's batch is too large, or does not divide over the devices.

  `where` ends the words 'the 8 device(s)' of the message.
  """
  for name in names:
    batch, accumulate = config.train[name].batch_size, config.train[name].get("accumulate")
    unit = devices * (accumulate or 1)
    if batch % unit:
      times = f" times config.train.{name}.accumulate ({accumulate})" if accumulate else ""
      raise UserError(
        f"config.train.{name}.batch_size ({batch}) must be a multiple of the {devices} "
        f"device(s){where}{times}: for example {-(-batch // unit) * unit}."
      )
    shapes = jax.tree.leaves(systems.of(config).abstract_batch(config, name))
    size = sum(math.prod(one.shape) * one.dtype.itemsize for one in shapes)
    if size > _MOST_BATCH:
      raise UserError(
        f"A batch of stage {name} takes {size / 1e9:.0f} GB; the limit is {_MOST_BATCH / 1e9:.0f}: "
        f"lower config.train.{name}.batch_size, config.data.image_size or num_frames."
      )


def check_removed(dataset: str, folder: str) -> None:
  """Raises UserError if the store is missing and its data set can no longer be prepared."""
  if dataset in REMOVED and not typed.path(folder).is_dir():
    raise UserError(REMOVED[dataset])


def check_store(config: ml_collections.ConfigDict, store: FrameStore) -> None:
  """Raises UserError if the prepared store does not match the configuration."""
  data = config.data
  where = f"The store {data.dir or data.name}"
  for name, flag in (("image_size", "--size"), ("channels", "")):
    stored, asked = getattr(store, name), data[name]
    if stored != asked:
      another = f"Prepare another store ({flag}={asked}), or give" if flag else "Give"
      raise UserError(
        f"{where} has {name} {stored}, but config.data.{name} is {asked}. "
        f"{another} --config.data.{name}={stored}."
      )
  if config.get("condition") == "class" and len(store.classes) != data.num_classes:
    raise UserError(
      f"{where} has {len(store.classes)} classes, but config.data.num_classes is "
      f"{data.num_classes}."
    )


def check_saved(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises UserError if a workdir's configuration has missing or unknown keys or bad values.

  What came after the first workdirs is there (`training/earlier.py`), so something else is wrong.
  """
  if missing := _missing(config):
    raise UserError(
      f"{workdir}/config.json lacks keys: {missing}. Restore the original file, or add "
      "the keys with the values that the run had."
    )
  try:
    _check_known(config)
    ranges.check(systems.of(config).ranges, config)
  except UserError as error:
    raise UserError(f"{workdir}/config.json: {error}") from error


def _check_known(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for a key that nothing reads."""
  known = ranges.flat(systems.of(config).base())
  for key in sorted(ranges.flat(config).keys() - known.keys()):
    if not any(fnmatch.fnmatchcase(key, pattern) for pattern in range_table.OPTIONAL):
      meant = did_you_mean(f"config.{key}", [f"config.{name}" for name in known])
      raise UserError(f"System {config.system!r} has no key config.{key}. {meant or 'Remove it.'}")


def _missing(config: ml_collections.ConfigDict) -> str:
  """Lists up to ten keys of the system that a configuration lacks, for a message; '' if none."""
  there = ranges.flat(config)
  wanted = ranges.flat(systems.of(config).base())
  # An ablation's variants come from the configuration that is given with it.
  missing = [key for key in wanted if key not in there and not key.startswith("ablation.")]
  return summarise(missing, most=10)


def check_same_run(
  saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
  """Raises UserError if model, data, diffusion or loss differ from the workdir's own."""
  before, now = _lasting(saved), _lasting(config)
  different = [
    f"  config.{key}: {before.get(key, 'absent')} there, {now.get(key, 'absent')} now"
    for key in sorted(before.keys() | now.keys())
    if before.get(key) != now.get(key)
  ]
  if different:
    raise UserError(
      f"{workdir} holds a run of another configuration:\n" + "\n".join(different[:10]) + "\n"
      "Use another --workdir, or give the same values. Only steps, mesh, sampling, evaluation and "
      "logging may change."
    )


def _lasting(config: ml_collections.ConfigDict) -> dict[str, str]:
  """Returns the flattened keys that must not change once a workdir exists: 'a.b.c' -> JSON."""
  skipped = {*_MAY_CHANGE, *(f"data.{key}" for key in _MAY_CHANGE_DATA)}
  for stage in config.train:
    skipped |= {f"train.{stage}.{key}" for key in _MAY_CHANGE_TRAIN}
  return {
    key: json.dumps(value)
    for key, value in ranges.flat(config).items()
    if key not in skipped and key.split(".")[0] not in skipped
  }


def local_devices() -> str:
  """Describes the devices for tables: their number and kind, and the number of hosts."""
  devices = jax.devices()
  hosts = f" over {jax.process_count()} hosts" if jax.process_count() > 1 else ""
  return f"{len(devices)} x {devices[0].device_kind}{hosts}"
