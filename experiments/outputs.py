"""Where a mode writes: into its workdir or, where that is an exported folder, beside it."""

import pathlib

from absl import flags, logging

from experiments.errors import UserError
from videodiff_jax.training import exported


def check(workdir: pathlib.Path, mode: str) -> None:
  """Tells where a mode will write, if not into its workdir.

  Raises:
    UserError: a mode that goes on in its workdir, for an exported folder; errors of `folder`.
  """
  if not exported.is_one(workdir):
    folder(workdir)
  elif mode in ("ablation", "cache", "train"):
    raise UserError(
      f"{workdir} is an exported folder, which is only read, so there is no --mode={mode} in it. "
      f"To go on from its weights: --mode=train --config.init.run={workdir} --workdir=runs/NEW."
    )
  else:
    logging.info("%s is only read: what is made of it goes to %s.", workdir, folder(workdir))


def folder(workdir: pathlib.Path) -> pathlib.Path:
  """Where samples, scores and the report of a workdir go: a folder that may not be there yet.

  Raises:
    UserError: --out with a workdir, which takes them itself; or another run lies there.
  """
  given = flags.FLAGS["out"].value if "out" in flags.FLAGS else None  # no command: none is given
  if not exported.is_one(workdir):
    if given is not None:
      raise UserError(
        f"--out belongs to --mode=export and to exported folders: what is made of {workdir} goes "
        "into it."
      )
    return workdir
  out = pathlib.Path(given or f"runs/pretrained/{workdir.name}").expanduser().absolute()
  if (out / "config.json").exists():
    raise UserError(f"{out} holds a run of its own: give another --out.")
  return out
