"""LPIPS (Zhang et al., 2018): a perceptual distance, as a score and as a training loss."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from videodiff_jax.choices import check_choice
from videodiff_jax.models.outputs import output
from videodiff_jax.pretrained import lpips as pretrained

# ImageNet's mean and standard deviation, converted from [0, 1] to [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
SMALLEST = {"alex": 31, "vgg": 16}  # pixels per side; with fewer, a pooling layer has no input


class LPIPS(nn.Module):
  """Distance between unit-normalised activations at five depths of a classifier."""

  net: str  # 'alex' or 'vgg'

  @nn.compact
  def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes distances (n,), float32, of pictures (n, h, w, 3) in [-1, 1]."""
    distance: jax.Array | float = 0.0
    for level, features in enumerate(self.activations(jnp.concatenate([a, b]))):
      unit_a, unit_b = jnp.split(_normalise(features), 2)
      head = nn.Dense(1, use_bias=False, precision="highest", name=f"head_{level}")
      distance += head((unit_a - unit_b) ** 2).mean(axis=(1, 2, 3))
    return jnp.asarray(distance)

  @nn.compact
  def activations(self, pictures: jax.Array) -> list[jax.Array]:
    """Computes the classifier's activations of (n, h, w, 3) in [-1, 1] at the five depths."""
    shift, scale = (jnp.array(values)[None, None, None] for values in (_SHIFT, _SCALE))
    x = (pictures.astype(jnp.float32) - shift) / scale
    return self._alex(x) if self.net == "alex" else self._vgg(x)

  def _conv(self, x: jax.Array, index: int, width: int, kernel: int = 3, **options) -> jax.Array:
    settings: dict[str, Any] = {
      "padding": kernel // 2,
      "precision": "highest",
      "name": f"conv_{index}",
    } | options
    return nn.relu(nn.Conv(width, (kernel, kernel), **settings)(x))

  def _alex(self, x: jax.Array) -> list[jax.Array]:
    levels = [self._conv(x, 0, 64, kernel=11, strides=4, padding=2)]
    levels.append(self._conv(nn.max_pool(levels[-1], (3, 3), (2, 2)), 1, 192, kernel=5))
    levels.append(self._conv(nn.max_pool(levels[-1], (3, 3), (2, 2)), 2, 384))
    levels.append(self._conv(levels[-1], 3, 256))
    levels.append(self._conv(levels[-1], 4, 256))
    return levels

  def _vgg(self, x: jax.Array) -> list[jax.Array]:
    levels: list[jax.Array] = []
    index = 0
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
      if levels:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for _ in range(depth):
        x = self._conv(x, index, width)
        index += 1
      levels.append(x)
    return levels


def _normalise(x: jax.Array) -> jax.Array:
  # The floor changes no value; it keeps the root's gradient finite where all features are zero.
  return x / (jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-20)) + 1e-10)


def load_params(net: str) -> dict[str, Any]:
  """Loads the published weights of 'alex' or 'vgg'; if missing, the error says what to install."""
  return pretrained.load(net)


def lpips(a: jax.Array, b: jax.Array, net: str, params: dict[str, Any]) -> jax.Array:
  """Computes LPIPS v0.1 of each pair of pictures, differentiable in both.

  Args:
    a: (n, h, w, 3), float in [-1, 1] (repeat a grey channel three times).
    b: like `a`.
    net: 'alex' (the usual score) or 'vgg' (the usual loss).
    params: from `load_params(net)`.

  Returns:
    (n,) float32, 0 for equal pictures.

  Raises:
    ValueError: the network is unknown, or the pictures have a wrong shape, type or size.
  """
  check_choice("LPIPS network", net, sorted(SMALLEST))
  if a.shape != b.shape or a.ndim != 4 or a.shape[-1] != 3:
    raise ValueError(f"LPIPS compares two (n, h, w, 3) arrays, not {a.shape} and {b.shape}.")
  if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in (a, b)):
    raise ValueError(f"LPIPS needs floats in [-1, 1], not {a.dtype} and {b.dtype}.")
  if min(a.shape[1:3]) < SMALLEST[net]:
    raise ValueError(
      f"LPIPS by {net!r} needs pictures of {SMALLEST[net]} pixels per side, not {a.shape[1:3]}."
    )
  return output(LPIPS(net), {"params": params}, a, b)
