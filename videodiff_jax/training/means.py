"""Means of scalars over steps and batches: clu's collections, which merge in any grouping."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from clu import metrics


def collect(row: Mapping[str, Any]) -> metrics.Collection:
  """The figures of one step or batch, on the host; `merge` adds others of the same names."""
  averages = {
    name: metrics.Average(total=value, count=np.ones((), value.dtype))
    for name, value in ((name, np.asarray(value)) for name, value in row.items())
  }
  return _empty(tuple(row)).replace(**averages)


def over(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """{name: mean over the rows}, in their dtype; {} without rows."""
  collections = [collect(row) for row in rows]
  if not collections:
    return {}
  return functools.reduce(lambda all_, one: all_.merge(one), collections).compute()


@functools.cache
def _empty(names: tuple[str, ...]) -> metrics.Collection:
  """Cached because every class of a collection stays registered with JAX; in NumPy arrays.

  An array on one device could not be added to another where a mesh is in force.
  """
  collection = metrics.Collection.create(**dict.fromkeys(names, metrics.Average))
  return jax.tree.map(np.asarray, collection.empty())
