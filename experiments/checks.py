"""What can be told wrong about a run before anything is compiled: one clear error each."""

import json
import pathlib

import jax
import ml_collections

from data.prepare import EMBEDDED, REMOVED
from experiments import systems
from experiments.errors import UserError, choice, positive, told
from videodiff_jax import typed
from videodiff_jax.inputs.clips import SAMPLINGS
from videodiff_jax.inputs.frame_store import FrameStore, StoreError
from videodiff_jax.inputs.video_io import VideoError
from videodiff_jax.training import optimizers, partitioning
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.hosts import HostError
from videodiff_jax.training.loop import NonFiniteLossError

__all__ = ["UserError", "told"]  # where the other modes take them from

# Keys that may differ between a workdir's config.json and the run that goes on in it.
_MAY_CHANGE = (
  "ablation", "after", "checksums", "evaluate", "expected", "mesh", "precision", "remat", "sample",
  "stages", "sweep"
)  # fmt: skip
_MAY_CHANGE_DATA = ("cache", "dir", "threads")
_MAY_CHANGE_TRAIN = (
  "accumulate", "checkpoint_every", "keep", "log_every", "preview_every", "steps", "validate_every"
)  # fmt: skip


# Keys that are paths, in whichever system has them; '' is none.
_PATHS = (
  "data.dir", "expected", "text.vocabulary", "init.run", "init.kl_vae", "init.unet",
  "init.generator", "init.text_encoder",
)  # fmt: skip


def expected_errors() -> tuple[type[Exception], ...]:
  """Errors of other modules that a person can act on as they stand."""
  files = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)
  return (CheckpointError, HostError, NonFiniteLossError, StoreError, VideoError, *files)


