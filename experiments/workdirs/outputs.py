"""Where a mode writes: into its workdir or, where that is an exported folder, beside it."""

import os
import pathlib
import shutil

from absl import flags, logging

from experiments.setup.errors import UserError
from videodiff_jax.training import exported

# A page, a line, a picture; of drawn clips, `check_room` is asked again.
_LEAST = 256 * 1024


def check(workdir: pathlib.Path, mode: str) -> None:
  """Tells where a mode will write, if not into its workdir.

  Raises:
    UserError: a mode that goes on in its workdir, for an exported folder; errors of `folder` and
      `check_room`.
  """
  trains = mode in ("ablation", "train")
  if exported.is_exported(workdir):
    if trains or mode == "cache":
      raise UserError(
        f"{workdir} is an exported folder, which is only read, so there is no --mode={mode} in it. "
        f"To go on from its weights: --mode=train --config.init.run={workdir} --workdir=runs/NEW."
      )
    logging.info("%s is only read: what is made of it goes to %s.", workdir, folder(workdir))
  if trains or workdir.is_dir():
    check_room(folder(workdir), 0 if trains else _LEAST)  # training counts what it needs


def folder(workdir: pathlib.Path) -> pathlib.Path:
  """Where samples, scores and the report of a workdir go: a folder that may not be there yet.

  Raises:
    UserError: --out with a workdir, which takes them itself; or another run lies there.
  """
  given = flags.FLAGS["out"].value if "out" in flags.FLAGS else None  # no command: none is given
  if not exported.is_exported(workdir):
    if given is not None:
      raise UserError(
        f"--out belongs to --mode=export and to exported folders: what is made of {workdir} goes "
        "into it."
      )
    return workdir
  out = pathlib.Path(given or f"runs/pretrained/{workdir.name}").absolute()
  if (out / "config.json").exists():
    raise UserError(f"{out} holds a run of its own: give another --out.")
  return out


def check_room(place: pathlib.Path, needed: int) -> None:
  """Asked before what takes long is made for a folder, which may not be there yet.

  Raises:
    UserError: nothing can be written there, or its disk has fewer than `needed` bytes free.
  """
  there = next(path for path in (place, *place.parents) if path.exists())
  if not os.access(there, os.W_OK):
    raise UserError(
      f"{there} cannot be written to (it is read-only, or another user's), and what is made goes "
      "there: copy the workdir to a place of your own, or change the rights."
    )
  free = shutil.disk_usage(there).free
  if free < needed:
    raise UserError(
      f"What is written to {place} needs about {needed / 1e6:.3g} MB, but its disk has "
      f"{free / 1e6:.3g} MB free: make room first."
    )
