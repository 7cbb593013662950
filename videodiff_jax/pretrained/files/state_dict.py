"""Converts a PyTorch state dict to a Flax parameter tree and accounts for every tensor."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from videodiff_jax.choices import summarise
from videodiff_jax.pretrained.files.tensor_files import Tensor, held

# Regular expressions and their replacements for `re.sub`, applied in order.
Rules = Sequence[tuple[str, str | Callable[[re.Match], str]]]
State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Placed:
  """A tensor with a place in one of our networks.

  Attributes:
    name: its name in the source.
    stored_shape: its shape in the source.
    tensor: the tensor in our layout; its shape may still differ from the network's.
  """

  name: str
  stored_shape: tuple[int, ...]
  tensor: Tensor


def flat_shapes(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Returns 'a.b.kernel' -> shape for a module's parameters, abstract or concrete."""
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep=".").items()}


def translate(
  tensors: Mapping[str, Tensor], rules: Rules, wanted: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Placed], dict[str, str]]:
  """Sorts tensors by our path, without reading them.

  Kernels are transposed (convolutions OIHW to HWIO, OIDHW to DHWIO, linear layers and 1x1
  convolutions to (in, out)); everything else keeps its layout.

  Args:
    tensors: tensors by their names in the source.
    rules: turn a tensor's dotted name into our parameter's path, whose last part may stay 'weight'.
    wanted: the network's shapes by path.

  Returns:
    The tensors by path, and name -> path for those that have no place in `wanted`.
  """
  placed: dict[str, Placed] = {}
  strangers: dict[str, str] = {}
  for name, tensor in tensors.items():
    path = _path(name, rules, wanted)
    if path in wanted and path not in placed:
      ours = _transposed(tensor, len(wanted[path])) if is_kernel(path) else tensor
      placed[path] = Placed(name, tensor.shape, ours)
    else:
      strangers[name] = path
  return placed, strangers


def problems(
  placed: Mapping[str, Placed], strangers: Iterable[str], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
  """Describes each mismatch with the network: path (a stranger's name) -> sentence."""
  found = {name: f"{name} has no place" for name in strangers}
  for path, entry in placed.items():
    if entry.tensor.shape != wanted[path]:
      found[path] = f"{entry.name} gives {entry.tensor.shape}, but {path} is {wanted[path]}"
  return found | {path: f"{path} is missing" for path in wanted if path not in placed}


def convert(state: State, rules: Rules, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts all tensors of `state` to float32 parameters in the form of `shapes`.

  Args:
    state: arrays by PyTorch name.
    rules: the name map, see `translate`.
    shapes: the module's parameters, abstract or concrete, as `jax.eval_shape(init)["params"]`.

  Raises:
    ValueError: a parameter lacks a tensor, a tensor lacks a parameter, or shapes differ.
  """
  wanted = flat_shapes(shapes)
  tensors = {name: held(np.asarray(value)) for name, value in state.items()}
  placed, strangers = translate(tensors, rules, wanted)
  if found := list(problems(placed, strangers, wanted).values()):
    listed = summarise(found, separator="; ")
    raise ValueError(f"These weights are of another network or configuration: {listed}.")
  arrays = {path: np.asarray(one.tensor.load(), np.float32) for path, one in placed.items()}
  return traverse_util.unflatten_dict(arrays, sep=".")


def _path(name: str, rules: Rules, wanted: Mapping[str, Any]) -> str:
  for pattern, replacement in rules:
    name = re.sub(pattern, replacement, name)
  stem, _, last = name.rpartition(".")
  if last != "weight":
    return name
  # PyTorch's 'weight' has three names in Flax.
  candidates = [f"{stem}.{leaf}" for leaf in ("kernel", "scale", "embedding")]
  return next((path for path in candidates if path in wanted), name)


def is_kernel(path: str) -> bool:
  """Tells whether PyTorch stores a parameter of ours in another layout."""
  return path.rpartition(".")[2] == "kernel"


def _transposed(tensor: Tensor, ndim: int) -> Tensor:
  """Transposes (out, in, *window) to (*window, in, out), without a window of 1 that ours lacks."""
  shape = (*tensor.shape[2:], *tensor.shape[1::-1])
  while len(shape) > ndim and shape[0] == 1:
    shape = shape[1:]

  def load() -> np.ndarray:
    array = tensor.load()
    return array.transpose(*range(2, array.ndim), 1, 0).reshape(shape)

  return dataclasses.replace(tensor, shape=shape, load=load)


def stored(path: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
  """Undoes the transposition of `translate` for a tensor of `shape` in the source."""
  if not is_kernel(path):
    return tensor

  def load() -> np.ndarray:
    array = tensor.load().reshape(*shape[2:], shape[1], shape[0])
    return array.transpose(-1, -2, *range(len(shape) - 2))

  return dataclasses.replace(tensor, shape=shape, load=load)
