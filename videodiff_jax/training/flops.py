"""Counts the floating-point operations of a function from its jaxpr; knows devices' peaks."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

# Dense bf16 peaks in FLOP/s per device, from the vendors' data sheets.
PEAKS = {
  "NVIDIA V100": 125e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
  "NVIDIA B200": 2250e12,
  "NVIDIA GB200": 2500e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5p": 459e12,
  "TPU v5": 459e12,
  "TPU v6": 918e12,
  "TPU7x": 1153.5e12,  # a device is half a chip
}


def peak_flops(device: jax.Device) -> float | None:
  """Returns the device's dense bf16 peak in FLOP/s, or None where it is unknown (every CPU)."""
  for name, peak in PEAKS.items():
    if device.device_kind.startswith(name):
      return peak
  return None


def count(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
  """Counts operations (2 per multiply-add) of matrix products and convolutions.

  A scan counts its body times its length (XLA's own analysis counts it once), and what every device
  computes by itself (`shard_map`) counts for all devices. Taps on padding count too, as in the
  published figures.
  """
  jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
  return sum(_count_equation(equation) for equation in jaxpr.eqns)


def abstract_input(*shape: int) -> jax.ShapeDtypeStruct:
  """Returns an abstract float32 array (1, *shape), a batch of one."""
  return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def forward(module: nn.Module, *args: Any, method: str | None = None) -> tuple[int, int]:
  """Counts a module's parameters and the operations of its call, without computing anything."""
  init = functools.partial(module.init, method=method)
  call = functools.partial(module.apply, method=method)
  params = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), *args)
  return count_parameters(params), count(jax.jit(call).trace(params, *args).jaxpr)


def count_parameters(tree: Any) -> int:
  """Counts the numbers in a tree of (abstract) arrays."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _count_equation(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    lhs = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracted)
  if name == "conv_general_dilated":
    kernel = equation.invars[1].aval.shape
    out_features = kernel[params["dimension_numbers"].rhs_spec[0]]
    taps = math.prod(kernel) // out_features
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * taps // math.prod(params["lhs_dilation"])
  if name == "scan":
    return params["length"] * count(params["jaxpr"])
  if name == "shard_map":  # its body has the shapes of one device
    return params["mesh"].size * count(params["jaxpr"])
  if name == "cond":
    return max(count(branch) for branch in params["branches"])
  return sum(count(inner) for inner in _inner(params))


def _inner(params: dict[str, Any]) -> list[Any]:
  values = [v for p in params.values() for v in (p if isinstance(p, list | tuple) else [p])]
  return [v for v in values if isinstance(v, core.ClosedJaxpr | core.Jaxpr)]
