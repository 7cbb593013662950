"""Two processes of four CPU devices on loopback train and save; one process restores."""

import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np

from tests.training import toy
from videodiff_jax.training import loop, partitioning
from videodiff_jax.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_two(folder: pathlib.Path, steps: int) -> None:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  children = [
    subprocess.Popen(
      [sys.executable, "-m", "tests.training.process", *map(str, (folder, port, i, 2, steps))],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    for i in range(2)
  ]  # fmt: skip
  for child in children:
    output, _ = child.communicate(timeout=240)
    assert child.returncode == 0, output


def test_two_processes_train_and_one_restores(tmp_path) -> None:
  run_two(tmp_path / "two", 4)
  # Both together resume where they stopped.
  run_two(tmp_path / "two", 6)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  restored = Checkpoints(tmp_path / "two" / "checkpoints")
  assert restored.latest_step() == 6
  state = restored.restore(6, loop.abstract_state(toy.make_stage(), 0, mesh))
  run = toy.run(tmp_path / "one", 6)
  loop.train(toy.make_stage(), run, toy.FROZEN, toy.batches, {}, lambda *_: None)
  alone = Checkpoints(tmp_path / "one" / "checkpoints").restore(
    6, loop.abstract_state(toy.make_stage(), 0, mesh)
  )
  assert int(state.step) == 6
  for name in ("params", "ema_params", "statistics", "adversary"):
    for a, b in zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(alone, name))):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
