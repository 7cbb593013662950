"""What made a file: the code's version, and the commands of a workdir, one a line, as given."""

import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from absl import logging

import videodiff_jax
from experiments.workdirs import outputs
from videodiff_jax import text_files, whole_files

_FILE = "commands.jsonl"


def record(workdir: pathlib.Path) -> None:
  """Adds this process's command, which is done."""
  command = shlex.join(["python", "-m", "experiments.main", *sys.argv[1:]])
  line = json.dumps({"command": command, "code": code_version()})
  folder = outputs.folder(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  whole_files.append_line(folder / _FILE, line)


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """[{'command', 'code'}], oldest first; none for a run made before they were recorded.

  Lines that are no command are passed over with a warning.
  """
  file = workdir / _FILE
  return text_files.read_log(file, _is_command) if file.is_file() else []


def _is_command(entry: dict[str, Any]) -> bool:
  if not all(isinstance(entry.get(key), str) for key in ("command", "code")):
    return False
  try:
    return bool(shlex.split(entry["command"]))
  except ValueError:  # a quotation that does not end
    return False


def mode_of(entry: dict[str, Any]) -> str:
  """The mode of a recorded command."""
  options = (word.lstrip("-").partition("=") for word in shlex.split(entry["command"]))
  return next((value for name, _, value in options if name == "mode"), "train")


def code_version() -> str:
  """The package's version and, in a checkout, its commit."""
  try:
    commit = subprocess.run(
      ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"],
      capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
  except (OSError, subprocess.CalledProcessError):
    logging.info("Not a git checkout: checkpoints carry the package's version alone.")
    return videodiff_jax.__version__
  return f"{videodiff_jax.__version__}+{commit}"
