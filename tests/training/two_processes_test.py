"""Two processes of four CPU devices on loopback train and save; one process restores."""

import pathlib

import chex
import jax
import numpy as np

from tests import processes
from tests.training import toy
from videodiff_jax.training import loop, partitioning, validation
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.writers import points, read_metrics


def run_two(folder: pathlib.Path, steps: int) -> None:
  for status, said in processes.run("tests.training.process", [str(folder), str(steps)], 2, 4):
    assert status == 0, said


def test_two_processes_train_and_one_restores(tmp_path) -> None:
  run_two(tmp_path / "two", 4)
  # Both together resume where they stopped.
  run_two(tmp_path / "two", 6)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  restored = Checkpoints(tmp_path / "two" / "checkpoints")
  assert restored.latest_step() == 6
  state = restored.restore(6, loop.abstract_state(toy.make_stage(), 0, mesh))
  run = toy.run(tmp_path / "one", 6)
  validated = validation.Validation(3, lambda: toy.held_out(mesh))
  loop.train(toy.make_stage(), run, toy.FROZEN, toy.batches, {}, lambda *_: None, validated)
  alone = Checkpoints(tmp_path / "one" / "checkpoints").restore(
    6, loop.abstract_state(toy.make_stage(), 0, mesh)
  )
  assert int(state.step) == 6
  validation_losses = [
    dict(points(read_metrics(tmp_path / name / "metrics.jsonl"), "validation_loss"))
    for name in ("two", "one")
  ]
  # The first run of the two ended at step 4.
  assert [list(losses) for losses in validation_losses] == [[3, 4, 6], [3, 6]]
  for step, loss in validation_losses[1].items():
    np.testing.assert_allclose(validation_losses[0][step], loss, rtol=1e-5)
  for name in ("params", "ema_params", "statistics", "adversary"):
    pair = getattr(state, name), getattr(alone, name)
    chex.assert_trees_all_close(*pair, rtol=1e-5, atol=1e-6)
