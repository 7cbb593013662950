"""Weights as sampling holds them: those that layers round at each use are rounded once."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.layers import Conv3x3, ConvFrames, ConvTranspose3x3
from videodiff_jax.training.stage import Stage

# They cast all of their parameters to their `dtype` before anything else.
_LAYERS = (nn.Dense, nn.Conv, nn.Embed, Conv3x3, ConvFrames, ConvTranspose3x3)


def rounded(stage: Stage, params: Any, dtype: str) -> Any:
  """A stage's parameters, of layers that compute in `dtype` in `dtype`; the others are untouched.

  Norms, codes of time and last layers compute in float32 and stay so, by what each layer says of
  itself. Samples are the same to the last bit, in half the memory with 'bfloat16'.

  Args:
    stage: the parameters' own.
    params: arrays, or abstract ones as `jax.eval_shape` makes them.
    dtype: `config.precision`.
  """
  paths = set()

  def note(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    layer = context.module
    if isinstance(layer, _LAYERS) and layer.dtype == jnp.dtype(dtype):
      paths.add(layer.path)
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    # A function of its own: one that was traced before would not be run again.
    jax.eval_shape(lambda key: stage.init(key), jax.random.key(0))

  def hold(path: tuple, leaf: Any) -> Any:
    _, *layer, _ = (key.key for key in path)
    if tuple(layer) not in paths:
      return leaf
    abstract = isinstance(leaf, jax.ShapeDtypeStruct)
    return leaf.update(dtype=jnp.dtype(dtype)) if abstract else leaf.astype(dtype)

  return jax.tree_util.tree_map_with_path(hold, params)
