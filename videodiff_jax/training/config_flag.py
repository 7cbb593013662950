"""--config=FILE[:variants] and --config.a.b=value, checked before absl reads them."""

import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict


def config_files(root: pathlib.Path) -> list[str]:
  """The configurations of a checkout."""
  return sorted(
    f"configs/{file.name}"
    for file in (root / "configs").glob("*.py")
    if file.stem != "__init__" and not file.stem.endswith("common")
  )


def parse_flags(argv: Sequence[str], root: pathlib.Path) -> list[str]:
  """absl's parser, with every mistake told in one sentence and exit status 2.

  Args:
    argv: the command's arguments.
    root: of the checkout, whose configurations are listed where one is not found.
  """
  try:
    check_arguments(argv, root)
    return flags.FLAGS(argv)
  except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
    fail(str(error.args[0]) if error.args else str(error))


def check_arguments(argv: Sequence[str], root: pathlib.Path) -> None:
  """Looks at --config=FILE[:variants] and every --config.a.b=value.

  Raises:
    ValueError: a file, a variant or a key that is not there; lists the valid ones.
  """
  options = [argument.lstrip("-").partition("=")[::2] for argument in argv]
  following = [*argv[1:], ""]  # where the value is after `--config FILE`
  given = [value or other for (name, value), other in zip(options, following) if name == "config"]
  keys = [name for name, _ in options if name.startswith("config.")]
  there_are = f"There are: {', '.join(config_files(root))}."
  if not given and keys:
    raise ValueError(f"--{keys[0]} needs --config=FILE. {there_are}")
  if not given:
    return
  file, _, variants = given[-1].partition(":")
  settings = runpy.run_path(file) if pathlib.Path(file).is_file() else {}
  if "get_config" not in settings:
    raise ValueError(f"No configuration {file!r}. {there_are}")
  config = settings["get_config"](variants)
  for key in keys:
    _check_key(config, key.split(".")[1:])


def _check_key(config: ConfigDict, names: Sequence[str]) -> None:
  branch, prefix = config, "config"
  for name in names:
    if not isinstance(branch, ConfigDict):
      raise ValueError(f"{prefix} is a value, not a group of keys: set it as --{prefix}=VALUE.")
    name, _, index = name.partition("[")
    if name not in branch:
      raise ValueError(f"Unknown key {prefix}.{name}. {prefix} has: {', '.join(branch)}.")
    if index:  # an entry of a tuple
      return
    branch, prefix = branch[name], f"{prefix}.{name}"


def fail(message: str) -> NoReturn:
  """Ends the process with status 2, as a shell's own commands do for wrong arguments."""
  print(f"Error: {message}", file=sys.stderr)
  sys.exit(2)
