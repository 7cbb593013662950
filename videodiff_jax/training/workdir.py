"""Reads and writes workdirs: a config.json and a folder of checkpoints for each stage.

Where averaged weights are enough, an exported folder (exported.py) can replace a workdir.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
from absl import logging
from jax.sharding import Mesh

from videodiff_jax import storage, text_files, typed
from videodiff_jax.choices import check_choice
from videodiff_jax.training import checksums, exported, hosts, migrations
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints
from videodiff_jax.training.loop import abstract_state
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState

# A config.json while it is written; a killed process may leave it behind.
UNFINISHED_CONFIG = "config.json.unfinished"
# The lock of the process that trains in the workdir or runs an ablation there.
LOCK = "lock"


def read_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
  """Reads the configuration of a workdir's run; old ones get the keys that were added later.

  If config.json is missing or damaged, the configuration comes from the newest checkpoint that
  holds one, with a warning.

  Raises:
    CheckpointError: the folder is no workdir, or its config.json is not from a run of this project
      and no checkpoint has one.
  """
  file = typed.path(workdir) / "config.json"
  try:
    saved = text_files.read_json(file)
    migrations.fill(saved)
  except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    if isinstance(error, PermissionError):
      raise
    if (kept := _kept_config(file.parent)) is None:
      if not file.is_file():
        raise CheckpointError(
          f"{workdir} is not a workdir: it has no config.json. Train one first."
        ) from error
      raise CheckpointError(
        f"{file} is not the configuration of a run of {' or '.join(migrations.ADDED)} ({error!r}). "
        "Give the --workdir of a run, or put back the file as it was written."
      ) from error
    folder, saved = kept
    logging.warning("%s is missing or damaged: the configuration is that of %s.", file, folder)
  if (key := _not_finite(saved)) is not None:
    raise CheckpointError(f"{file}: {key} is not finite. Put the file back as it was written.")
  return ml_collections.ConfigDict(saved)


@contextlib.contextmanager
def building(workdir: pathlib.Path) -> Iterator[None]:
  """Wraps code that builds from a workdir's configuration, whose values may be out of range.

  Commands first check every key's range (experiments/setup/range_table.py), and name the key. The
  library knows no ranges, so every error that a value causes deep inside becomes one error here.

  Raises:
    CheckpointError: the block raised it, or another error that a value caused.
  """
  try:
    yield
  except (CheckpointError, OSError, MemoryError, RuntimeError):  # errors of files and the machine
    raise
  except Exception as error:  # flax, jax and numpy raise any kind for a wrong size or name
    first = str(error).partition("\n")[0]
    raise CheckpointError(
      f"{workdir}/config.json: nothing can be built from it ({type(error).__name__}: {first}). "
      f"`python -m experiments.main --mode=sample --workdir={workdir}` names the key whose value "
      "is out of range; put the file back as it was written."
    ) from error


def _not_finite(tree: Any, key: str = "config") -> str | None:
  """Returns the first key of nested dicts and lists whose value is NaN or infinite, or None."""
  if isinstance(tree, float) and not math.isfinite(tree):
    return key
  entries = tree.items() if isinstance(tree, dict) else ()
  if isinstance(tree, (list, tuple)):
    entries = enumerate(tree)
  return next(filter(None, (_not_finite(value, f"{key}.{name}") for name, value in entries)), None)


def holds_run(workdir: pathlib.Path) -> bool:
  """Tells whether a folder has a configuration, in config.json (even damaged) or a checkpoint."""
  return (workdir / "config.json").is_file() or _kept_config(workdir) is not None


def _kept_config(workdir: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]] | None:
  """Returns the newest checkpoint, of any stage, with an intact configuration, and the latter."""
  files = workdir.glob("*/checkpoints/*/meta/metadata")
  for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
    folder = file.parents[1]
    summed = (folder / checksums.NAME).is_file()
    if not folder.name.isdecimal() or (summed and checksums.damage(folder, ("meta",))):
      continue
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
      saved = text_files.read_json(file)["config"]
      migrations.fill(saved)
      return folder, saved
  return None


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
  """Creates `workdir` if needed and writes its config.json atomically."""
  workdir.mkdir(parents=True, exist_ok=True)
  if storage.is_remote(workdir):
    (workdir / "config.json").write_text(config.to_json(indent=2) + "\n")
    return
  unfinished = workdir / UNFINISHED_CONFIG
  with unfinished.open("w") as file:
    file.write(config.to_json(indent=2) + "\n")
    file.flush()
    os.fsync(file.fileno())  # else a power cut could leave an empty file
  os.replace(unfinished, workdir / "config.json")


def with_settings(
  config: ml_collections.FrozenConfigDict, settings: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """Returns a copy with other entries of `config.sample`; a dict replaces single keys of an entry.

  Raises:
    ValueError: an entry does not exist, where the message lists those that do; or a number is not
      finite.
  """
  if (key := _not_finite(dict(settings), "config.sample")) is not None:
    raise ValueError(f"{key} must be a finite number.")
  # Copied through a dict: a ConfigDict made from a frozen one shares the frozen groups.
  config = ml_collections.ConfigDict(config.to_dict())
  for name, value in settings.items():
    check_choice("setting", name, config.sample)
    if isinstance(value, dict):
      config.sample[name].update(value)
    else:
      config.sample[name] = value
  return config


def load_ema(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, stage: Stage, mesh: Mesh
) -> dict[str, Any]:
  """Loads {'ema_params', 'statistics'} of a stage's newest complete checkpoint.

  Raises:
    CheckpointError: there is none.
  """
  return load_ema_as(workdir, stage.name, abstract_state(stage, config.seed, mesh))


def load_ema_as(workdir: pathlib.Path, name: str, target: TrainState) -> dict[str, Any]:
  """Loads as `load_ema`, placed like `target`: a state, or its shapes with shardings."""
  if exported.is_exported(workdir):
    wanted = {"ema_params": target.ema_params, "statistics": target.statistics}
    return exported.read(workdir, name, wanted)
  checkpoints, step = _newest(workdir, name)
  ema = checkpoints.restore_ema(step, target)
  checkpoints.close()
  return ema


def load_state(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, stage: Stage, mesh: Mesh
) -> TrainState:
  """Loads the whole state of a stage's newest complete checkpoint; errors as `load_ema`."""
  checkpoints, step = _newest(workdir, stage.name)
  state = checkpoints.restore(step, abstract_state(stage, config.seed, mesh))
  checkpoints.close()
  return state


