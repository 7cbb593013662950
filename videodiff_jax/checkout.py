"""The console command `videodiff`: the same as `python -m experiments.main`, from any folder.

Only the package is installed; configs, data and experiments stay in the checkout, which an editable
installation (`pip install -e .`) leaves beside it.
"""

import pathlib
import runpy
import sys

from videodiff_jax.command import fail

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> None:
  """Runs experiments/main.py of the checkout; exits with status 1 if there is none."""
  if not (ROOT / "experiments" / "main.py").is_file():
    fail(
      "Error: videodiff runs from a checkout, and this installation has only the package: clone "
      "the repository and run pip install -e . there.",
      1,
    )
  sys.path.insert(0, str(ROOT))  # as `python -m` does with the current folder
  runpy.run_module("experiments.main", run_name="__main__", alter_sys=True)
