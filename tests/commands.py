"""Many command lines of one command in one process, as if each had been typed by itself."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
_PROGRAM = """
import contextlib, importlib, io, json, pathlib, sys, traceback
from absl import flags
from absl.testing import flagsaver
import grain  # it and what it imports define flags, which must outlive each command line
from array_record.python import array_record_data_source
from videodiff_jax import config_flag

module, root = importlib.import_module(sys.argv[1]), pathlib.Path(sys.argv[2])
getattr(module, "define_flags", lambda: None)()
ended = []
for arguments in json.load(sys.stdin):
  sys.argv = [module.__name__, *arguments]
  said, status = io.StringIO(), 0
  with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
    with flagsaver.flagsaver():
      try:
        module.main(config_flag.parse_flags(sys.argv, root))
      except SystemExit as end:
        status = end.code
      except BaseException:
        traceback.print_exc()
        status = None
  ended.append((status, said.getvalue()))
print(json.dumps(ended))
"""


def run(
  module: str, lines: Sequence[Sequence[str]], folder: pathlib.Path, **environment: str
) -> list[tuple[int | None, str]]:
  """Runs each line in `folder`: (exit status, stderr); status None for a traceback."""
  done = subprocess.run(
    [sys.executable, "-c", _PROGRAM, module, str(ROOT)],
    input=json.dumps(lines),
    cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return [tuple(entry) for entry in json.loads(done.stdout.splitlines()[-1])]
