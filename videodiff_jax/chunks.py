"""A compiled function on any number of rows: chunks of one size, so that it is compiled once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tqdm


def padded(rows: np.ndarray, size: int) -> np.ndarray:
  """At least one and at most `size` rows, of which the last is repeated to make `size`."""
  return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def chunked(
  function: Callable[..., Any], rows: Sequence[Any], size: int, what: str = ""
) -> Iterator[Any]:
  """What a function makes of `size` rows after `size` rows.

  The last chunk is padded, and what comes of the padding is cut off.

  Args:
    function: `size` rows of each of `rows` -> a tree of arrays (size, ...).
    rows: arrays, or what gives arrays for slices, of one length; slices are taken when needed.
    size: rows a call.
    what: the name of a progress bar; '' for none.

  Yields:
    A chunk's results, on the host.
  """
  total = len(rows[0])
  for begin in tqdm.trange(0, total, size, desc=what, disable=None if what else True):
    count = min(size, total - begin)
    found = function(*(padded(each[begin : begin + size], size) for each in rows))
    yield jax.tree.map(lambda x, count=count: np.asarray(x)[:count], found)


def in_chunks(function: Callable[..., Any], rows: Sequence[Any], size: int, what: str = "") -> Any:
  """The results of all chunks in one tree of arrays (n, ...); see `chunked`."""
  found = list(chunked(function, rows, size, what))
  return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
