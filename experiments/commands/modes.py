"""Which flags and --config keys each mode reads; anything that a mode would ignore is refused."""

from collections.abc import Collection, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from experiments.benchmarks import flags as of_benchmarks
from experiments.commands import flags as of_all
from experiments.commands.mode_table import MODES
from experiments.compiled import flags as of_compiled
from experiments.export import flags as of_export
from experiments.sampling import flags as of_sampling
from experiments.scoring import flags as of_scoring
from experiments.setup.errors import UserError
from experiments.train import flags as of_train

# Flag -> the modes that read it, from every room's flags.py; flags of all modes come first.
ROOMS = tuple(
  room.READ_BY
  for room in (of_all, of_train, of_compiled, of_sampling, of_scoring, of_export, of_benchmarks)
)
READ_BY: dict[str, tuple[str, ...]] = {
  name: tuple(mode for mode in MODES if mode in of_room[name])
  for of_room in ROOMS
  for name in of_room
}
# Mode -> groups of --config that it reads beside a workdir's own configuration. Modes that resume
# the run are not listed: they compare all keys.
_GROUPS = {"evaluate": ("sample", "evaluate"), "sweep": ("sample", "evaluate", "sweep")}
_GROUPS |= dict.fromkeys(
  ("sample", "redraw", "reconstruct", "predict", "interpolate", "export"), ("sample",)
)


def check_flags(mode: str, after: Sequence[str] = ()) -> None:
  """Raises UserError if a flag was given that neither the mode nor a mode `after` it reads."""
  for name, modes in READ_BY.items():
    if flags.FLAGS[name].present and not {mode, *after} & set(modes):
      others = ", ".join(f"--mode={other}" for other in modes)
      raise UserError(f"--{name} is not supported by --mode={mode}; remove it. It is for {others}.")


def check_system(system: str) -> None:
  """Raises UserError if a flag was given that only another system reads."""
  from experiments.setup import systems  # imported late: --help answers at once

  own = systems.by_name(system).flags
  others = [name for other in systems.names() for name in systems.by_name(other).flags]
  if given := [name for name in others if name not in own and flags.FLAGS[name].present]:
    raise UserError(f"--{given[0]} is not supported by system {system!r}; remove it.")


def check_overrides(
  mode: str, given: Collection[str], config: ConfigDict, saved: ConfigDict
) -> None:
  """Raises UserError if a --config key was given that the mode takes from the workdir instead.

  Args:
    mode: mode that reads a workdir.
    given: keys given on the command line, such as 'data.dir' of --config.data.dir=DIR.
    config: configuration with these values.
    saved: the workdir's configuration.
  """
  if mode not in _GROUPS:
    return
  read = (*_GROUPS[mode], "mesh")
  for key in given:
    ours, theirs = (_value(tree, key) for tree in (config, saved))
    if key.split(".")[0] not in read and ours != theirs:
      raise UserError(
        f"--config.{key}={ours} is not supported by --mode={mode}: it uses the value of the run in "
        f"--workdir, {theirs}. This mode accepts keys of "
        f"{', '.join(f'config.{group}' for group in read)}."
      )


def _value(config: ConfigDict, key: str) -> object:
  """Returns the value of config.`key`, ignoring an entry's index."""
  value: Any = config
  for name in key.partition("[")[0].split("."):
    value = value[name] if name in value else None
  return value
