"""Validation: the averaged weights' loss, the same wherever it is computed; it trains nothing."""

import os
import pathlib
import signal
from collections.abc import Iterator

import chex
import jax
import numpy as np
import pytest

from tests.training import toy
from videodiff_jax.training import loop, partitioning
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.curves import Expected
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.validation import CLIPS, Losses, Validation, sizes
from videodiff_jax.training.workdir import load_state
from videodiff_jax.training.writers import points, read_metrics

STEPS = 9


def train(folder: pathlib.Path, every: int, stop_after: int = -1) -> bool:
  def batches(start: int) -> Iterator:
    for i, batch in enumerate(toy.batches(start)):
      if start == 0 and i == stop_after:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  run = toy.run(folder / "toy", STEPS)
  validation = Validation(every, lambda: toy.held_out(run.mesh)) if every else None
  return loop.train(toy.make_stage(), run, toy.FROZEN, batches, {}, lambda *_: None, validation)


def final_state(folder: pathlib.Path) -> list[np.ndarray]:
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  config = type("Config", (), {"seed": 0})
  state = load_state(config, folder, toy.make_stage(), mesh)
  return jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))


def test_it_changes_nothing_and_a_resumed_run_has_the_same_numbers(tmp_path) -> None:
  without, whole, parts = (tmp_path / name for name in ("without", "whole", "parts"))
  assert train(without, 0)
  assert train(whole, 2)
  assert not train(parts, 2, stop_after=5) and train(parts, 2)
  expected = final_state(without)
  for folder in (whole, parts):
    chex.assert_trees_all_equal(expected, final_state(folder))
  once, resumed = (
    points(read_metrics(folder / "toy" / "metrics.jsonl"), "validation_loss")
    for folder in (whole, parts)
  )
  assert [step for step, _ in once] == [2, 4, 6, 8, 9]
  assert once == resumed
  assert len({loss for _, loss in once}) == 5
  assert not points(read_metrics(without / "toy" / "metrics.jsonl"), "validation_loss")


def test_it_comes_before_the_checkpoint_that_a_killed_run_goes_on_from(
  tmp_path, monkeypatch
) -> None:
  def killed(*_) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(Checkpoints, "save", killed)
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, 2)
  rows = read_metrics(tmp_path / "toy" / "metrics.jsonl")
  assert [step for step, _ in points(rows, "validation_loss")] == [2, 4]


def test_a_worse_run_is_warned_of_and_the_best_step_told(tmp_path, caplog) -> None:
  caplog.set_level("INFO", logger="absl")
  run = toy.run(tmp_path, STEPS)
  expected = Expected(tmp_path / "curves.json", "toy", [2, 9], [1e3, 1e-3], 0.15)
  validation = Validation(2, lambda: toy.held_out(run.mesh), expected)
  assert loop.train(toy.make_stage(), run, toy.FROZEN, toy.batches, {}, lambda *_: None, validation)
  found = points(read_metrics(tmp_path / "metrics.jsonl"), "validation_loss")
  warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
  assert len(warnings) == 1 and "Stage toy at step 9" in warnings[0]
  best_loss, best_step = min((loss, step) for step, loss in found)
  said = [record.getMessage() for record in caplog.records]
  assert f"Stage toy: lowest validation loss {best_loss:.4g}, at step {best_step}." in said


def a_state(mesh: jax.sharding.Mesh) -> TrainState:
  state = toy.make_stage().init(jax.random.key(3))
  key = jax.random.key_data(state.key)
  state = jax.device_put(
    jax.device_get(state.replace(key=None)), partitioning.shardings(state.replace(key=None), mesh)
  )
  return state.replace(key=jax.random.wrap_key_data(np.asarray(key)))


def losses_on(data: int, fsdp: int, **changes: object) -> dict[str, float]:
  mesh = partitioning.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
  with jax.set_mesh(mesh):
    losses = Losses(toy.make_stage(), mesh, Validation(1, lambda: toy.held_out(mesh)))
    return losses(a_state(mesh).replace(**changes), toy.FROZEN)


def test_one_device_and_eight_agree() -> None:
  one, eight = losses_on(1, 1), losses_on(2, 4)
  assert one.keys() == eight.keys() == {"validation_loss"}
  np.testing.assert_allclose(one["validation_loss"], eight["validation_loss"], rtol=1e-5)


def test_it_is_of_the_average_and_depends_on_neither_step_nor_seed() -> None:
  expected = losses_on(1, 1)
  other = {"params": {"centre": np.zeros(toy.WIDTH, np.float32)}}
  assert losses_on(1, 1, **other, step=np.int32(7), key=jax.random.key(5)) == expected
  assert losses_on(1, 1, ema_params=other["params"]) != expected


@pytest.mark.parametrize(
  ("devices", "expected"),
  [(1, (16, 4)), (8, (16, 4)), (12, (48, 2)), (64, (64, 1)), (256, (256, 1))],
)
def test_batches_split_over_every_device(devices: int, expected: tuple[int, int]) -> None:
  mesh = type("Mesh", (), {"devices": np.zeros(devices)})
  assert sizes(mesh) == expected
  assert expected[0] % devices == 0 and expected[0] * expected[1] >= CLIPS
