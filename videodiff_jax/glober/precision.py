"""Rounds, once for sampling, the weights that layers would otherwise round at each use."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.layers import Conv3x3, ConvFrames, ConvTranspose3x3
from videodiff_jax.training.stage import Stage

# These layers cast all of their parameters to their `dtype` first.
_LAYERS = (nn.Dense, nn.Conv, nn.Embed, Conv3x3, ConvFrames, ConvTranspose3x3)


def rounded(stage: Stage, params: Any, dtype: str) -> Any:
  """Rounds the parameters of a stage's layers that compute in `dtype`; others are unchanged.

  Each layer has its own dtype: norms, time embeddings and last layers compute in float32 and stay
  float32. Samples are the same to the last bit, in half the memory with 'bfloat16'.

  Args:
    stage: the stage that the parameters belong to.
    params: arrays, or abstract ones as `jax.eval_shape` makes them.
    dtype: `config.precision`.
  """
  paths = set()

  def note(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    layer = context.module
    if isinstance(layer, _LAYERS) and layer.dtype == jnp.dtype(dtype):
      paths.add(layer.path)
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    # A new function each time: JAX would not run one again that it has traced before.
    jax.eval_shape(lambda key: stage.init(key), jax.random.key(0))

  def hold(path: tuple, leaf: Any) -> Any:
    _, *layer, _ = (key.key for key in path)
    if tuple(layer) not in paths:
      return leaf
    abstract = isinstance(leaf, jax.ShapeDtypeStruct)
    return leaf.update(dtype=jnp.dtype(dtype)) if abstract else leaf.astype(dtype)

  return jax.tree_util.tree_map_with_path(hold, params)
