"""Records what made a workdir: the code's version, and the commands as given, one a line."""

import hashlib
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
_SOURCES = ("configs", "data", "experiments", "videodiff_jax")


def record(workdir: pathlib.Path) -> None:
  """Appends this process's command to the workdir's list, once the command is done."""
  command = shlex.join(["python", "-m", "experiments.main", *sys.argv[1:]])
  line = json.dumps({"command": command, "code": code_version()})
  folder = outputs.folder(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  whole_files.append_line(folder / _FILE, line)


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns [{'command', 'code'}], oldest first; [] for a run older than this record.

  Lines that are not commands are skipped with a warning.
  """
  file = workdir / _FILE
  return text_files.read_log(file, _is_command) if file.is_file() else []


def _is_command(entry: dict[str, Any]) -> bool:
  if not all(isinstance(entry.get(key), str) for key in ("command", "code")):
    return False
  try:
    return bool(shlex.split(entry["command"]))
  except ValueError:  # an unclosed quotation
    return False


def mode_of(entry: dict[str, Any]) -> str:
  """Returns the mode of a recorded command."""
  options = (word.lstrip("-").partition("=") for word in shlex.split(entry["command"]))
  return next((value for name, _, value in options if name == "mode"), "train")


def hash_of_sources() -> str:
  """Returns a short hash of the project's Python files, which also tells uncommitted changes."""
  root, digest = pathlib.Path(__file__).parents[2], hashlib.sha256()
  for file in sorted(root.glob("*/**/*.py")):
    if file.relative_to(root).parts[0] in _SOURCES:
      digest.update(file.read_bytes())
  return digest.hexdigest()[:12]


def code_version() -> str:
  """Returns the package's version and, in a checkout, its commit."""
  try:
    commit = subprocess.run(
      ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"],
      capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
  except (OSError, subprocess.CalledProcessError):
    logging.info("Not a git checkout: checkpoints record only the package's version.")
    return videodiff_jax.__version__
  return f"{videodiff_jax.__version__}+{commit}"
