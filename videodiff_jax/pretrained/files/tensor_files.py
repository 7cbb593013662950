"""Reads weight files tensor by tensor, without running anything inside them.

It reads safetensors, PyTorch's zip files (`weights_only`), folders with either in parts
(`*.index.json`), and folders with one subfolder per network, as diffusers saves them. Tensors that
are not needed are never loaded.
"""

import dataclasses
import json
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from videodiff_jax import text_files
from videodiff_jax.choices import summarise

_BFLOAT16 = np.dtype(jnp.bfloat16)  # NumPy itself has no such type
# The types in a safetensors header.
_DTYPES: dict[str, np.dtype] = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": _BFLOAT16,
  "I64": np.dtype(np.int64),
  "I32": np.dtype(np.int32),
  "I16": np.dtype(np.int16),
  "I8": np.dtype(np.int8),
  "U8": np.dtype(np.uint8),
  "BOOL": np.dtype(bool),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")  # in order of preference
_USUAL = ("diffusion_pytorch_model", "model")  # stems preferred where a folder has several variants
SUBFOLDERS = ("unet", "vae", "text_encoder")
# Keys under which trainers store the weights beside other things; averaged weights first.
_STATES = ("state_dict", "ema", "model")


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array that is read on demand."""

  shape: tuple[int, ...]
  dtype: np.dtype
  load: Callable[[], np.ndarray]

  @property
  def size(self) -> int:
    return math.prod(self.shape)


Tensors = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Source:
  """The tensors of a file or folder, and the files that hold them."""

  tensors: Tensors
  files: tuple[pathlib.Path, ...]


def held(array: np.ndarray) -> Tensor:
  """Wraps an array in memory as a Tensor."""
  return Tensor(array.shape, array.dtype, lambda: array)


def read(path: pathlib.Path) -> Source:
  """Opens a file, or a folder with parts, with one weight file, or with a pipeline's subfolders.

  The tensors of a subfolder are named 'unet/...', 'vae/...', 'text_encoder/...'.

  Raises:
    FileNotFoundError: the path does not exist, or the folder holds no weights.
    ImportError: the file is PyTorch's, which is not installed.
    ValueError: a file is damaged or holds more than tensors, or parts are missing.
  """
  if path.is_file():
    return Source(_read_file(path), (path,))
  if not path.is_dir():
    raise FileNotFoundError(f"No file or folder {path}.")
  if index := _index(path):
    return _read_parts(index)
  if file := _weight_file(path):
    return Source(_read_file(file), (file,))
  parts = {name: read(path / name) for name in SUBFOLDERS if (path / name).is_dir()}
  if not parts:
    raise FileNotFoundError(
      f"{path} holds no weights: no *.safetensors or PyTorch file, no *.index.json, and none of "
      f"the subfolders {', '.join(SUBFOLDERS)}."
    )
  return Source(
    {f"{name}/{key}": value for name, part in parts.items() for key, value in part.tensors.items()},
    tuple(file for part in parts.values() for file in part.files),
  )


def _index(folder: pathlib.Path) -> pathlib.Path | None:
  """Returns the index of a folder in parts, or else a variant's, such as *.index.fp16.json."""
  found = [*folder.glob("*.index.json")]
  whole = (folder / f"{stem}{suffix}" for stem in _USUAL for suffix in _SUFFIXES)
  if not found and not any(file.is_file() for file in whole):
    found = [*folder.glob("*.index.*.json")]
  return min(found, key=lambda file: ("safetensors" not in file.name, file), default=None)


def _weight_file(folder: pathlib.Path) -> pathlib.Path | None:
  for suffix in _SUFFIXES:
    files = sorted(folder.glob(f"*{suffix}"))
    if len(files) > 1:
      files = [file for file in files if file.stem in _USUAL] or files
    if len(files) > 1:
      names = ", ".join(file.name for file in files)
      raise ValueError(f"{folder} holds several weight files ({names}): give one of them.")
    if files:
      return files[0]
  return None


def _read_parts(index: pathlib.Path) -> Source:
  try:
    places = text_files.read_json(index)["weight_map"]
    names = sorted(set(places.values()))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{index} is damaged, or no index of weight files.") from error
  if outside := [name for name in names if pathlib.PurePath(str(name)).name != name]:
    raise ValueError(f"{index} names {outside[0]!r}, which is no file beside it: it is not read.")
  files = [index.parent / name for name in names]
  if missing := [file.name for file in files if not file.is_file()]:
    raise ValueError(
      f"{len(missing)} of the {len(files)} parts that {index} names are missing: "
      f"{summarise(missing)}. Fetch them beside it."
    )
  parts = {file.name: _read_file(file) for file in files}
  held_where = {key: name for name, part in parts.items() for key in part}
  if held_where != places:
    wrong = min(key for key in held_where.keys() | places.keys()
                if held_where.get(key) != places.get(key))  # fmt: skip
    raise ValueError(f"{index} and the parts beside it do not agree, for example on {wrong}.")
  return Source({key: parts[name][key] for key, name in places.items()}, tuple(files))


