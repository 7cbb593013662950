"""Calls a function on any number of rows in chunks of one size, so that it is compiled once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from videodiff_jax import shares


def padded(rows: np.ndarray, size: int) -> np.ndarray:
  """Pads one to `size` rows to exactly `size` by repeating the last row."""
  return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def chunked(
  function: Callable[..., Any], rows: Sequence[Any], size: int, what: str = ""
) -> Iterator[Any]:
  """Yields a function's results for chunks of `size` rows.

  The last chunk is padded, and the results of the padding are removed.

  Args:
    function: maps `size` rows of each of `rows` to a tree of arrays (size, ...), which may be split
      over the devices of several hosts.
    rows: arrays of one length, or objects whose slices are arrays; slices are taken when needed.
    size: rows per call.
    what: the name of a progress bar; '' shows none.

  Yields:
    A chunk's results, on every host.
  """
  total = len(rows[0])
  for begin in tqdm.trange(0, total, size, desc=what, disable=None if what else True):
    count = min(size, total - begin)
    found = function(*(padded(each[begin : begin + size], size) for each in rows))
    yield jax.tree.map(lambda x, count=count: shares.whole(x)[:count], found)


def in_chunks(function: Callable[..., Any], rows: Sequence[Any], size: int, what: str = "") -> Any:
  """Returns the results of all chunks as one tree of arrays (n, ...); see `chunked`."""
  found = list(chunked(function, rows, size, what))
  return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
