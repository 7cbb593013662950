"""The loop: exact resume, clean stops, no bad state saved, nothing foreign restored."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from videodiff_jax.training import compiled_steps, loop, partitioning
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState

FROZEN = toy.FROZEN
ROOT = pathlib.Path(__file__).resolve().parents[2]


def train(
  folder: pathlib.Path,
  steps: int,
  batches: Callable[[int], Iterator] = toy.batches,
  frozen: Any = FROZEN,
  previews: list | None = None,
  stage: Stage | None = None,
  **changes: Any,
) -> bool:
  def write_preview(step: int, videos: dict[str, np.ndarray]) -> None:
    if previews is not None:
      previews.append((step, videos))

  stage = stage or toy.make_stage()
  return loop.train(stage, toy.run(folder, steps, **changes), frozen, batches, {}, write_preview)


def final_state(folder: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  stage = toy.make_stage()
  target = loop.abstract_state(stage, 0, partitioning.make_mesh(devices=jax.devices()[:1]))
  state = Checkpoints(folder / "checkpoints").restore(step, target)
  state = state.replace(key=jax.random.key_data(state.key))
  return {
    jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(state)
  }


def terminate_after(count: int) -> Callable[[int], Iterator]:
  """Batches that send this process a SIGTERM while one of them is fetched."""

  def batches(start: int) -> Iterator:
    for i, batch in enumerate(toy.batches(start)):
      if start == 0 and i == count:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  return batches


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path) -> None:
  assert train(tmp_path / "whole", 9)
  # The statistics take the first two batches of a stream of their own.
  assert not train(tmp_path / "parts", 9, terminate_after(4))
  stopped = Checkpoints(tmp_path / "parts" / "checkpoints").latest_step()
  assert 0 < stopped < 9
  assert train(tmp_path / "parts", 9)
  whole, parts = final_state(tmp_path / "whole", 9), final_state(tmp_path / "parts", 9)
  chex.assert_trees_all_equal(parts, whole)


def test_killed_and_resumed_equals_undisturbed_bit_for_bit(tmp_path) -> None:
  """SIGKILL while it trains and saves every few milliseconds; whatever is complete is taken."""
  killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
  command = [sys.executable, "-m", "tests.training.toy", str(killed)]
  child = subprocess.Popen(command, cwd=ROOT)  # the same devices and XLA flags as here
  deadline = time.monotonic() + 120
  while not (killed / "checkpoints" / "12").is_dir():
    assert child.poll() is None and time.monotonic() < deadline
    time.sleep(0.01)
  child.kill()
  assert child.wait() == -signal.SIGKILL
  newest = Checkpoints(killed / "checkpoints").latest_step()
  assert newest >= 12
  lines = (killed / "metrics.jsonl").read_text().splitlines()
  assert json.loads(lines[-1])["step"] >= newest
  steps = newest + 5
  assert train(killed, steps)
  assert train(undisturbed, steps)
  expected, resumed = final_state(undisturbed, steps), final_state(killed, steps)
  chex.assert_trees_all_equal(resumed, expected)


def test_a_step_is_traced_once(tmp_path) -> None:
  ((first, function),) = toy.make_stage().train_steps
  chex.clear_trace_counter()
  once = chex.assert_max_traces(function, n=1)
  stage = dataclasses.replace(toy.make_stage(), train_steps=((first, once),))
  assert train(tmp_path, 6, stage=stage)


@pytest.mark.parametrize("switch", [0, 3])
def test_sigterm_while_a_step_compiles_ends_training_before_that_step(
  tmp_path, monkeypatch, switch
) -> None:
  """The first program and a later one are compiled in time; no step waits for it."""
  if switch:  # or it would compile, and stop the run, while the steps before it are trained
    never = property(lambda self: False, lambda self, ahead: None)
    monkeypatch.setattr(compiled_steps.Programs, "_ahead", never, raising=False)
  ((_, function),) = toy.make_stage().train_steps
  hours = threading.Event()

  def slow(*arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    assert hours.wait(60)
    return function(*arguments)

  steps = ((0, function), (switch, slow)) if switch else ((0, slow),)
  stage = dataclasses.replace(toy.make_stage(), train_steps=steps)
  assert not train(tmp_path / "stopped", 6, stage=stage)
  assert not hours.is_set()
  hours.set()
  assert Checkpoints(tmp_path / "stopped" / "checkpoints").latest_step() == switch
  assert train(tmp_path / "stopped", 6) and train(tmp_path / "whole", 6)
  whole, stopped = (final_state(tmp_path / name, 6) for name in ("whole", "stopped"))
  chex.assert_trees_all_equal(stopped, whole)


def test_sigterm_does_not_outlive_the_loop(tmp_path) -> None:
  before = signal.getsignal(signal.SIGTERM)
  train(tmp_path, 2)
  assert signal.getsignal(signal.SIGTERM) is before


def test_restores_onto_another_mesh(tmp_path) -> None:
  train(tmp_path, 4)
  eight = partitioning.make_mesh(2, 4)
  assert train(tmp_path, 6, mesh=eight)
  assert train(tmp_path / "one", 6)
  chex.assert_trees_all_close(
    final_state(tmp_path, 6), final_state(tmp_path / "one", 6), rtol=1e-7, atol=1e-5
  )


def test_finished_stage_is_left_alone(tmp_path) -> None:
  train(tmp_path, 4)
  lines = (tmp_path / "metrics.jsonl").read_text()

  def untouched(start: int) -> Iterator:
    raise AssertionError("a finished stage reads no data")

  assert train(tmp_path, 4, untouched)
  assert (tmp_path / "metrics.jsonl").read_text() == lines


@pytest.mark.parametrize("steps", [4, 6])
def test_what_a_kill_left_undone_is_made_up_for_at_the_next_start(tmp_path, steps) -> None:
  """Between a checkpoint and its preview, or before the curves; here of a finished stage, too."""
  whole: list = []
  train(tmp_path, 4, previews=whole, preview_every=4)
  (tmp_path / "curves.png").unlink()
  again: list = []
  stage, run = toy.make_stage(), toy.run(tmp_path, steps, preview_every=4)

  def again_to(step: int, videos: dict[str, np.ndarray]) -> None:
    again.append((step, videos))

  assert loop.train(
    stage, run, FROZEN, toy.batches, {}, again_to, has_preview=lambda step: bool(again)
  )
  assert [step for step, _ in again] == ([4] if steps == 4 else [4, 6])
  np.testing.assert_array_equal(again[0][1]["centre"], whole[0][1]["centre"])
  assert (tmp_path / "curves.png").is_file()
  drawn = (tmp_path / "curves.png").stat().st_mtime_ns
  assert loop.train(stage, run, FROZEN, toy.batches, {}, again_to, has_preview=lambda step: True)
  assert (tmp_path / "curves.png").stat().st_mtime_ns == drawn and len(again) == 1 + (steps > 4)


def test_statistics_are_those_of_the_first_examples(tmp_path) -> None:
  train(tmp_path, 2)
  stream = toy.batches(0)
  examples = np.concatenate([next(stream)["frames"] for _ in range(2)]).reshape(-1, toy.WIDTH)
  state = final_state(tmp_path, 2)
  np.testing.assert_allclose(state[".statistics['frames']['mean']"], examples.mean(0), rtol=1e-5)
  np.testing.assert_allclose(state[".statistics['frames']['std']"], examples.std(0), rtol=1e-5)


def test_non_finite_loss_names_step_examples_and_checkpoint(tmp_path) -> None:
  with pytest.raises(loop.NonFiniteLossError) as caught:
    train(tmp_path, 20, lambda start: toy.batches(start, poison=50))
  message = str(caught.value)
  assert "at step 7" in message  # examples 48..55
  assert "48, 49, 50" in message
  assert "step 4" in message
  assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


def test_non_finite_gradient_stops_a_run_whose_loss_is_still_a_number(tmp_path) -> None:
  stage = toy.make_stage()
  step = stage.train_steps[0][1]

  def overflowing(state: TrainState, frozen: Any, batch: dict) -> tuple[TrainState, dict]:
    new, metrics = step(state, frozen, batch)
    norm = jnp.where(state.step == 5, jnp.inf, metrics["gradient_norm"])
    return new, metrics | {"gradient_norm": norm}

  stage = dataclasses.replace(stage, train_steps=((0, overflowing),))
  with pytest.raises(loop.NonFiniteLossError, match=r"gradient norm inf at step 6 .*: step 4 in"):
    loop.train(stage, toy.run(tmp_path, 20), FROZEN, toy.batches, {}, lambda *_: None)


def test_other_frozen_networks_are_refused(tmp_path) -> None:
  train(tmp_path, 2)
  other = {"shift": FROZEN["shift"] + 1e-3}
  with pytest.raises(CheckpointError, match="other frozen networks"):
    train(tmp_path, 4, frozen=other)


def test_torn_checkpoint_is_not_loaded(tmp_path) -> None:
  train(tmp_path, 8, log_every=4)
  checkpoints = tmp_path / "checkpoints"
  # What a kill during a write leaves: a folder of the temporary name.
  torn = checkpoints / "12.orbax-checkpoint-tmp"
  shutil.copytree(checkpoints / "8", torn)
  assert Checkpoints(checkpoints).latest_step() == 8
  assert train(tmp_path, 10)
  assert Checkpoints(checkpoints).latest_step() == 10


def test_missing_checkpoint_is_an_error(tmp_path) -> None:
  train(tmp_path, 2)
  target = loop.abstract_state(toy.make_stage(), 0, partitioning.make_mesh())
  with pytest.raises(CheckpointError, match="It has steps 2"):
    Checkpoints(tmp_path / "checkpoints").restore(3, target)


def test_what_a_run_leaves(tmp_path) -> None:
  previews: list = []
  train(tmp_path, 6, previews=previews, preview_every=4)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows] == [2, 4, 6]
  assert {"loss", "gradient_norm", "steps_per_s", "frames_per_s", "input_wait"} <= rows[0].keys()
  assert (tmp_path / "curves.png").stat().st_size > 1000
  assert list(tmp_path.glob("events.out.tfevents*"))
  assert [step for step, _ in previews] == [4, 6]
  assert previews[0][1]["centre"].dtype == np.uint8


def test_previews_draw_from_no_key_of_the_parameters(tmp_path) -> None:
  """Stages split the key they are given: its splits must not come back in a preview's."""
  stage, previews = toy.make_stage(), []

  def splits(key: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.split(key, 8))

  def preview(train: TrainState, frozen: Any, batch: dict, key: jax.Array) -> dict:
    ours = jnp.concatenate([jax.random.key_data(key)[None], splits(key)])
    same = (ours[:, None] == splits(jax.random.key(0))[None]).all(-1).any()
    return {"same": jnp.full((1, 1, 4, 4, 1), jnp.where(same, 1.0, -1.0))}

  stage = dataclasses.replace(stage, preview=preview)
  train(tmp_path, 2, previews=previews, stage=stage)
  assert previews[0][1]["same"].max() == 0


