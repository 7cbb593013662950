"""SIGTERM while a program compiles: nothing is lost, and nobody waits for the compiler."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import chex
import jax
import pytest

from tests import processes
from tests.training import toy
from videodiff_jax import command
from videodiff_jax.training import hosts, loop, partitioning, validation
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.writers import read_metrics

STEPS = 5


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
  target = loop.abstract_state(
    toy.make_stage(), 0, partitioning.make_mesh(devices=jax.devices()[:1])
  )
  states = [
    Checkpoints(folder / "checkpoints").restore(STEPS, target) for folder in (whole, stopped)
  ]
  chex.assert_trees_all_equal(*(s.replace(key=jax.random.key_data(s.key)) for s in states))
  rows = [
    [(row["step"], row["validation_loss"]) for row in read_metrics(folder / "metrics.jsonl")
     if "validation_loss" in row]
    for folder in (whole, stopped)
  ]  # fmt: skip
  assert rows[0] == rows[1] and [step for step, _ in rows[0]] == [2, 4, 5]


def main(folder: str) -> None:
  """One of several processes whose step compiles for hours, at the start of which SIGTERM comes."""
  hosts.join()
  first = jax.process_index() == 0

  def hours() -> None:
    if first:  # one of them is enough
      os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()

  ((_, function),) = toy.make_stage().train_steps
  stage = dataclasses.replace(toy.make_stage(), train_steps=((0, slow(function, hours)),))
  mesh = partitioning.make_mesh()
  rows = partitioning.local_rows(mesh, 8)

  def batches(start: int) -> Any:
    for batch in toy.batches(start):
      yield {name: value[rows] for name, value in batch.items()}

  run = toy.run(pathlib.Path(folder), STEPS, mesh=mesh)
  with command.door("Again."):
    if not loop.train(stage, run, toy.FROZEN, batches, {}, lambda *_: None):
      raise command.Terminated


def test_every_process_ends_with_143_and_leaves_the_compiler_behind(tmp_path) -> None:
  module = "tests.training.terminated_test"
  for status, said in processes.run(module, [str(tmp_path)], 2, timeout=120):
    assert status == command.TERMINATED, said
    assert said.splitlines()[-1] == "Ended by SIGTERM. Again."
  saved = Checkpoints(tmp_path / "checkpoints")
  assert saved.latest_step() == 0


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
