"""Loads the trained systems that ship with the repository by name, and other runs by folder."""

import os
import pathlib
from typing import TYPE_CHECKING, Any

from videodiff_jax import typed
from videodiff_jax.choices import check_choice
from videodiff_jax.training.workdir import read_config

if TYPE_CHECKING:
  from videodiff_jax import glober, lgcvd

# Beside the package in a checkout, which `pip install -e .` keeps in place. A wheel lacks it.
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "experiments" / "pretrained"


def names() -> list[str]:
  """Returns the names of the systems that ship."""
  return sorted(file.parent.name for file in FOLDER.glob("[!.]*/config.json"))


def find(name: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of a shipped system, or else the folder at a path.

  Raises:
    FileNotFoundError: it is neither; the message lists the shipped names.
  """
  if name in names():
    return FOLDER / name
  path = typed.path(name)
  if path.is_dir():
    return path
  if not FOLDER.is_dir():
    raise FileNotFoundError(
      f"No folder {path}, and no shipped weights: they lie in experiments/pretrained of the "
      "repository, which an installed package lacks. Clone it and pip install -e . there, "
      "or give the path of a workdir or an exported folder."
    )
  raise FileNotFoundError(
    f"No shipped weights {str(name)!r}, and no such folder. There are: "
    f"{', '.join(names()) or 'none yet'}; or give the path of a workdir or an exported folder."
  )


def load(name: str | os.PathLike[str], **settings: Any) -> "glober.Pipeline | lgcvd.Pipeline":
  """Loads the pipeline of a shipped system, or of any workdir or exported folder.

  Args:
    name: the name of a folder in experiments/pretrained, which has precedence, or a path.
    **settings: replace entries of `config.sample`, as in `Pipeline.with_settings`.

  Returns:
    A `glober.Pipeline` or a `lgcvd.Pipeline`, as the run's system is.

  Raises:
    FileNotFoundError: there is no such name or folder; the message lists the shipped names.
    CheckpointError: the folder is no workdir, or lacks a stage's weights.
  """
  folder = find(name)
  # Late, so that only the requested system is imported.
  system = read_config(folder).system
  check_choice(f"system in {folder}/config.json:", system, ("glober", "lgcvd"))
  if system == "glober":
    from videodiff_jax import glober

    return glober.Pipeline.from_workdir(folder, **settings)
  from videodiff_jax import lgcvd

  return lgcvd.Pipeline.from_workdir(folder, **settings)
