"""Checks --config=FILE[:variants] and --config.a.b=value before absl reads them."""

import pathlib
import runpy
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from videodiff_jax import typed
from videodiff_jax.choices import did_you_mean
from videodiff_jax.command import BAD_ARGUMENTS, fail


def config_files(root: pathlib.Path) -> list[str]:
  """Lists the configurations of a checkout, such as 'configs/glober_digits.py'."""
  return sorted(
    f"configs/{file.name}"
    for file in (root / "configs").glob("*.py")
    if file.stem != "__init__" and not file.stem.endswith("common")
  )


def parse_flags(argv: Sequence[str], root: pathlib.Path) -> list[str]:
  """Parses flags with absl; a mistake ends the process with one sentence and exit status 2.

  Args:
    argv: the command's arguments.
    root: the checkout's root; the error for an unknown configuration lists those below it.
  """
  try:
    return flags.FLAGS(check_arguments(argv, root))
  except KeyError as error:  # whose str() is in quotation marks
    fail(f"Error: {error.args[0] if error.args else error!r}", BAD_ARGUMENTS)
  except (flags.Error, ValueError, TypeError, AttributeError, LookupError, OSError) as error:
    fail(f"Error: {error}", BAD_ARGUMENTS)


def refuse_words(argv: Sequence[str]) -> None:
  """Ends the process if `argv`, which begins with the command, holds words beside the options."""
  if len(argv) > 1:
    fail(f"Error: Unexpected {' '.join(argv[1:])!r}: options begin with --.", BAD_ARGUMENTS)


def check_arguments(argv: Sequence[str], root: pathlib.Path) -> list[str]:
  """Checks --config=FILE[:variants] and every --config.a.b=value.

  Returns:
    The arguments, with ~ in the configuration's path replaced by the home folder.

  Raises:
    ValueError: a file, a variant or a key does not exist; the message lists the valid ones.
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
      given = str(typed.path(value, "--config", on_disk=True))
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
  """Tells whether a path is a file; a name that the file system cannot look up is none."""
  try:
    return path.is_file()
  except OSError:
    return False


def _split(argument: str) -> tuple[str, str, str]:
  """Splits '--name=value' into 'name', '=' and 'value'; a word without dashes has no name."""
  return argument.lstrip("-").partition("=") if argument.startswith("-") else ("", "", argument)


def _run(file: str, variants: str, there_are: str) -> ConfigDict:
  """Runs a configuration file and returns its config; errors name the file."""
  try:
    get_config = runpy.run_path(file).get("get_config")
  except (Exception, SystemExit) as error:
    raise ValueError(
      f"{file} is no configuration, or has an error ({type(error).__name__}: {error}). {there_are}"
    ) from error
  if not callable(get_config):
    raise ValueError(f"No configuration {file!r}: it has no get_config. {there_are}")
  try:
    config = get_config(variants)
  except ValueError:  # get_config raises it, with a message for users, for an unknown variant
    raise
  except (Exception, SystemExit) as error:
    raise ValueError(f"{file}: get_config failed ({type(error).__name__}: {error}).") from error
  if not isinstance(config, ConfigDict):
    raise ValueError(f"{file}: get_config returns a {type(config).__name__}, not a ConfigDict.")
  return config


def _check_key(config: ConfigDict, names: Sequence[str]) -> None:
  branch, prefix = config, "config"
  for name in names:
    if not isinstance(branch, ConfigDict):
      raise ValueError(f"{prefix} is a value, not a group of keys: set it by --{prefix}=VALUE.")
    name, bracket, index = name.partition("[")
    if name not in branch:
      meant = did_you_mean(name, branch)
      raise ValueError(f"Unknown key {prefix}.{name}. {meant} {prefix} has: {', '.join(branch)}.")
    branch, prefix = branch[name], f"{prefix}.{name}"
    if bracket:
      if not isinstance(branch, tuple | list):
        raise ValueError(f"{prefix} is not a tuple, so it has no entry [{index}.")
      if index not in [f"{i}]" for i in range(len(branch))]:
        raise ValueError(
          f"{prefix}[{index} does not exist: {prefix} has {len(branch)} entries, counted from 0."
        )
      branch, prefix = branch[int(index[:-1])], f"{prefix}[{index}"