def check_paths(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for a key that is no path of this machine, named by the key."""
  for key in _PATHS:
    group, _, name = key.rpartition(".")
    value = (config.get(group, {}) if group else config).get(name, "")
    if value:
      with told():
        typed.path(value, f"config.{key}")


def check_complete(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for a configuration of somebody's own that lacks keys of its system."""
  missing = _missing(config) if "system" in config else ["system"]
  if missing:
    raise UserError(
      f"--config lacks keys that this code reads: {_few(missing)}. Begin with one of configs/, as "
      "its files do with configs/common.py."
    )


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for values that no network or loop could be made of."""
  choice("system", config.system, tuple(systems.SYSTEMS))
  system, data = systems.of(config), config.data
  names = system.stages.NAMES
  choice("precision", config.precision, ("float32", "bfloat16"))
  choice("remat", config.remat, ("none", "blocks"))
  choice("data.sampling", data.sampling, SAMPLINGS)
  for name in config.stages:
    choice("stages", name, names)
    train = config.train[name]
    choice(f"train.{name}.optimizer.decay", train.optimizer.decay, optimizers.DECAYS)
    for key in ("batch_size", "accumulate", "log_every", "checkpoint_every", "preview_every"):
      if key in train:
        positive(f"train.{name}.{key}", train[key])
    if train.validate_every < 0:
      raise UserError(
        f"config.train.{name}.validate_every is {train.validate_every}; it must be a number of "
        "steps, or 0 to validate nothing."
      )
  if tuple(config.stages) != tuple(n for n in names if n in config.stages):
    raise UserError(f"config.stages must keep the order {', '.join(names)}.")
  for key in ("image_size", "channels", "stride"):
    positive(f"data.{key}", data[key])
  positive("mesh.cpu_devices", config.mesh.cpu_devices)
  if data.num_frames < 2:
    raise UserError(f"config.data.num_frames is {data.num_frames}; a clip has at least 2.")
  system.check(config)


def check_training(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for a mesh or a batch that does not fit the devices, or no data."""
  try:
    mesh = partitioning.make_mesh(config.mesh.data, config.mesh.fsdp)
  except ValueError as error:
    raise UserError(str(error)) from error
  devices = mesh.devices.size
  for name in config.stages:
    batch, accumulate = config.train[name].batch_size, config.train[name].get("accumulate")
    unit = devices * (accumulate or 1)
    if batch % unit:
      times = f" times config.train.{name}.accumulate ({accumulate})" if accumulate else ""
      raise UserError(
        f"config.train.{name}.batch_size ({batch}) must be a multiple of the {devices} "
        f"device(s){times}: for example {-(-batch // unit) * unit}."
      )
  if not config.data.dir and config.data.name not in EMBEDDED:
    raise UserError(
      "config.data.dir is empty. Prepare a store (python -m data.prepare --help) and give its "
      "folder as --config.data.dir=DIR."
    )


def check_removed(dataset: str, folder: str) -> None:
  """Raises UserError where a store is missing that can no longer be prepared."""
  if dataset in REMOVED and not typed.path(folder).is_dir():
    raise UserError(REMOVED[dataset])


def check_store(config: ml_collections.ConfigDict, store: FrameStore) -> None:
  """Raises UserError where the prepared store is not what the configuration describes."""
  data = config.data
  where = f"The store {data.dir or data.name}"
  for name in ("image_size", "channels"):
    if getattr(store, name) != data[name]:
      raise UserError(
        f"{where} has {name} {getattr(store, name)}, but config.data.{name} is {data[name]}. "
        "Prepare another store (python -m data.prepare --help) or change the key."
      )
  if config.get("condition") == "class" and len(store.classes) != data.num_classes:
    raise UserError(
      f"{where} has {len(store.classes)} classes, but config.data.num_classes is "
      f"{data.num_classes}."
    )


def check_saved(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises UserError where a workdir's configuration lacks what is read of every one.

  What came after the first workdirs is there (`training/earlier.py`), so something else is wrong.
  """
  if missing := _missing(config):
    raise UserError(
      f"{workdir}/config.json lacks keys that this code reads: {_few(missing)}. Put the file back "
      "as it was written, or add them with the values that the run had."
    )


def _missing(config: ml_collections.ConfigDict) -> list[str]:
  """Of its system's keys, those that it lacks."""
  choice("system", config.system, tuple(systems.SYSTEMS))
  there, wanted = _flat(config), _flat(systems.of(config).base())
  # What an ablation compares is taken from the configuration that is given with it.
  return [key for key in wanted if key not in there and not key.startswith("ablation.")]


def _few(keys: list[str]) -> str:
  return ", ".join(keys[:10]) + (f" and {len(keys) - 10} more" if keys[10:] else "")


def check_same_run(
  saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
  """Raises UserError where model, data, diffusion or loss differ from the workdir's own."""
  before, now = _lasting(saved), _lasting(config)
  different = [
    f"  config.{key}: {before.get(key, 'absent')} there, {now.get(key, 'absent')} now"
    for key in sorted(before.keys() | now.keys())
    if before.get(key) != now.get(key)
  ]
  if different:
    raise UserError(
      f"{workdir} holds a run of another configuration:\n" + "\n".join(different[:10]) + "\n"
      "Use another --workdir, or give the same values. Steps, mesh, sampling, evaluation and "
      "logging may change."
    )


def _lasting(config: ml_collections.ConfigDict) -> dict[str, str]:
  """Of `_flat`, every key that must stay as it is over the life of a workdir."""
  skipped = {*_MAY_CHANGE, *(f"data.{key}" for key in _MAY_CHANGE_DATA)}
  for stage in config.train:
    skipped |= {f"train.{stage}.{key}" for key in _MAY_CHANGE_TRAIN}
  return {
    key: value
    for key, value in _flat(config).items()
    if key not in skipped and key.split(".")[0] not in skipped
  }


def _flat(config: ml_collections.ConfigDict) -> dict[str, str]:
  """'a.b.c' -> JSON of the value."""
  flat: dict[str, str] = {}

  def add(prefix: str, tree: dict) -> None:
    for key, value in tree.items():
      if isinstance(value, dict):
        add(f"{prefix}{key}.", value)
      else:
        flat[prefix + key] = json.dumps(value)

  add("", json.loads(config.to_json()))
  return flat


def local_devices() -> str:
  """For tables: how many devices of what kind, over how many hosts."""
  devices = jax.devices()
  hosts = f" over {jax.process_count()} hosts" if jax.process_count() > 1 else ""
  return f"{len(devices)} x {devices[0].device_kind}{hosts}"
