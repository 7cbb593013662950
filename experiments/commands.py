"""The commands that a workdir was made with, in commands.jsonl, one a line, as they were given."""

import json
import pathlib
import shlex
import sys
from typing import Any

from experiments import outputs, train

_FILE = "commands.jsonl"


def record(workdir: pathlib.Path) -> None:
  """Adds this process's command, which is done."""
  command = shlex.join(["python", "-m", "experiments.main", *sys.argv[1:]])
  line = json.dumps({"command": command, "code": train.code_version()})
  folder = outputs.folder(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / _FILE).open("a") as file:
    file.write(line + "\n")


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """[{'command', 'code'}], oldest first; none for a run made before they were recorded."""
  file = workdir / _FILE
  return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def mode_of(entry: dict[str, Any]) -> str:
  """The mode of a recorded command."""
  options = (word.lstrip("-").partition("=") for word in shlex.split(entry["command"]))
  return next((value for name, _, value in options if name == "mode"), "train")
