"""The trained systems that ship with the repository, by name, and any other run by its folder."""

import os
import pathlib
from typing import TYPE_CHECKING, Any

from videodiff_jax import typed
from videodiff_jax.training.workdir import read_config

if TYPE_CHECKING:
  from videodiff_jax import glober, lgcvd

# Beside the package in a checkout, which `pip install -e .` leaves where it is. A wheel lacks it.
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "experiments" / "pretrained"


def names() -> list[str]:
  """Of the systems that ship."""
  return sorted(file.parent.name for file in FOLDER.glob("[!.]*/config.json"))


def find(name: str | os.PathLike[str]) -> pathlib.Path:
  """The folder of a shipped name, or else of a path.

  Raises:
    FileNotFoundError: neither; lists the names there are.
  """
  if name in names():
    return FOLDER / name
  path = typed.path(name)
  if path.is_dir():
    return path
  if not FOLDER.is_dir():
    raise FileNotFoundError(
      f"No folder {path}, and no shipped weights: they lie in experiments/pretrained of the "
      "repository, which an installed package does not bring. Clone it and pip install -e . there, "
      "or give the path of a workdir or an exported folder."
    )
  raise FileNotFoundError(
    f"No shipped weights {str(name)!r}, and no such folder. There are: "
    f"{', '.join(names()) or 'none yet'}; or give the path of a workdir or an exported folder."
  )


def load(name: str | os.PathLike[str], **settings: Any) -> "glober.Pipeline | lgcvd.Pipeline":
  """The pipeline of a shipped system, or of any workdir or exported folder.

  Args:
    name: of a folder in experiments/pretrained, which goes before a path; or a path.
    **settings: replace entries of `config.sample`, as in `Pipeline.with_settings`.

  Returns:
    A `glober.Pipeline` or a `lgcvd.Pipeline`, whichever the run's system is.

  Raises:
    FileNotFoundError: no such name or folder; lists the names there are.
    CheckpointError: a folder that is no workdir, or lacks a stage's weights.
  """
  folder = find(name)
  # Imported late: only the system that is asked for.
  if read_config(folder).system == "glober":
    from videodiff_jax.glober.pipeline import Pipeline
  else:
    from videodiff_jax.lgcvd.pipeline import Pipeline
  return Pipeline.from_workdir(folder, **settings)
