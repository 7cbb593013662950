"""Checks what users type, paths and numbers, where it comes in."""

import math
import os
import pathlib
from typing import Any

from absl import flags

from videodiff_jax import storage

flags.disclaim_key_flags()  # so that --help lists the flags with the command that defines them

MAX_SEED = 2**32 - 1


def path(given: str | os.PathLike[str], name: str = "", on_disk: bool = False) -> pathlib.Path:
  """Returns a path with ~ replaced by the home folder, or an address in object storage.

  Args:
    given: the path as it was typed.
    name: the name of the flag or key, for errors.
    on_disk: whether only a path of this machine will do.

  Raises:
    ValueError: the path is empty, an address of another kind than s3:// and gs://, any address
      where `on_disk` is True, or begins with ~ where no home folder is known.
  """
  text, prefix = os.fspath(given), f"{name}: " if name else ""
  if not text:
    raise ValueError(f"{prefix}the path is empty.")
  if storage.is_address(text):
    if on_disk:
      raise ValueError(
        f"{prefix}{text!r} is an address; only files of this machine are read and written here. "
        "Copy it to a disk, or mount the bucket as a folder."
      )
    try:
      return storage.path(given)
    except ValueError as error:
      raise ValueError(f"{prefix}{error}") from error
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise ValueError(
      f"{prefix}{text!r}: no home folder is known ({error}); write the path in full."
    ) from error


class _Path(flags.ArgumentParser):
  syntactic_help = "a path"

  def __init__(self, on_disk: bool = False):
    self._on_disk = on_disk

  def parse(self, argument: str) -> str:
    found = path(argument, on_disk=self._on_disk)
    # An address stays as it is: several, comma-joined, are no single path.
    return argument if storage.is_address(argument) else str(found)


class _Finite(flags.FloatParser):
  """A bounded float as absl's, but NaN is refused; absl's bounds let it pass."""

  def convert(self, argument: str | float) -> float:
    value = super().convert(argument)
    if not math.isfinite(value):
      raise ValueError("it must be a finite number")
    return value


class _Numbers(flags.ArgumentParser):
  """Comma-separated numbers within bounds."""

  syntactic_help = "comma-separated numbers, such as 0,0.5,1"

  def __init__(self, low: float, high: float):
    self._one = _Finite(low, high)

  def parse(self, argument: str | list[float]) -> list[float]:
    texts = argument.split(",") if isinstance(argument, str) else argument
    try:
      return [self._one.parse(text) for text in texts]
    except ValueError as error:
      raise ValueError(f"{error}; give {self.syntactic_help}") from error


def define_path(
  name: str, default: str | None, text: str, required: bool = False, on_disk: bool = False
) -> flags.FlagHolder:
  """Defines a flag that holds a path, checked and expanded by `path`."""
  return _define(_Path(on_disk), name, default, text, required)


def define_float(name: str, default: float | None, text: str, low: float, high: float) -> None:
  """Defines a flag that holds a finite number from `low` to `high`."""
  _define(_Finite(low, high), name, default, text)


def define_numbers(name: str, text: str, low: float, high: float) -> None:
  """Defines a flag that holds comma-separated finite numbers from `low` to `high`, or None."""
  _define(_Numbers(low, high), name, None, text)


def define_integer(name: str, default: int | None, text: str, low: int, high: int) -> None:
  """Defines a flag that holds an integer from `low` to `high`."""
  flags.DEFINE_integer(name, default, text, lower_bound=low, upper_bound=high)


def define_seed(default: int | None, text: str) -> None:
  """Defines --seed, from 0 to 2^32 - 1: the range that both NumPy and JAX take."""
  define_integer("seed", default, text, 0, MAX_SEED)


def _define(
  parser: flags.ArgumentParser, name: str, default: Any, text: str, required: bool = False
) -> flags.FlagHolder:
  return flags.DEFINE(
    parser, name, default, text, serializer=flags.ArgumentSerializer(), required=required
  )
