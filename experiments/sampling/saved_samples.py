"""What --mode=redraw takes of an earlier sample: its samples.npz, read with care."""

import pathlib
from typing import NamedTuple

import numpy as np

from experiments.setup.errors import UserError
from videodiff_jax.typed import MAX_SEED


class Saved(NamedTuple):
  """What clips were drawn from.

  Attributes:
    global_features: (n, H'', W'', C'') float32, finite.
    labels: (n,) classes.
    prompts: (n,) text, or None where none was given.
    seed: of every draw.
  """

  global_features: np.ndarray
  labels: np.ndarray
  prompts: np.ndarray | None
  seed: int


def read(file: pathlib.Path) -> Saved:
  """A samples.npz; whether its features are the system's own, drawing says.

  Raises:
    UserError: there is none, or it is something else or damaged.
  """
  if not file.is_file():
    raise UserError(f"No file {file}. Give --input=FOLDER/samples.npz of an earlier sample.")
  try:
    with np.load(file) as saved:
      names = ("global_features", "labels", "prompts", "seed")
      features, labels, prompts, seed = (np.asarray(saved[name]) for name in names)
  except Exception as error:  # of many kinds, on what NumPy cannot parse
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
    raise UserError(f"{file} is no samples.npz of --mode=sample: its {found} are of another form.")
  return Saved(features, labels, prompts if prompts.any() else None, int(seed))


def _in_short(error: Exception) -> str:
  """Its first sentence: NumPy's second tells how to run what a file holds."""
  return f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
