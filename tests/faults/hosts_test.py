"""A signal to one of two processes: the other ends too, and both go on without a loss."""

import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import time

import pytest

from tests.faults import commands, kills, runs
from tests.faults.ledger import Ledger

pytestmark = pytest.mark.faults

PART = "kill: one of two hosts"
PATIENCE = 200  # seconds, of which --host_timeout takes 60
# 0 is the coordinator. By the first line of metrics, or while a checkpoint is written.
CASES = [
  (name, index, moment)
  for name in ("SIGTERM", "SIGKILL", "SIGINT")
  for index in (1, 0)
  for moment in ("step", "checkpoint")
]


@dataclasses.dataclass
class Pair:
  """Two processes of one training; `logs` are what each says."""

  command: kills.Command

  def start(self) -> None:
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    self.logs = [self.command.log.with_suffix(f".{i}.log") for i in range(2)]
    for log in self.logs:
      log.unlink(missing_ok=True)
    self.processes = [
      commands.start(
        self.command.module, self.command.argv, log,
        JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}", JAX_NUM_PROCESSES="2",
        JAX_PROCESS_ID=str(i), JAX_NUM_CPU_DEVICES="1",
      )
      for i, log in enumerate(self.logs)
    ]  # fmt: skip

  def end(self) -> list[commands.Outcome]:
    """Waits for both; who goes on after the limit is killed."""
    began, outcomes = time.monotonic(), []
    for process, log in zip(self.processes, self.logs):
      process.join(max(began + PATIENCE - time.monotonic(), 0.1))
      status = process.exitcode
      if status is None:
        process.kill()
        process.join()
      said = log.read_text(errors="replace") if log.exists() else ""
      outcomes.append(commands.Outcome(status, said, time.monotonic() - began))
    return outcomes


def trained(workdir: pathlib.Path, store: pathlib.Path) -> Pair:
  command = runs.training("lgcvd", workdir, store)
  more = "--config.after=()", "--host_timeout=60"
  return Pair(dataclasses.replace(command, argv=(*command.argv, *more)))


@pytest.fixture(scope="module")
def whole(folder, store) -> pathlib.Path:
  """What two processes make that nobody disturbs."""
  workdir = folder / "undisturbed_two_hosts"
  if not (workdir / "lgcvd" / "curves.png").exists():
    pair = trained(workdir, store)
    pair.start()
    for outcome in pair.end():
      assert outcome.status == 0, outcome.said
  return workdir


@pytest.mark.parametrize(("name", "index", "moment"), CASES)
def test_one_of_two(name, index, moment, whole, store, folder) -> None:
  ledger, case = Ledger(), f"{name} to host {index} at a {moment}"
  if not ledger.left(PART, [case]):
    return
  workdir = folder / "one_of_two"
  shutil.rmtree(workdir, ignore_errors=True)
  pair = trained(workdir, store)
  pair.start()
  metrics = workdir / "lgcvd" / "metrics.jsonl"
  began = time.monotonic()

  def come() -> bool:
    if moment == "step":
      return metrics.exists() and bool(metrics.read_text())
    return any(workdir.glob("lgcvd/checkpoints/*.orbax-checkpoint-tmp*"))

  while time.monotonic() - began < PATIENCE and not come():
    time.sleep(0.005)
  os.kill(pair.processes[index].pid, getattr(signal, name))
  outcomes = pair.end()
  other = outcomes[1 - index]
  verdict, told = "kept", f"the other ended with {other.status} after {other.seconds:.0f} s"
  if None in (outcomes[0].status, outcomes[1].status):
    verdict = "hang"
  # The runtime that misses a host prints a stack of its own: the sentence must come first.
  first = other.said.find("Error: ")
  stack = other.said.find("Traceback (most recent call last)")
  if verdict == "kept" and 0 <= stack and not 0 <= first < stack:
    verdict, told = "traceback", f"{told}: {other.told}"
  pair.start()
  again = pair.end()
  if any(outcome.status != 0 for outcome in again):
    verdict, told = "lost", f"started again: {again[0].told}; {again[1].told}"
  else:
    found = kills.lost_of_run(whole, workdir, runs.STAGES["lgcvd"])
    if found["lost"]:
      verdict, told = "lost", "; ".join(found["lost"])
  ledger.add(PART, case, verdict, told[:300])
  ledger.check(PART, case)
