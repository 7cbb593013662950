"""Full disks and read-only mounts: one sentence, and nothing lost when there is room again."""

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.faults import commands, kills, runs
from tests.faults.ledger import Ledger

pytestmark = [
  pytest.mark.faults,
  pytest.mark.skipif(os.geteuid() != 0, reason="mounting small disks needs root"),
]
PART = "disk"


@contextlib.contextmanager
def disk(place: pathlib.Path, kilobytes: int) -> Iterator[pathlib.Path]:
  """A disk of so many kB at `place`."""
  shutil.rmtree(place, ignore_errors=True)
  place.mkdir(parents=True)
  _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place))
  try:
    yield place
  finally:
    subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(*arguments: str) -> None:
  subprocess.run(["mount", *arguments], check=True, capture_output=True)


def kilobytes(folder: pathlib.Path) -> int:
  """What a folder takes, in whole pages."""
  files = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
  return sum(-(-size // 4096) * 4 for size in files)


def record(case: str, outcome: commands.Outcome, lost: list[str], ledger: Ledger) -> None:
  """A command that a fault stopped; `lost` of what the same command made when it was mended."""
  verdict = outcome.verdict if not lost else "lost"
  ledger.add(PART, case, verdict, "; ".join([outcome.told, *lost])[:300])


FULL = [
  *((system, "train", share) for system in runs.STAGES for share in (0.3, 0.7, 0.95)),
  ("glober", "sample", 1.01), ("glober", "sample", 1.05), ("lgcvd", "predict", 1.02),
  *(("glober", "prepare", share) for share in (0.2, 0.5, 0.9)),
]  # fmt: skip


@pytest.mark.parametrize(("system", "mode", "share"), FULL)
def test_full(system, mode, share, store, workdirs, folder) -> None:
  """A disk of a share of what is needed, then of enough."""
  ledger, case = Ledger(), f"full, {system} {mode} at {share:.0%}"
  if not ledger.left(PART, [case]):
    return
  whole = store if mode == "prepare" else workdirs[system]
  with disk(folder / "disk", int(share * kilobytes(whole))) as place:
    if mode == "prepare":
      command = runs.preparation(place / "store")
    elif mode == "train":
      command = runs.training(system, place / "run", store)
    else:
      _copy(whole, place / "run")
      command = runs.mode(mode, place / "run")
    log = folder / "disk.log"
    outcome = commands.run(command.module, command.argv, log)
    _mount("-o", "remount,size=200m", str(place))
    again = commands.run(command.module, command.argv, log)
    lost = [] if again.verdict == "accepted" else [f"with room again: {again.told}"]
    if not lost and mode == "prepare":
      lost = kills.lost_of_tree(whole, place / "store")["lost"]
    elif not lost:
      lost = kills.lost_of_run(whole, place / "run", runs.STAGES[system])["lost"]
  record(case, outcome, lost, ledger)
  ledger.check(PART, case)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  with contextlib.suppress(shutil.Error, OSError):  # as much as there is room for
    shutil.copytree(source, target)


READ_ONLY = ("train", "train new", "sample", "redraw", "reconstruct", "report", "export", "prepare")


@pytest.mark.parametrize("mode", READ_ONLY)
def test_read_only(mode, store, workdirs, folder) -> None:
  ledger, case = Ledger(), f"read-only, {mode}"
  if not ledger.left(PART, [case]):
    return
  workdir = workdirs["glober"]
  with disk(folder / "disk", 200_000) as place:
    shutil.copytree(workdir, place / "run")
    if mode == "train":  # goes on
      shutil.rmtree(place / "run" / "generator" / "checkpoints" / "8")
    _mount("-o", "remount,ro", str(place))
    command = {
      "train": runs.training("glober", place / "run", store),
      "train new": runs.training("glober", place / "new", store),
      "prepare": runs.preparation(place / "store"),
      "export": runs.mode("export", place / "run", f"--out={place}/exported"),
    }.get(mode, runs.mode(mode, place / "run"))
    outcome = commands.run(command.module, command.argv, folder / "disk.log")
  record(case, outcome, [], ledger)
  ledger.check(PART, case)