def _read_file(path: pathlib.Path) -> Tensors:
  with path.open("rb") as file:
    head = file.read(9)
  if head[8:] == b"{":  # after the header's length
    return _read_safetensors(path)
  if head.startswith((b"PK\x03\x04", b"\x80\x02")) and path.suffix != ".safetensors":
    return _read_torch(path)
  raise ValueError(f"{path} is damaged, or neither a safetensors nor a PyTorch file.")


def _read_safetensors(path: pathlib.Path) -> Tensors:
  try:
    # Not mapped: a file truncated later gives an error, not a crash, and memory stays small.
    file = safetensors.safe_open(path, "np", backend="pread")
  except safetensors.SafetensorError as error:
    raise ValueError(f"{path} is damaged or cut short: {error}.") from error
  tensors = {}
  for name in file.keys():
    entry = file.get_slice(name)
    if entry.get_dtype() not in _DTYPES:
      raise ValueError(f"{path} holds {name} as {entry.get_dtype()}, which is not read here.")
    load = _loader(file.get_tensor, name)
    tensors[name] = Tensor(tuple(entry.get_shape()), _DTYPES[entry.get_dtype()], load)
  return tensors


def _loader(get: Callable[[Any], np.ndarray], argument: Any) -> Callable[[], np.ndarray]:
  return lambda: get(argument)


def _read_torch(path: pathlib.Path) -> Tensors:
  import torch

  content = load_torch(path)
  for name in _STATES:
    if isinstance(content, dict) and isinstance(content.get(name), dict):
      content = content[name]
      break
  if not isinstance(content, dict) or not content:
    raise ValueError(f"{path} holds no dict of tensors.")
  for name, value in content.items():
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
      raise ValueError(f"{path} holds no dict of tensors: {name!r} is a {type(value).__name__}.")
  dtypes: dict[Any, np.dtype] = {getattr(torch, str(dtype)): dtype for dtype in _CODES}
  for name, value in content.items():
    if value.dtype not in dtypes:
      raise ValueError(f"{path} holds {name} as {value.dtype}, which is not read here.")

  def get(value: Any) -> np.ndarray:
    value = value.detach().contiguous()
    if value.dtype is torch.bfloat16:
      return value.view(torch.int16).numpy().view(_BFLOAT16)
    return value.numpy()

  return {
    name: Tensor(tuple(value.shape), dtypes[value.dtype], _loader(get, value))
    for name, value in content.items()
  }


def load_torch(path: pathlib.Path) -> Any:
  """Loads a file of `torch.save` that holds only tensors, numbers and containers.

  Zip files stay on disk until their tensors are read.

  Raises:
    ImportError: PyTorch is not installed.
    ValueError: the file is damaged, or holds something else.
  """
  try:
    import torch
  except ImportError as error:
    raise ImportError('Reading PyTorch\'s files needs PyTorch: pip install -e ".[parity]".') from (
      error
    )
  try:
    mapped = zipfile.is_zipfile(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
  except pickle.UnpicklingError as error:
    raise ValueError(
      f"{path} holds more than tensors and numbers, or is no PyTorch file: it is not read. Many "
      "such files are published as .safetensors too."
    ) from error
  except (EOFError, LookupError, RuntimeError) as error:  # PyTorch's parser raises these
    raise ValueError(f"{path} is damaged, or no PyTorch file.") from error


def write(path: pathlib.Path, tensors: Mapping[str, Tensor]) -> None:
  """Writes a safetensors file, one tensor in memory at a time.

  The library's own writer needs all tensors at once. The order is the same: wide types first, then
  by name.
  """
  names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
  header: dict[str, Any] = {}
  end = 0
  for name in names:
    begin, end = end, end + tensors[name].size * tensors[name].dtype.itemsize
    header[name] = {
      "dtype": _CODES[tensors[name].dtype],
      "shape": list(tensors[name].shape),
      "data_offsets": [begin, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with path.open("xb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
      array = np.ascontiguousarray(tensors[name].load(), tensors[name].dtype)
      file.write(array.reshape(-1).view(np.uint8).data)
