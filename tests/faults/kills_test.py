"""Nothing is lost by kills: bit for bit, whatever the moment.

The default run has none of these: tests/training and tests/data kill where it matters most.
"""

import dataclasses
import pathlib
import random
import shutil
from collections.abc import Callable

import pytest

from tests.faults import commands, kills, runs
from tests.faults.ledger import Ledger

pytestmark = pytest.mark.faults

SEED = 1
PER_RUN = 5  # kills of one run, which then ends undisturbed
PART_OF_DRAWING = "kill: sampling and cache"


def campaign(
  part: str,
  command_of: Callable[[pathlib.Path], kills.Command],
  compare: Callable[[pathlib.Path], dict],
  seconds: float,
  wanted: int,
  folder: pathlib.Path,
  case: str = "train",
) -> None:
  """Kills runs of a command until so many kills have hit; every run ends, and is compared."""
  ledger, what = Ledger(), case
  rows = [
    row for row in ledger.rows()
    if row["part"] == part and row["verdict"] == "kept" and row["case"].startswith(what)
  ]  # fmt: skip
  done, number = sum(row["attempts"] for row in rows), 0
  known = {row["case"] for row in rows}
  while done < wanted:
    number += 1
    case = f"{what}, seed {SEED}, run {number}"
    if case in known:
      continue
    target = folder / f"killed {part.split(': ')[1]}, {what} {number}".replace(" ", "_")
    shutil.rmtree(target, ignore_errors=True)
    target.with_name(f"{target.name}.log").unlink(missing_ok=True)
    command = command_of(target)
    rng = random.Random(f"{part} {case}")
    went = kills.until_done(command, rng, seconds, min(PER_RUN, wanted - done))
    if went.outcome.verdict == "accepted" and not went.problems:
      found = compare(target)
      lost = found.pop("lost")
      verdict, told = ("lost", "; ".join(lost)[:300]) if lost else ("kept", "")
    else:
      found, verdict = {}, "traceback"
      told = "; ".join([*went.problems, went.outcome.told])[:300]
    seconds = min(seconds, went.outcome.seconds)  # other work makes this machine slow at times
    attempts = len(went.told)
    if attempts or verdict != "kept":
      ledger.add(part, case, verdict, told, attempts=attempts, kills=went.told, compared=found)
    done += attempts
    if verdict == "kept":
      shutil.rmtree(target)
  ledger.check(part)


@pytest.mark.parametrize("system", ["lgcvd", "glober"])
def test_training(system, store, folder) -> None:
  expected, seconds = runs.trained(system, folder, store)
  campaign(
    f"kill: {runs.NAMES[system]} training",
    lambda target: runs.training(system, target, store),
    lambda target: kills.lost_of_run(expected, target, runs.STAGES[system]),
    seconds, 25, folder,
  )  # fmt: skip


def test_training_on_a_slow_disk(store, folder) -> None:
  """Most of the time goes by while checkpoints are written, checked and renamed."""
  expected, seconds = runs.trained("lgcvd", folder, store)

  def slowly(target: pathlib.Path) -> kills.Command:
    command = runs.training("lgcvd", target, store)
    return dataclasses.replace(command, environment={commands.SLOW: "0.2"})

  campaign(
    "kill: slow disk", slowly,
    lambda target: kills.lost_of_run(expected, target, runs.STAGES["lgcvd"]),
    4 * seconds, 10, folder, case="lgcvd train",
  )  # fmt: skip


@pytest.mark.parametrize(("system", "mode"), [("glober", "sample"), ("lgcvd", "predict")])
def test_sampling(system, mode, store, folder) -> None:
  """What is killed leaves nothing torn, and the report is written."""
  trained, seconds = runs.trained(system, folder, store)

  def begun(target: pathlib.Path) -> kills.Command:
    shutil.copytree(trained, target)
    return runs.mode(mode, target)

  def compare(target: pathlib.Path) -> dict:
    found = kills.lost_of_run(trained, target, runs.STAGES[system])
    report = runs.mode("report", target)
    outcome = commands.run(report.module, report.argv, report.log)
    found["lost"] += [] if outcome.verdict == "accepted" else [f"report: {outcome.told}"]
    return found

  campaign(PART_OF_DRAWING, begun, compare, seconds / 2, 5, folder, case=f"{system} {mode}")


def test_cache(store, folder, cache) -> None:
  trained, seconds = runs.trained("glober", folder, store)

  def caching(target: pathlib.Path) -> kills.Command:
    shutil.copytree(trained, target)
    return runs.caching(target, store)

  campaign(
    PART_OF_DRAWING, caching,
    lambda target: kills.lost_of_tree(cache, target / runs.CACHE),
    seconds / 3, 5, folder, case="glober cache",
  )  # fmt: skip


def test_preparation(store, folder) -> None:
  _, seconds = runs.undisturbed(runs.preparation(folder / "prepared" / "store"))
  campaign(
    "kill: preparation",
    lambda target: runs.preparation(target / "store"),
    lambda target: kills.lost_of_tree(store, target / "store"),
    seconds, 20, folder, case="moving_digits",
  )  # fmt: skip
