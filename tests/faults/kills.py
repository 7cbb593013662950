"""Commands killed at random moments, and what is lost of what they would have left."""

import dataclasses
import io
import json
import os
import pathlib
import random
import signal
import time
from collections.abc import Mapping, Sequence

import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from tests.faults import commands
from videodiff_jax.training.writers import read_metrics

_POLL = 0.02  # seconds
# Metrics that depend on the clock.
_TIMED = {"steps_per_s", "frames_per_s", "gflops_per_s", "input_wait", "mfu"}
# SIGKILL mostly; what a scheduler and a person send, now and then.
_SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Command:
  """`python -m module argv`, which writes into `folder`; `environment` beside that of a shell."""

  module: str
  argv: tuple[str, ...]
  folder: pathlib.Path
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def log(self) -> pathlib.Path:
    return self.folder.with_name(f"{self.folder.name}.log")


@dataclasses.dataclass
class Kills:
  """What a command went through until it was done.

  Attributes:
    told: one line a kill.
    outcome: of its last start, which nobody killed.
    problems: tracebacks of those that were killed or started again.
  """

  told: list[str]
  outcome: commands.Outcome
  problems: list[str]


def until_done(command: Command, rng: random.Random, seconds: float, wanted: int) -> Kills:
  """Kills a command again and again, and lets it end at last.

  Args:
    command: what to start.
    rng: draws the moments: half of them by the clock, half by how many files have come.
    seconds: an undisturbed run takes.
    wanted: kills; fewer where it is done before.
  """
  told: list[str] = []
  problems: list[str] = []
  while len(told) < wanted:
    seen = _entries(command.folder)
    by_clock = rng.random() < 0.5
    delay, files = rng.uniform(0, seconds), rng.randint(1, 25)
    number, written = rng.choice(_SIGNALS), _size(command.log)
    process = commands.start(command.module, command.argv, command.log, **command.environment)
    began = time.monotonic()
    while process.exitcode is None:
      if (
        time.monotonic() - began > delay
        if by_clock
        else len(_entries(command.folder) - seen) >= files
      ):
        os.kill(process.pid, number)
        break
      process.join(_POLL)
    hit = process.exitcode is None
    process.join(commands.LIMIT)
    if process.exitcode is None:
      problems.append(f"{number.name}: it goes on after {commands.LIMIT:.0f} s")
      process.kill()
      process.join()
    said = command.log.read_bytes()[written:].decode(errors="replace")
    if "Traceback (most recent call last)" in said:
      problems.append(f"{number.name}: {said.splitlines()[-1][:200]}")
    if not hit:
      taken = time.monotonic() - began
      return Kills(told, commands.Outcome(process.exitcode, said, taken), problems)
    when = f"after {delay:.2f} s" if by_clock else f"with {files} more files"
    told.append(f"{number.name} {when}: status {process.exitcode}")
  ended = commands.run(command.module, command.argv, command.log, **command.environment)
  return Kills(told, ended, problems)


def _entries(folder: pathlib.Path) -> set[str]:
  """All files and folders below; those that come and go meanwhile do no harm."""
  found = set()
  for base, folders, files in os.walk(folder):
    found.update(os.path.join(base, name) for name in (*folders, *files))
  return found


def _size(file: pathlib.Path) -> int:
  return file.stat().st_size if file.exists() else 0


# ---- what is lost


def lost_of_run(
  expected: pathlib.Path, found: pathlib.Path, stages: Sequence[str], drawn: bool = True
) -> dict:
  """How much of an undisturbed workdir is there, bit for bit: {'arrays', 'rows', 'files', 'lost'}.

  'lost' names every array, row of metrics, preview, picture of curves and sample that differs, and
  every file that cannot be read. Without `drawn` the newest sample may be another.
  """
  lost, arrays, rows = [], 0, 0
  for stage in stages:
    wanted, got = (arrays_of(folder / stage / "checkpoints") for folder in (expected, found))
    arrays += len(wanted)
    lost += [f"{stage} {name}" for name in wanted if not _same(wanted[name], got.get(name))]
    wanted, got = (_rows(folder / stage / "metrics.jsonl") for folder in (expected, found))
    rows += len(wanted)
    lost += [f"{stage} metrics {i}" for i, row in enumerate(wanted) if got[i : i + 1] != [row]]
    for file in sorted((expected / stage / "previews").iterdir()):
      other = found / file.relative_to(expected)
      if not other.is_file() or other.read_bytes() != file.read_bytes():
        lost.append(f"{stage} preview {file.name}")
    if not (found / stage / "curves.png").is_file():
      lost.append(f"{stage}/curves.png")
  wanted, got = (_newest_sample(folder) if drawn else {} for folder in (expected, found))
  lost += [f"sample {name}" for name in wanted if not _same(wanted[name], got.get(name))]
  files = [file for file in found.rglob("*") if file.is_file() and "checkpoints" not in file.parts]
  lost += [f"{file.relative_to(found)} torn" for file in files if not _whole(file)]
  return {"arrays": arrays, "rows": rows, "files": len(files), "lost": lost}


def lost_of_tree(expected: pathlib.Path, found: pathlib.Path) -> dict:
  """The same of a store or a cache, whose every byte counts."""
  wanted, got = (
    {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}
    for root in (expected, found)
  )
  lost = [name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name)]
  return {"files": len(wanted), "lost": sorted(lost)}


def arrays_of(checkpoints: pathlib.Path) -> dict[str, np.ndarray]:
  """Every array of the last checkpoint, whoever wrote it."""
  steps = [int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdecimal()]
  found = {"step": np.array(max(steps))}
  for item in ("ema", "rest"):
    folder = checkpoints / str(max(steps)) / item
    with ocp.PyTreeCheckpointer() as reader:
      tree = reader.metadata(folder).item_metadata.tree
      as_numpy = _map(tree, lambda _: ocp.RestoreArgs(restore_type=np.ndarray))
      read = reader.restore(folder, restore_args=as_numpy)
    found |= {f"{item}{name}": np.asarray(array) for name, array in _leaves(read)}
  return found


def _map(tree, function):
  import jax

  return jax.tree.map(function, tree)


def _leaves(tree) -> list[tuple[str, np.ndarray]]:
  import jax

  flat = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def same_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
  """Whether both hold the same arrays, bit for bit."""
  return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)


def _same(a: np.ndarray, b: np.ndarray | None) -> bool:
  return b is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _rows(file: pathlib.Path) -> list[dict[str, float]]:
  if not file.is_file():
    return []
  return [{k: v for k, v in row.items() if k not in _TIMED} for row in read_metrics(file)]


def _newest_sample(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  files = sorted(workdir.glob("samples/*/samples.npz"))
  if not files:
    return {}
  with np.load(files[-1]) as saved:
    return dict(saved)


def _whole(file: pathlib.Path) -> bool:
  """Whether a file can be read to its end, as far as its kind tells."""
  try:
    if file.suffix in (".png", ".gif"):
      with Image.open(file) as image:
        for page in range(getattr(image, "n_frames", 1)):
          image.seek(page)
          image.load()
    elif file.suffix == ".npz":
      with np.load(file) as saved:
        dict(saved)
    elif file.suffix == ".json":
      json.loads(file.read_text())
    elif file.suffix == ".jsonl":
      [json.loads(line) for line in io.StringIO(file.read_text()) if line.strip()]
  except Exception:
    return False
  return True
