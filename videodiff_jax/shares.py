"""Work that several hosts share: each takes its part of a list of clips, and all get all results.

Networks run on the devices of all hosts at once: `partitioning.put_whole` gives every device its
rows, and `whole` returns the results on every host. Measurements, which run on a host's own cores
and devices, are shared by `split`. Every host goes through the same calls in the same order.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils

T = TypeVar("T")

_MIN_WIDTH = 1024  # bytes; messages are padded to this length, so that few lengths are compiled
_MOST_BYTES = 2**26  # of a message that are gathered at once, since every device gets a copy
_sharing = False  # inside of a share nothing is shared again
_pack = serialization.msgpack_serialize


class HostError(RuntimeError):
  """An error on another host, with its message."""


def parts() -> int:
  """Returns the number of hosts that share a `split`: one inside of a share."""
  return 1 if _sharing else jax.process_count()


def is_first() -> bool:
  """Tells whether this is the first host, which writes the files."""
  return jax.process_index() == 0


def whole(array: Any) -> np.ndarray:
  """Returns a whole array on this host, also one that is split over the devices of several."""
  if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
    return multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)


def split(do: Callable[[slice], T], total: int) -> list[T]:
  """Calls a function for each host's share of rows, and returns all results in order.

  Args:
    do: called with the rows of this host, unless it has none. It must not enter a collective; a
      `split` inside of it is not shared again. It returns arrays of numbers, numbers, strings,
      None, or lists and dicts of them: what msgpack holds, which unlike a pickle brings no code.
    total: number of rows, from 1.

  Returns:
    The results of successive shares, the same on every host.

  Raises:
    HostError: another host failed, with the message of its error.
  """
  global _sharing
  if parts() == 1:
    return [do(slice(0, total))]
  each = -(-total // parts())
  begin = jax.process_index() * each
  rows = slice(begin, min(begin + each, total))
  error, message = None, _pack({})
  _sharing = True
  try:
    if begin < total:
      message = _pack({"result": do(rows)})
  except Exception as caught:  # any error must reach the other hosts, which wait
    error, message = caught, _pack({"error": told(caught)})
  finally:
    _sharing = False
  every = [serialization.msgpack_restore(one) for one in gather(message)]
  if error is not None:
    raise error
  for host, part in enumerate(every):
    if "error" in part:
      raise HostError(f"Host {host}: {part['error']}")
  return [part["result"] for part in every if part]


def gather(message: bytes) -> list[bytes]:
  """Gathers every host's message, in the same order on all hosts."""
  lengths = multihost_utils.process_allgather(np.int32(len(message)))
  width = max(_MIN_WIDTH, 1 << (int(lengths.max()) - 1).bit_length())
  padded = np.zeros(width, np.uint8)
  padded[: len(message)] = np.frombuffer(message, np.uint8)
  pieces = [
    multihost_utils.process_allgather(padded[at : at + _MOST_BYTES])
    for at in range(0, width, _MOST_BYTES)
  ]
  rows = np.concatenate(pieces, axis=1)
  return [row[:length].tobytes() for row, length in zip(rows, lengths)]


def told(error: Exception) -> str:
  """Returns an error's message for another host."""
  # Messages of other errors are not written for users, so their class is shown too.
  return str(error) if isinstance(error, (ValueError, OSError)) else repr(error)
