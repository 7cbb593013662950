"""Cheap parameters for tests: compiling an initialiser costs more than the test itself."""

from typing import Any

import jax
import numpy as np


def fill(shapes: Any, seed: int = 0, scale: float = 0.05) -> Any:
  """Random float32 values for a tree of abstract arrays; nothing stays zero, so every path shows.

  Norm scales (named `scale`) are drawn near one; integer leaves become zeros.
  """
  rng = np.random.default_rng(seed)

  def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if not np.issubdtype(leaf.dtype, np.floating):
      return np.zeros(leaf.shape, leaf.dtype)
    centre = 1.0 if "scale" in jax.tree_util.keystr(path[-1:]) else 0.0
    return (centre + scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)
