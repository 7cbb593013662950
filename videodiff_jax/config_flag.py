"""--config=FILE[:variants] and --config.a.b=value, checked before absl reads them."""

import pathlib
import runpy
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from videodiff_jax import typed
from videodiff_jax.command import BAD_ARGUMENTS, fail


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
    return flags.FLAGS(check_arguments(argv, root))
  except KeyError as error:  # whose str() is in quotation marks
    fail(f"Error: {error.args[0] if error.args else error!r}", BAD_ARGUMENTS)
  except (flags.Error, ValueError, TypeError, AttributeError, LookupError, OSError) as error:
    fail(f"Error: {error}", BAD_ARGUMENTS)


def refuse_words(argv: Sequence[str]) -> None:
  """Ends the process where words stand beside the options; `argv` begins with the command."""
  if len(argv) > 1:
    fail(f"Error: Unexpected {' '.join(argv[1:])!r}: options begin with --.", BAD_ARGUMENTS)


def check_arguments(argv: Sequence[str], root: pathlib.Path) -> list[str]:
  """Looks at --config=FILE[:variants] and every --config.a.b=value.

  Returns:
    The arguments, with ~ in the configuration's path as the home folder.

  Raises:
    ValueError: a file, a variant or a key that is not there; lists the valid ones.
  """
  argv = list(argv)
  keys = [name for name, _, _ in map(_split, argv) if name.startswith("config.")]
  there_are = f"There are: {', '.join(config_files(root))}."
  places = [i for i, argument in enumerate(argv) if _split(argument)[0] == "config"]
  given = ""
  for i in places:
    name, equals, value = _split(argv[i])
    if not equals:  # the value follows: `--config FILE`
      i, value = i + 1, argv[i + 1] if i + 1 < len(argv) else ""
    if value:
      given = str(typed.path(value, "--config"))
      argv[i] = f"--{name}={given}" if equals else given
  if not given and keys:
    raise ValueError(f"--{keys[0]} needs --config=FILE. {there_are}")
  if not given:
    return argv
  file, _, variants = given.partition(":")
  if not is_file(pathlib.Path(file)):
    raise ValueError(f"No configuration {file!r}. {there_are}")
  config = _run(file, variants, there_are)
  for key in keys:
    _check_key(config, key.split(".")[1:])
  return argv


def is_file(path: pathlib.Path) -> bool:
  """Whether it is there; a name that the file system cannot even look up is not."""
  try:
    return path.is_file()
  except OSError:
    return False


def _split(argument: str) -> tuple[str, str, str]:
  """'--name=value' -> 'name', '=', 'value'; a word without dashes has no name."""
  return argument.lstrip("-").partition("=") if argument.startswith("-") else ("", "", argument)


def _run(file: str, variants: str, there_are: str) -> ConfigDict:
  """What a configuration file gives; whatever goes wrong in it is told with its name."""
  try:
    get_config = runpy.run_path(file).get("get_config")
  except (Exception, SystemExit) as error:
    raise ValueError(
      f"{file} is no configuration, or has a mistake ({type(error).__name__}: {error}). {there_are}"
    ) from error
  if not callable(get_config):
    raise ValueError(f"No configuration {file!r}: it has no get_config. {there_are}")
  try:
    config = get_config(variants)
  except ValueError:  # written for people: a variant that is not there
    raise
  except (Exception, SystemExit) as error:
    raise ValueError(f"{file}: get_config failed ({type(error).__name__}: {error}).") from error
  if not isinstance(config, ConfigDict):
    raise ValueError(f"{file}: get_config gives a {type(config).__name__}, not a ConfigDict.")
  return config


def _check_key(config: ConfigDict, names: Sequence[str]) -> None:
  branch, prefix = config, "config"
  for name in names:
    if not isinstance(branch, ConfigDict):
      raise ValueError(f"{prefix} is a value, not a group of keys: set it as --{prefix}=VALUE.")
    name, bracket, index = name.partition("[")
    if name not in branch:
      raise ValueError(f"Unknown key {prefix}.{name}. {prefix} has: {', '.join(branch)}.")
    branch, prefix = branch[name], f"{prefix}.{name}"
    if bracket:
      if not isinstance(branch, tuple | list):
        raise ValueError(f"{prefix} is no tuple, so it has no entry [{index}.")
      if index not in [f"{i}]" for i in range(len(branch))]:
        raise ValueError(
          f"{prefix}[{index} is not there: {prefix} has {len(branch)} entries, counted from 0."
        )
      branch, prefix = branch[int(index[:-1])], f"{prefix}[{index}"
