"""From a PyTorch state dict to a Flax parameter tree, with every tensor accounted for."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from videodiff_jax.pretrained.files.tensor_files import Tensor, held

# Regular expression, and what `re.sub` puts in its place; all applied in order.
Rules = Sequence[tuple[str, str | Callable[[re.Match], str]]]
State = Mapping[str, np.ndarray]

_TOLD = 8  # problems of one state dict, of which there may be hundreds


@dataclasses.dataclass(frozen=True)
class Placed:
  """A tensor that has a place in a network of ours.

  Attributes:
    name: in the source.
    stored_shape: there.
    tensor: in our layout; its shape may still be another than the network's.
  """

  name: str
  stored_shape: tuple[int, ...]
  tensor: Tensor


def flat_shapes(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """'a.b.kernel' -> shape, of a module's parameters, abstract or concrete."""
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep=".").items()}


def translate(
  tensors: Mapping[str, Tensor], rules: Rules, wanted: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Placed], dict[str, str]]:
  """Tensors by our path, and those that have no place in `wanted`: name -> path.

  `rules` turn a tensor's dotted name into the path of our parameter, whose last part may stay
  'weight'. Kernels are transposed (convolutions OIHW to HWIO, OIDHW to DHWIO, linear layers and
  1x1 convolutions to (in, out)); anything else keeps its layout. Nothing is read.
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
  """What keeps the tensors from being all of the network: path (a stranger's name) -> sentence."""
  found = {name: f"{name} has no place" for name in strangers}
  for path, one in placed.items():
    if one.tensor.shape != wanted[path]:
      found[path] = f"{one.name} gives {one.tensor.shape}, but {path} is {wanted[path]}"
  return found | {path: f"{path} is missing" for path in wanted if path not in placed}


def told(sentences: Sequence[str]) -> str:
  """The first few of many sentences."""
  more = f"; and {len(sentences) - _TOLD} more" if len(sentences) > _TOLD else ""
  return "; ".join(sentences[:_TOLD]) + more


def convert(state: State, rules: Rules, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Float32 parameters in the form of `shapes` from all tensors of `state`; see `translate`.

  Args:
    state: arrays by PyTorch name.
    rules: the name map.
    shapes: the module's parameters, abstract or concrete, as `jax.eval_shape(init)["params"]`.

  Raises:
    ValueError: parameters without a tensor, tensors without a parameter, or shapes that differ.
  """
  wanted = flat_shapes(shapes)
  tensors = {name: held(np.asarray(value)) for name, value in state.items()}
  placed, strangers = translate(tensors, rules, wanted)
  if found := list(problems(placed, strangers, wanted).values()):
    raise ValueError(f"These weights are of another network or configuration: {told(found)}.")
  arrays = {path: np.asarray(one.tensor.load(), np.float32) for path, one in placed.items()}
  return traverse_util.unflatten_dict(arrays, sep=".")


def _path(name: str, rules: Rules, wanted: Mapping[str, Any]) -> str:
  for pattern, replacement in rules:
    name = re.sub(pattern, replacement, name)
  stem, _, last = name.rpartition(".")
  if last != "weight":
    return name
  # PyTorch says 'weight' for three things that Flax tells apart.
  candidates = [f"{stem}.{leaf}" for leaf in ("kernel", "scale", "embedding")]
  return next((path for path in candidates if path in wanted), name)


def is_kernel(path: str) -> bool:
  """Whether PyTorch keeps a parameter of ours in another layout."""
  return path.rpartition(".")[2] == "kernel"


def _transposed(tensor: Tensor, ndim: int) -> Tensor:
  """(out, in, *window) -> (*window, in, out); a window of 1 goes where our layer has none."""
  shape = (*tensor.shape[2:], *tensor.shape[1::-1])
  while len(shape) > ndim and shape[0] == 1:
    shape = shape[1:]

  def load() -> np.ndarray:
    array = tensor.load()
    return array.transpose(*range(2, array.ndim), 1, 0).reshape(shape)

  return dataclasses.replace(tensor, shape=shape, load=load)


def stored(path: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
  """The inverse of what `translate` did to a tensor of `shape`."""
  if not is_kernel(path):
    return tensor

  def load() -> np.ndarray:
    array = tensor.load().reshape(*shape[2:], shape[1], shape[0])
    return array.transpose(-1, -2, *range(len(shape) - 2))

  return dataclasses.replace(tensor, shape=shape, load=load)
