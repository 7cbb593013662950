"""Which flags a mode reads, and which keys of a --config: what it would ignore is refused."""

from collections.abc import Collection, Sequence

from absl import flags
from ml_collections import ConfigDict

from experiments.benchmarks import flags as of_benchmarks
from experiments.commands import flags as of_all
from experiments.commands.mode_table import MODES
from experiments.export import flags as of_export
from experiments.sampling import flags as of_sampling
from experiments.scoring import flags as of_scoring
from experiments.setup.errors import UserError
from experiments.train import flags as of_train

# Flag -> the modes that read it: what every room says of its own, those of all modes first.
ROOMS = tuple(
  room.READ_BY for room in (of_all, of_train, of_sampling, of_scoring, of_export, of_benchmarks)
)
READ_BY: dict[str, tuple[str, ...]] = {
  name: tuple(mode for mode in MODES if mode in of_room[name])
  for of_room in ROOMS
  for name in of_room
}
# Of a --config beside a workdir's own: a mode that goes on with the run compares them all.
_GROUPS = {"evaluate": ("sample", "evaluate"), "sweep": ("sample", "evaluate", "sweep")}
_GROUPS |= dict.fromkeys(
  ("sample", "redraw", "reconstruct", "predict", "interpolate", "export"), ("sample",)
)


def check_flags(mode: str, after: Sequence[str] = ()) -> None:
  """Raises UserError for a given flag that neither the mode nor one `after` it reads."""
  for name, modes in READ_BY.items():
    if flags.FLAGS[name].present and not {mode, *after} & set(modes):
      others = ", ".join(f"--mode={other}" for other in modes)
      raise UserError(f"--{name} means nothing to --mode={mode}: leave it away. It is of {others}.")


def check_system(system: str) -> None:
  """Raises UserError for a given flag that is another system's."""
  from experiments.setup import systems  # imported late: --help answers at once

  own = systems.by_name(system).flags
  others = [name for other in systems.names() for name in systems.by_name(other).flags]
  if given := [name for name in others if name not in own and flags.FLAGS[name].present]:
    raise UserError(f"--{given[0]} means nothing to system {system!r}: leave it away.")


def check_overrides(
  mode: str, given: Collection[str], config: ConfigDict, saved: ConfigDict
) -> None:
  """Raises UserError for a key of --config that is not read: the run's own value counts.

  Args:
    mode: what is done with a workdir.
    given: 'data.dir' of --config.data.dir=DIR.
    config: with these values.
    saved: the workdir's.
  """
  if mode not in _GROUPS:
    return
  read = (*_GROUPS[mode], "mesh")
  for key in given:
    ours, theirs = (_value(tree, key) for tree in (config, saved))
    if key.split(".")[0] not in read and ours != theirs:
      raise UserError(
        f"--config.{key}={ours} means nothing to --mode={mode}: the run in --workdir was made with "
        f"{theirs}, and that counts. What can be given are keys of "
        f"{', '.join(f'config.{group}' for group in read)}."
      )


def _value(config: ConfigDict, key: str) -> object:
  """config.`key`, without the index of an entry."""
  value: object = config
  for name in key.partition("[")[0].split("."):
    value = value[name] if name in value else None
  return value
