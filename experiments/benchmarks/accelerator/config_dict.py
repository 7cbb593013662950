"""The part of ml_collections that configurations and networks use, for where it is not installed.

A test makes every configuration with both and compares them.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any


class ConfigDict(Mapping):
  """Entries of any kind by name, as attributes and as items; groups are `ConfigDict`s, too."""

  def __init__(self, entries: Mapping[str, Any] | None = None):
    object.__setattr__(self, "_entries", {})
    for name, value in (entries or {}).items():
      self[name] = value

  def __getitem__(self, name: str) -> Any:
    return self._entries[name]

  def __getattr__(self, name: str) -> Any:
    if name.startswith("_") or name not in self._entries:
      raise AttributeError(name)
    return self._entries[name]

  def __setitem__(self, name: str, value: Any) -> None:
    group = isinstance(value, Mapping) and not isinstance(value, ConfigDict)
    self._entries[name] = type(self)(value) if group else value

  def __setattr__(self, name: str, value: Any) -> None:
    self[name] = value

  def __delattr__(self, name: str) -> None:
    del self._entries[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)

  def update(self, entries: Mapping[str, Any] | None = None, **more: Any) -> None:
    """Sets entries; those of a group that is there are set in it."""
    for name, value in {**(entries or {}), **more}.items():
      there = self._entries.get(name)
      if isinstance(there, ConfigDict) and isinstance(value, Mapping):
        there.update(value)
      else:
        self[name] = value

  def to_dict(self) -> dict[str, Any]:
    """Returns the entries, groups as dicts."""
    return {
      name: value.to_dict() if isinstance(value, ConfigDict) else value
      for name, value in self.items()
    }

  def to_json(self, **settings: Any) -> str:
    """Returns the entries as JSON."""
    return json.dumps(self.to_dict(), **settings)

  def copy_and_resolve_references(self) -> "ConfigDict":
    """Returns a copy whose groups are copies, too."""
    return type(self)(copy.deepcopy(self.to_dict()))

  def __deepcopy__(self, memo: Any) -> "ConfigDict":
    return self.copy_and_resolve_references()


class FrozenConfigDict(ConfigDict):
  """A copy of a configuration; lists are tuples. Nothing here changes one."""

  def __setitem__(self, name: str, value: Any) -> None:
    if isinstance(value, ConfigDict):
      value = value.to_dict()
    super().__setitem__(name, tuple(value) if isinstance(value, list) else value)