def test_every_step_can_be_logged_and_saved(tmp_path) -> None:
  train(tmp_path, 3, log_every=1, checkpoint_every=1)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows] == [1, 2, 3]
  assert all(np.isfinite(row["loss"]) for row in rows)


def test_second_step_function_takes_over(tmp_path) -> None:
  """Also when training is stopped there and goes on."""
  stage = toy.make_stage()
  ((_, first),) = stage.train_steps

  def second(*arguments: Any) -> Any:
    state, metrics = first(*arguments)
    return state, metrics | {"late": jnp.float32(1)}

  stage = dataclasses.replace(stage, train_steps=((0, first), (3, second)))
  for steps in (2, 3, 5):
    assert train(tmp_path, steps, stage=stage, log_every=1)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows if "late" in row] == [4, 5]


def test_next_program_compiles_before_it_is_asked_for() -> None:
  stage = toy.make_stage()
  ((_, function),) = stage.train_steps
  traced: list[int] = []

  def numbered(number: int) -> Callable:
    def step(*arguments: Any) -> Any:
      traced.append(number)
      return function(*arguments)

    return step

  stage = dataclasses.replace(stage, train_steps=((0, numbered(0)), (5, numbered(1))))
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  with jax.set_mesh(mesh):
    state = loop.abstract_state(stage, 0, mesh)
    batch = partitioning.put_batch(next(toy.batches(0)), mesh)
    made = compiled_steps.Programs(stage, (state, FROZEN, batch), step=2, steps=9)
    assert made.take().end == 5
    deadline = time.monotonic() + 60
    while traced != [0, 1] and time.monotonic() < deadline:
      time.sleep(0.01)
    made.close()
  assert traced == [0, 1]


def test_state_is_donated(tmp_path) -> None:
  stage = toy.make_stage()
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  with jax.set_mesh(mesh):
    state: TrainState = jax.jit(stage.init)(jax.random.key(0))
    state = jax.device_put(state, partitioning.shardings(state, mesh))
    batch = partitioning.put_batch(next(toy.batches(0)), mesh)
    compiled = (
      compiled_steps.trace_step(stage.train_steps[0][1], state, FROZEN, batch).lower().compile()
    )
    compiled(state, FROZEN, batch)
  assert state.params["centre"].is_deleted()
