"""The autoencoder's stage, stopped and resumed on both sides of the step its CRA loss sets in."""

import dataclasses
import os
import pathlib
import re
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from data import prepare
from experiments.setup import frame_stores
from tests.glober import tiny
from videodiff_jax.glober import stages
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import loop, partitioning
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.compiled_steps import Program, Programs

pytestmark = pytest.mark.heavy

STEPS, CRA_FROM, BATCH = 6, 3, 8


class Trainee:
  """The stage as experiments.train.train runs it, on filled parameters and without previews."""

  def __init__(self, store: FrameStore):
    config = tiny.config()
    config.data.num_classes = 10
    config.loss.cra.start_step = CRA_FROM
    state = tiny.filled(config, "autoencoder")
    self.stage = dataclasses.replace(
      stages.make_stage(config, "autoencoder"), init=lambda key: state, preview=lambda *_: {}
    )
    self.config, self.store = config, store
    self.mesh = partitioning.make_mesh(devices=jax.devices()[:1])
    self.first_batches: list[tuple[int, tuple[int, ...]]] = []

  def train(self, folder: pathlib.Path, stop_at: int = -1) -> bool:
    """Trains on to STEPS; a SIGTERM comes while the batch after step `stop_at` is fetched."""

    def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
      sampler = frame_stores.clip_sampler(self.config, "pairs")
      stream = clips.batches(self.store, sampler, self.config.seed, BATCH, start)
      for step, batch in enumerate(stream, start // BATCH):
        if step == start // BATCH:
          self.first_batches.append((step, tuple(batch["video"].tolist())))
        if step == stop_at:
          os.kill(os.getpid(), signal.SIGTERM)
        yield batch

    run = loop.Run(
      folder, self.mesh, seed=0, steps=STEPS, batch_size=BATCH, log_every=2,
      checkpoint_every=STEPS, preview_every=STEPS, keep=1, meta={},
    )  # fmt: skip
    return loop.train(self.stage, run, tiny.frozen("autoencoder"), batches, {}, lambda *_: None)

  def state(self, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The newest checkpoint: parameters, average, both optimisers, adversary, key, step."""
    checkpoints = Checkpoints(folder / "checkpoints")
    target = loop.abstract_state(self.stage, 0, self.mesh)
    state = checkpoints.restore(checkpoints.latest_step(), target)
    leaves = jax.tree_util.tree_leaves_with_path(state.replace(key=jax.random.key_data(state.key)))
    return {jax.tree_util.keystr(path): np.asarray(value) for path, value in leaves}


@pytest.fixture(scope="module")
def trainee(tmp_path_factory: pytest.TempPathFactory) -> Trainee:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("moving_digits", folder, size=tiny.SIDE, num_videos=40)
  return Trainee(FrameStore.open(folder, "train"))


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
  """Each of the two step functions takes a quarter of a minute; every run gets the same program."""
  kept: dict[Callable, Program] = {}
  compile_ = Programs._compile

  def once(programs: Programs, function: Callable, end: int) -> Program:
    if function not in kept:
      kept[function] = compile_(programs, function, end)
    return dataclasses.replace(kept[function], end=end)

  monkeypatch.setattr(Programs, "_compile", once)


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(trainee, tmp_path) -> None:
  """Stopped before the CRA loss sets in, and again where the discriminator has moments."""
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  assert trainee.train(whole)
  assert not trainee.train(parts, stop_at=2)
  assert not trainee.train(parts, stop_at=5)
  stopped = trainee.state(parts)
  assert trainee.train(parts)
  # Where each run began, and that the data went on there.
  begun, ids = zip(*trainee.first_batches)
  assert begun == (0, 0, 2, 5)
  assert ids[0] == ids[1] and len({*ids}) == 3

  expected, resumed = trainee.state(whole), trainee.state(parts)
  assert expected.keys() == resumed.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)
  fields = {re.match(r"\W*\w+", name)[0] for name in expected}
  assert fields == {
    ".step",
    ".params",
    ".ema_params",
    ".opt_state",
    ".key",
    ".statistics",
    ".adversary",
  }
  moments = [name for name in stopped if name.startswith(".adversary") and "u[" in name]
  assert moments and all(stopped[name].any() for name in moments)
  changed = [name for name in expected if (expected[name] != stopped[name]).any()]
  assert len(changed) > 0.9 * len(expected)  # the last step was not nothing
