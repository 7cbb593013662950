"""The same command twice at once in one place: nothing is doubled, torn or lost."""

import shutil
import time

import pytest

from tests.faults import commands, kills, runs
from tests.faults.ledger import Ledger

pytestmark = pytest.mark.faults

PART = "two at once"
MODES = [("glober", "sample"), ("glober", "redraw"), ("lgcvd", "predict"), ("glober", "report")]


def both(command: kills.Command, killed: str = "") -> list[commands.Outcome]:
  """What becomes of two of a command; of one, where the first is killed once `killed` is there."""
  logs = [command.log.with_suffix(f".{i}.log") for i in range(2)]
  for log in logs:
    log.unlink(missing_ok=True)
  processes = [commands.start(command.module, command.argv, logs[0])]
  while killed and processes[0].is_alive() and not any(command.folder.glob(killed)):
    time.sleep(0.005)
  processes.append(commands.start(command.module, command.argv, logs[1]))
  if killed:
    processes.pop(0).kill()
    logs.pop(0)
  outcomes = []
  for process, log in zip(processes, logs):
    process.join(4 * commands.LIMIT)
    status = process.exitcode
    if status is None:
      process.kill()
      process.join()
    outcomes.append(commands.Outcome(status, log.read_text(errors="replace")))
  return outcomes


def record(case: str, outcomes: list[commands.Outcome], lost: list[str]) -> None:
  """The worse verdict of both, or what is missing."""
  ledger = Ledger()
  order = ("accepted", "refused", "hang", "traceback")
  worst = max(outcomes, key=lambda outcome: order.index(outcome.verdict))
  good = {"accepted": "kept"}.get(worst.verdict, worst.verdict)
  told = "; ".join([worst.told, *lost])[:300]
  ledger.add(PART, case, "lost" if lost else good, told, attempts=len(outcomes))
  ledger.check(PART, case)


@pytest.mark.parametrize(("system", "mode"), MODES)
def test_drawing(system, mode, workdirs, folder) -> None:
  """Both draw, each under a number of its own; what was there stays."""
  if not Ledger().left(PART, [f"{system} {mode}"]):
    return
  workdir = folder / "two_at_once"
  shutil.rmtree(workdir, ignore_errors=True)
  shutil.copytree(workdirs[system], workdir)
  before = len(list(workdir.glob("samples/*/samples.npz")))
  outcomes = both(runs.mode(mode, workdir))
  wanted = before + (0 if mode == "report" else 2)
  found = len(list(workdir.glob("samples/*/samples.npz")))
  lost = [] if found == wanted else [f"{found} samples, not {wanted}"]
  lost += kills.lost_of_run(workdirs[system], workdir, runs.STAGES[system], drawn=False)["lost"]
  lost += [str(outcome.verdict) for outcome in outcomes if outcome.verdict == "refused"]
  record(f"{system} {mode}", outcomes, lost)


def test_training(workdirs, store, folder) -> None:
  """One trains, the other is refused, and what is trained is what one alone trains."""
  if not Ledger().left(PART, ["lgcvd train"]):
    return
  workdir = folder / "two_at_once"
  shutil.rmtree(workdir, ignore_errors=True)
  outcomes = both(runs.training("lgcvd", workdir, store))
  lost = kills.lost_of_run(workdirs["lgcvd"], workdir, runs.STAGES["lgcvd"])["lost"]
  record("lgcvd train", outcomes, lost)


@pytest.mark.parametrize("killed", ["", "store.parts/lock", "store.parts/*.json"])
def test_preparation(store, folder, killed) -> None:
  """One waits for the other, and takes over where it is killed."""
  case = f"prepare, one killed by {killed}" if killed else "prepare"
  if not Ledger().left(PART, [case]):
    return
  target = folder / "two_at_once"
  shutil.rmtree(target, ignore_errors=True)
  outcomes = both(runs.preparation(target / "store"), killed)
  record(case, outcomes, kills.lost_of_tree(store, target / "store")["lost"])
