"""Where a mode writes: into its workdir or, if that is an exported folder, elsewhere."""

import os
import pathlib
import shutil

from absl import flags, logging

from experiments.setup.errors import UserError
from videodiff_jax import storage
from videodiff_jax.training import exported

# Bytes of a page, a line, a picture; for samples, `check_room` is called again.
_LEAST = 256 * 1024


def check_place(workdir: pathlib.Path, mode: str) -> None:
  """Raises UserError if a mode needs a disk, but its workdir is an address."""
  if mode == "ablation" and storage.is_remote(workdir):
    raise UserError(
      "--mode=ablation copies stages from run to run, which takes a disk: give another --workdir."
    )


def check(workdir: pathlib.Path, mode: str) -> None:
  """Checks that a mode can write, and logs the folder if it is not the workdir.

  Raises:
    UserError: the mode changes its workdir, but that is an exported folder; or errors of `folder`
      and `check_room`.
  """
  trains = mode in ("ablation", "train")
  if exported.is_exported(workdir):
    if trains or mode == "cache":
      raise UserError(
        f"{workdir} is an exported folder, which is only read, so there is no --mode={mode} in it. "
        f"To go on from its weights: --mode=train --config.init.run={workdir} --workdir=runs/NEW."
      )
    logging.info("%s is only read; results go to %s.", workdir, folder(workdir))
  if trains or workdir.is_dir():
    check_room(folder(workdir), 0 if trains else _LEAST)  # training checks its own needs


def folder(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder for a workdir's samples, scores and report; it may not exist yet.

  Raises:
    UserError: --out is given with a workdir, which holds them itself; or --out holds another run.
  """
  # --out is undefined outside of the command.
  given = flags.FLAGS["out"].value if "out" in flags.FLAGS else None
  if not exported.is_exported(workdir):
    if given is not None:
      raise UserError(
        f"--out is for --mode=export and exported folders; results of {workdir} go into that "
        "workdir: remove --out."
      )
    return workdir
  out = storage.path(given or f"runs/pretrained/{workdir.name}").absolute()
  if (out / "config.json").exists():
    raise UserError(f"{out} holds a run of its own: give another --out.")
  return out


def check_room(place: pathlib.Path, needed: int) -> None:
  """Checks before long work that its results can be written to a folder; it may not exist yet.

  Raises:
    UserError: the folder cannot be written to, or its disk has fewer than `needed` bytes free.
  """
  if storage.is_remote(place):  # which has no limit of its own; its first file shows the rights
    return
  there = next(path for path in (place, *place.parents) if path.exists())
  if not os.access(there, os.W_OK):
    raise UserError(
      f"{there} cannot be written to (it is read-only, or another user's), but results go there: "
      "copy the workdir to a place of your own, or change the permissions."
    )
  free = shutil.disk_usage(there).free
  if free < needed:
    raise UserError(
      f"The results in {place} need about {needed / 1e6:.3g} MB, but its disk has "
      f"{free / 1e6:.3g} MB free: free some space first."
    )
