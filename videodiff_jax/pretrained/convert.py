"""`python -m videodiff_jax.pretrained.convert`: the command in experiments/tools/convert.py."""

import pathlib
import runpy
import sys

if __name__ == "__main__":
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / "experiments" / "tools" / "convert.py").is_file():
    sys.exit("This command needs a checkout of the repository: install it with pip install -e .")
  sys.path.insert(0, str(root))
  runpy.run_module("experiments.tools.convert", run_name="__main__", alter_sys=True)
