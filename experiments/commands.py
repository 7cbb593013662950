"""The commands that a workdir was made with, in commands.jsonl, one a line, as they were given."""

import json
import pathlib
import shlex
import sys
from typing import Any

from experiments import outputs, train
from videodiff_jax import text_files, whole_files

_FILE = "commands.jsonl"


def record(workdir: pathlib.Path) -> None:
  """Adds this process's command, which is done."""
  command = shlex.join(["python", "-m", "experiments.main", *sys.argv[1:]])
  line = json.dumps({"command": command, "code": train.code_version()})
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
