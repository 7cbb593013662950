"""Reads and checks the samples.npz that --mode=redraw takes from an earlier sample."""

import pathlib
from typing import NamedTuple

import numpy as np

from experiments.setup.errors import UserError
from videodiff_jax.typed import MAX_SEED


class Saved(NamedTuple):
  """The inputs that saved clips were drawn from.

  Attributes:
    global_features: (n, H'', W'', C'') float32, finite.
    labels: (n,) classes.
    prompts: (n,) text, or None if no prompts were given.
    seed: seed of the draw.
  """

  global_features: np.ndarray
  labels: np.ndarray
  prompts: np.ndarray | None
  seed: int


def read(file: pathlib.Path) -> Saved:
  """Reads a samples.npz; whether its features fit the system is checked when they are drawn.

  Raises:
    UserError: the file is missing, damaged, or not a samples.npz.
  """
  if not file.is_file():
    raise UserError(f"No file {file}. Give --input=FOLDER/samples.npz of an earlier sample.")
  try:
    with file.open("rb") as opened, np.load(opened) as saved:
      names = ("global_features", "labels", "prompts", "seed")
      features, labels, prompts, seed = (np.asarray(saved[name]) for name in names)
  except Exception as error:  # NumPy raises many kinds
    raise UserError(
      f"{file} is no samples.npz of --mode=sample, or damaged ({_in_short(error)}). Give another "
      "--input."
    ) from error
  n = len(features) if features.ndim else 0
  wrong = {
    "global_features": features.ndim != 4 or features.dtype.kind != "f" or not n,
    "labels": labels.shape != (n,) or labels.dtype.kind not in "iu",
    "prompts": prompts.shape != (n,) or prompts.dtype.kind != "U",
    "seed": seed.shape != () or seed.dtype.kind not in "iu" or not 0 <= seed <= MAX_SEED,
  }
  if any(wrong.values()):
    found = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
    raise UserError(
      f"{file} is no samples.npz of --mode=sample: wrong shape or type of {found}. Give another "
      "--input."
    )
  return Saved(features, labels, prompts if prompts.any() else None, int(seed))


def _in_short(error: Exception) -> str:
  """Returns the error's first sentence; NumPy's second says how to run code in the file."""
  return f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