def steps_done(workdir: pathlib.Path, name: str) -> int | None:
  """Returns the step of a stage's newest complete checkpoint or export; None if it has none."""
  if hosts.decide(lambda: exported.is_exported(workdir)):
    return hosts.decide(lambda: exported.manifest(workdir)["stages"].get(name, {}).get("step"))
  folder = workdir / name / "checkpoints"
  if not hosts.decide(folder.is_dir):
    return None
  checkpoints = Checkpoints(folder)
  step = checkpoints.latest_step()
  checkpoints.close()
  return step


def newest_meta(workdir: pathlib.Path, name: str) -> dict[str, Any] | None:
  """Returns the JSON dict of a stage's newest complete checkpoint; None where there is none."""
  folder = workdir / name / "checkpoints"
  if not hosts.decide(folder.is_dir):
    return None
  checkpoints = Checkpoints(folder)
  step = checkpoints.latest_step()
  meta = None if step is None else checkpoints.meta(step)
  checkpoints.close()
  return meta


def set_aside_damaged(workdir: pathlib.Path, name: str) -> None:
  """Moves a stage's damaged newest checkpoints into its folder 'damaged', with a warning.

  Raises:
    CheckpointError: there are checkpoints, and all are damaged.
  """
  folder = workdir / name / "checkpoints"
  if hosts.decide(folder.is_dir):
    checkpoints = Checkpoints(folder)
    checkpoints.set_aside_damaged()
    checkpoints.close()


def _newest(workdir: pathlib.Path, name: str) -> tuple[Checkpoints, int]:
  step = steps_done(workdir, name)
  if step is None:
    raise CheckpointError(
      f"Stage {name!r} has no checkpoint in {workdir}. Train it first: --stage={name}."
    )
  return Checkpoints(workdir / name / "checkpoints"), step
