"""The registry of named protocols: complete recipes of a score.

Two figures of one protocol can be compared: nothing that moves a number is left to the caller. What
is the model's own business (which weights, how fragments are joined) stays in the configuration and
is written beside the protocol.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar


@dataclasses.dataclass(frozen=True)
class NamedProtocol:
  """What every protocol has.

  Attributes:
    name: of its file in a workdir's evaluations/.
    about: where it comes from, its faults and how far this project's figures are from theirs.
  """

  name: str
  about: str

  def written(self) -> str | dict[str, Any]:
    """What a score file says of the protocol."""
    return dataclasses.asdict(self)


P = TypeVar("P", bound=NamedProtocol)


class Registry:
  """Protocols by their kind and name; a kind is a class, whose names are those of one command."""

  def __init__(self) -> None:
    self._protocols: dict[tuple[type[NamedProtocol], str], NamedProtocol] = {}

  def add(self, kind: type[P], *protocols: P) -> Mapping[str, P]:
    """Registers the protocols of a kind.

    Returns:
      Those protocols by name.

    Raises:
      ValueError: the kind has two of one name.
    """
    for protocol in protocols:
      if (kind, protocol.name) in self._protocols:
        raise ValueError(f"Two protocols {protocol.name!r} of kind {kind.__name__}: rename one.")
      self._protocols[kind, protocol.name] = protocol
    return types.MappingProxyType({protocol.name: protocol for protocol in protocols})

  def find(self, name: str) -> NamedProtocol:
    """The only protocol of a name.

    Raises:
      ValueError: there is none, or one of each of several kinds.
    """
    found = {kind.__name__: one for (kind, of), one in self._protocols.items() if of == name}
    if len(found) != 1:
      raise ValueError(f"Protocol {name!r} is in {' and '.join(sorted(found)) or 'no kind'}.")
    return next(iter(found.values()))


REGISTRY = Registry()
