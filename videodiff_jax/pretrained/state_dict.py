"""From a PyTorch state dict to a Flax parameter tree, with every tensor accounted for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

Rules = Sequence[tuple[str, str]]  # regular expression, replacement; all applied in order
State = Mapping[str, np.ndarray]

_TOLD = 8  # problems of one state dict, of which there may be hundreds


def convert(state: State, rules: Rules, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters in the form of `shapes` from the tensors of `state`.

  `rules` turn a tensor's dotted name into the path of our parameter, whose last part may stay
  'weight'. Kernels are transposed (convolutions OIHW to HWIO, OIDHW to DHWIO, linear layers and
  1x1 convolutions to (in, out)); anything else keeps its layout.

  Args:
    state: arrays by PyTorch name.
    rules: the name map.
    shapes: the module's parameters, abstract or concrete, as `jax.eval_shape(init)["params"]`.

  Raises:
    ValueError: parameters without a tensor, tensors without a parameter, or shapes that differ.
  """
  wanted = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep=".").items()}
  found, problems = {}, []
  for name, value in state.items():
    path = _path(name, rules, wanted)
    if path not in wanted:
      problems.append(f"{name} has no place")
      continue
    array = _transpose(np.asarray(value), len(wanted[path])) if "kernel" in path else value
    if array.shape != wanted[path]:
      problems.append(f"{name} gives {array.shape}, but {path} is {wanted[path]}")
    found[path] = np.asarray(array, np.float32)
  problems += [f"{path} is missing" for path in wanted if path not in found]
  if problems:
    more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    told = "; ".join(problems[:_TOLD])
    raise ValueError(f"These weights are of another network or configuration: {told}{more}.")
  return traverse_util.unflatten_dict(found, sep=".")


def _path(name: str, rules: Rules, wanted: Mapping[str, Any]) -> str:
  for pattern, replacement in rules:
    name = re.sub(pattern, replacement, name)
  stem, _, last = name.rpartition(".")
  if last != "weight":
    return name
  # PyTorch says 'weight' for three things that Flax tells apart.
  candidates = [f"{stem}.{leaf}" for leaf in ("kernel", "scale", "embedding")]
  return next((path for path in candidates if path in wanted), name)


def _transpose(kernel: np.ndarray, ndim: int) -> np.ndarray:
  """(out, in, *window) -> (*window, in, out); a window of 1 goes where our layer has none."""
  kernel = kernel.transpose(*range(2, kernel.ndim), 1, 0)
  while kernel.ndim > ndim and kernel.shape[0] == 1:
    kernel = kernel[0]
  return kernel
