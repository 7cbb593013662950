"""SIGTERM while a program compiles, and to one of two processes: nothing is lost, nobody waits."""

import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import pytest

from tests import processes
from tests.training import toy
from videodiff_jax import command
from videodiff_jax.training import hosts, loop, partitioning, validation
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.writers import read_metrics

STEPS = 5
MANY, SIGNALLED = 60, 5  # steps of two processes, and the batch at which SIGTERM comes


def train(folder: pathlib.Path, **functions: Callable) -> tuple[bool, list[int]]:
  """Validates every second step and draws every third; returns the steps of the previews, too."""
  drawn: list[int] = []
  run = toy.run(folder, STEPS, preview_every=3, checkpoint_every=100)
  validated = validation.Validation(2, lambda: toy.held_out(run.mesh))
  stage = dataclasses.replace(toy.make_stage(), **functions)

  def write(step: int, videos: dict) -> None:
    drawn.append(step)

  finished = loop.train(
    stage, run, toy.FROZEN, toy.batches, {}, write, validated, lambda step: step in drawn
  )
  return finished, drawn


def slow(function: Callable, hours: Callable[[], None]) -> Callable:
  """The function, whose compilation takes hours: `hours` is called where it is traced for it."""

  def traced(*arguments: Any) -> Any:
    if threading.current_thread() is not threading.main_thread():  # which takes the shapes alone
      hours()
    return function(*arguments)

  return traced


@pytest.mark.parametrize(
  ("part", "saved"), [("init", None), ("measure", None), ("validate", 2), ("preview", 3)]
)
def test_another_program_than_a_step_s_is_not_waited_for(
  tmp_path, monkeypatch, part, saved
) -> None:
  """What was due is saved first, and the next start makes up for it."""
  go_on = threading.Event()

  def hours() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert go_on.wait(60)

  functions = {}
  if part == "init":  # whose trace the main thread has made
    monkeypatch.setattr(loop, "compile_for", slow(loop.compile_for, hours))
  else:
    functions[part] = slow(getattr(toy.make_stage(), part), hours)
  finished, drawn = train(tmp_path / "stopped", **functions)
  assert not finished and not drawn and not go_on.is_set()
  go_on.set()
  monkeypatch.undo()
  assert Checkpoints(tmp_path / "stopped" / "checkpoints").latest_step() == saved
  assert train(tmp_path / "stopped") == train(tmp_path / "whole") == (True, [3, 5])
  same(tmp_path / "whole", tmp_path / "stopped")


def same(whole: pathlib.Path, stopped: pathlib.Path) -> None:
  """The same state, and the same losses at the same steps."""
  equal_states(whole, stopped, STEPS)
  rows = [
    [(row["step"], row["validation_loss"]) for row in read_metrics(folder / "metrics.jsonl")
     if "validation_loss" in row]
    for folder in (whole, stopped)
  ]  # fmt: skip
  assert rows[0] == rows[1] and [step for step, _ in rows[0]] == [2, 4, 5]


def equal_states(whole: pathlib.Path, stopped: pathlib.Path, step: int) -> None:
  target = loop.abstract_state(
    toy.make_stage(), 0, partitioning.make_mesh(devices=jax.devices()[:1])
  )
  states = [
    Checkpoints(folder / "checkpoints").restore(step, target) for folder in (whole, stopped)
  ]
  chex.assert_trees_all_equal(*(s.replace(key=jax.random.key_data(s.key)) for s in states))


def main(folder: str, moment: str) -> None:
  """One of two processes; SIGTERM comes to one of them where a step compiles, or after a step."""
  hosts.join()
  first = jax.process_index() == 0

  def hours() -> None:
    if first:  # one of them is enough
      os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()

  stage, mesh = toy.make_stage(), partitioning.make_mesh()
  rows = partitioning.local_rows(mesh, 8)

  def batches(start: int, signalled: bool) -> Iterator[loop.HostBatch]:
    for number, batch in enumerate(toy.batches(start)):
      if signalled and number >= SIGNALLED:
        if number == SIGNALLED and not first:
          os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # as a large network's step takes
      yield {name: value[rows] for name, value in batch.items()}

  def train(name: str, stage: Stage, signalled: bool = False) -> bool:
    """Hosts meet nowhere between the first step and the last one but in the steps."""
    run = toy.run(
      pathlib.Path(folder) / name, MANY, mesh=mesh, log_every=10_000, checkpoint_every=10_000
    )
    given = functools.partial(batches, signalled=signalled)
    return loop.train(stage, run, toy.FROZEN, given, {}, lambda *_: None)

  with command.door("Again."):
    if moment == "compile":
      ((_, function),) = stage.train_steps
      stage = dataclasses.replace(stage, train_steps=((0, slow(function, hours)),))
    if moment == "step":
      assert train("whole", stage)
    if not train("stopped", stage, signalled=moment == "step"):
      raise command.Terminated


def run_two(folder: pathlib.Path, moment: str, expected: int) -> None:
  module = "tests.training.terminated_test"
  for status, said in processes.run(module, [str(folder), moment], 2, timeout=120):
    assert status == expected, said
    assert not expected or said.splitlines()[-1] == "Ended by SIGTERM. Again."


def test_every_process_ends_with_143_and_leaves_the_compiler_behind(tmp_path) -> None:
  run_two(tmp_path, "compile", command.TERMINATED)
  assert Checkpoints(tmp_path / "stopped" / "checkpoints").latest_step() == 0


def test_hosts_stop_a_few_steps_after_a_signal_to_one_and_go_on_without_a_difference(
  tmp_path,
) -> None:
  run_two(tmp_path, "step", command.TERMINATED)
  saved = Checkpoints(tmp_path / "stopped" / "checkpoints").latest_step()
  assert saved is not None and SIGNALLED <= saved < MANY // 2
  run_two(tmp_path, "again", 0)
  equal_states(tmp_path / "whole", tmp_path / "stopped", MANY)


def test_before_training_sigterm_ends_a_process_that_has_joined_others() -> None:
  """JAX's preemption service would only note it."""
  code = (
    "import os, signal, time; from videodiff_jax.training import hosts; hosts.join(); "
    "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
  )
  alone = {
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{processes.free_port()}",
    "JAX_NUM_PROCESSES": "1",
    "JAX_PROCESS_ID": "0",
  }
  ended = subprocess.run([sys.executable, "-c", code], cwd=processes.ROOT, env=os.environ | alone)
  assert ended.returncode == -signal.SIGTERM


if __name__ == "__main__":
  main(*sys.argv[1:])
