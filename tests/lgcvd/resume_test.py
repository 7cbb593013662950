"""The stage on its real networks, stopped twice and resumed."""

import dataclasses
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import fill
from tests.lgcvd import tiny
from videodiff_jax.lgcvd import stages
from videodiff_jax.training import loop, partitioning
from videodiff_jax.training.compiled_steps import Program, Programs
from videodiff_jax.training.workdir import load_state

STEPS, BATCH = 4, 8


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
  """Every run gets the same program."""
  compile_, kept = Programs._compile, []

  def once(*arguments: Any) -> Program:
    if not kept:
      kept.append(compile_(*arguments))
    return kept[0]

  monkeypatch.setattr(Programs, "_compile", once)


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path) -> None:
  config, mesh = tiny.config(), partitioning.make_mesh(devices=jax.devices()[:1])
  stage = stages.make_stage(config, "lgcvd")
  params = fill(jax.eval_shape(stage.init, jax.random.key(0)).params)
  state = stages.trained_elsewhere(config, *(jax.tree.map(jnp.asarray, params),) * 2, step=0)
  stage = dataclasses.replace(stage, init=lambda key: state, preview=lambda *_: {})
  begun = []

  def train(folder: pathlib.Path, stop_at: int = -1) -> bool:
    """To STEPS; a SIGTERM comes while the batch after step `stop_at` is fetched."""

    def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
      begun.append(start // BATCH)
      for step in range(start // BATCH, STEPS):
        if step == stop_at:
          os.kill(os.getpid(), signal.SIGTERM)
        frames = tiny.clips(BATCH, seed=step)
        yield {"frames": frames, "video": np.arange(BATCH, dtype=np.int32)}

    run = loop.Run(
      folder / "lgcvd", mesh, seed=0, steps=STEPS, batch_size=BATCH, log_every=1,
      checkpoint_every=STEPS, preview_every=STEPS, keep=1, meta={},
    )  # fmt: skip
    return loop.train(stage, run, {}, batches, {}, lambda *_: None)

  def saved(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Parameters, average, optimiser, key, step."""
    found = load_state(config, folder, stage, mesh)
    found = found.replace(key=jax.random.key_data(found.key))
    leaves = jax.tree_util.tree_leaves_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(value) for path, value in leaves}

  whole, parts = tmp_path / "whole", tmp_path / "parts"
  assert train(whole)
  assert not train(parts, stop_at=1)
  assert not train(parts, stop_at=3)
  stopped = saved(parts)
  assert train(parts)
  assert begun == [0, 0, 1, 3]

  expected, resumed = saved(whole), saved(parts)
  assert expected.keys() == resumed.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)
  changed = [name for name in expected if (expected[name] != stopped[name]).any()]
  assert len(changed) > 0.9 * len(expected)  # the last step was not nothing
