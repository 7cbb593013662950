"""Stand-ins for packages that a borrowed machine lacks and whose work a benchmark does not need.

Most modules import them at the top. A stand-in can be imported, named and called, and gives nothing
but itself. `ml_collections` alone is needed: its stand-in holds configurations (config_dict.py).
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.accelerator import config_dict

# What reads data, writes TensorBoard's files and shows progress; nothing that computes.
REPLACED = (
  "array_record", "clu", "grain", "ml_collections", "safetensors", "tensorboardX",
  "tensorflow_datasets",
)  # fmt: skip


def install() -> list[str]:
  """Puts stand-ins in the place of those packages that are missing, and returns their names."""
  missing = [name for name in REPLACED if importlib.util.find_spec(name) is None]
  sys.meta_path.append(_Finder(missing))
  return missing


class _Absent(type):
  """The class of what stands for anything in a missing package: a class that cannot be used."""

  def __getattr__(cls, name: str) -> Any:
    if name.startswith("__"):
      raise AttributeError(name)
    return cls

  def __call__(cls, *args: Any, **kwargs: Any) -> Any:
    return cls  # some modules make objects where they are imported


class _Base:
  def __init_subclass__(cls, **kwargs: Any) -> None:
    """Takes the keywords that classes of the missing package have."""


class _Module(types.ModuleType):
  def __getattr__(self, name: str) -> Any:
    if name.startswith("__"):
      raise AttributeError(name)
    return _Absent(name, (_Base,), {"__module__": self.__name__})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds the missing packages and all modules below them."""

  def __init__(self, missing: Sequence[str]):
    self._missing = missing

  def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
    if name.partition(".")[0] in self._missing:
      return importlib.machinery.ModuleSpec(name, self, is_package=True)
    return None

  def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
    return _Module(spec.name)

  def exec_module(self, module: types.ModuleType) -> None:
    if module.__name__ == "ml_collections":
      vars(module).update(
        ConfigDict=config_dict.ConfigDict, FrozenConfigDict=config_dict.FrozenConfigDict
      )
