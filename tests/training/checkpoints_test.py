"""Checkpoints whose files are damaged, and the fingerprint of frozen networks."""

import gc
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import damage
from videodiff_jax.training import checksums, partitioning
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints, fingerprint
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.workdir import set_aside_damaged


def tree(seed: int = 0) -> dict:
  rng = np.random.default_rng(seed)
  return {"a": rng.normal(size=(128, 256)).astype(np.float32), "b": np.ones(3, np.float32)}


def test_any_change_shows() -> None:
  original = fingerprint(tree())
  assert original == fingerprint(tree())
  nudged = tree()
  nudged["a"][3, 5] = np.nextafter(nudged["a"][3, 5], np.float32(9))
  swapped = tree()
  swapped["a"][[0, 1]] = swapped["a"][[1, 0]]
  renamed = {"a": tree()["a"], "c": tree()["b"]}
  reshaped = tree() | {"a": tree()["a"].reshape(256, 128)}
  changed = [fingerprint(t) for t in (nudged, swapped, renamed, reshaped)]
  assert len({original, *changed}) == 5


def test_sharding_does_not_show() -> None:
  mesh = partitioning.make_mesh(2, 4)
  placed = jax.device_put(tree(), partitioning.shardings(tree(), mesh))
  assert not placed["a"].sharding.is_fully_replicated
  assert fingerprint(placed) == fingerprint(tree())


STEP = 4
# What orbax writes and nothing reads; it also changes them after the checksums are made.
UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt")


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """A stage's workdir with whole checkpoints of steps 2 and 4."""
  save(tmp_path)
  return tmp_path


def save(folder: pathlib.Path, sums: bool = True, keep: int = 2, steps: tuple = (2, STEP)) -> None:
  checkpoints = Checkpoints(folder / "checkpoints", keep, sums)
  for step in steps:
    checkpoints.save(step, state(step), {"step": step})
  checkpoints.close()


def state(step: int, width: int = 5) -> TrainState:
  """One that nothing has to be compiled for."""
  rng = np.random.default_rng(step)
  ema, params = ({"w": rng.normal(size=(3, width)).astype(np.float32)} for _ in range(2))
  made = TrainState(jnp.int32(step), params, ema, {"mu": params}, jax.random.key(0), {})
  return jax.device_put(made, jax.devices()[0])


def load(folder: pathlib.Path, width: int = 5) -> tuple[Any, dict]:
  """All of the newest checkpoint, as a resume reads it."""
  checkpoints = Checkpoints(folder / "checkpoints")
  step = checkpoints.latest_step()
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(step, width)
  )
  meta = checkpoints.meta(step)
  restored = checkpoints.restore(step, target)
  checkpoints.close()
  return restored.replace(key=jax.random.key_data(restored.key)), meta


def outcome(folder: pathlib.Path, whole: tuple[Any, dict]) -> str:
  """'told', 'harmless' or 'silent'; any other error than the one for people is raised."""
  try:
    found = load(folder)
  except CheckpointError as error:
    assert str(folder) in str(error)
    return "told"
  same = found[1] == whole[1] and jax.tree.all(jax.tree.map(np.array_equal, found[0], whole[0]))
  return "harmless" if same else "silent"


def test_no_damaged_checkpoint_is_read(folder) -> None:
  """Every file of it deleted, emptied, halved, and with a bit flipped."""
  whole, count = load(folder), 0
  for what in damage.damages(folder / "checkpoints" / str(STEP), flips=1):
    count += 1
    expected = "harmless" if what.startswith(UNREAD) else "told"
    assert outcome(folder, whole) == expected, what
  assert count > 80
  assert outcome(folder, whole) == "harmless"


def test_a_damaged_one_without_checksums_ends_in_one_sentence(tmp_path) -> None:
  """As early checkpoints are: what orbax and tensorstore raise for a file that cannot be read."""
  save(tmp_path, sums=False)
  whole, told = load(tmp_path), 0
  for item in ("ema", "meta"):
    for what in damage.damages(tmp_path / "checkpoints" / str(STEP) / item, flips=0):
      result = outcome(tmp_path, whole)
      told += result == "told"
      assert result != "silent", what
  assert told >= 8


def test_training_sets_a_damaged_one_aside(folder, caplog) -> None:
  torn = folder / "checkpoints" / str(STEP) / "meta" / "metadata"
  torn.write_text("")
  with pytest.raises(CheckpointError, match=r"4 is damaged: meta/metadata is not .* from step 2;"):
    load(folder)
  set_aside_damaged(folder.parent, folder.name)
  assert load(folder)[1]["step"] == 2
  assert "DAMAGED CHECKPOINT" in caplog.text and "meta/metadata is not as it was" in caplog.text
  assert (folder / "damaged" / str(STEP) / "meta" / "metadata").is_file()
  # The step is trained again, and damaged again.
  save(folder, steps=(STEP,))
  torn.unlink()
  set_aside_damaged(folder.parent, folder.name)
  assert sorted(path.name for path in (folder / "damaged").iterdir()) == ["4", "4_2"]


def test_where_none_is_whole_nothing_is_moved(folder) -> None:
  for step in (2, STEP):
    (folder / "checkpoints" / str(step) / checksums.NAME).unlink()
  with pytest.raises(CheckpointError, match=r"4 is damaged: SHA256SUMS is missing"):
    set_aside_damaged(folder.parent, folder.name)
  assert Checkpoints(folder / "checkpoints").steps() == [2, STEP]


def test_networks_that_do_not_fit_are_named_and_nothing_else_is_said(folder, capfd) -> None:
  gc.collect()  # orbax's readers tell their errors when they go: those of other tests first
  capfd.readouterr()
  with pytest.raises(CheckpointError, match=r"does not fit .*: ema_params/w is \(3, 5\) there"):
    load(folder, width=6)
  gc.collect()
  assert "Traceback" not in capfd.readouterr().err


def test_what_a_kill_left_beyond_keep_is_deleted(tmp_path) -> None:
  save(tmp_path, keep=9, steps=(1, 2, 3, 4))
  assert Checkpoints(tmp_path / "checkpoints").steps() == [1, 2, 3, 4]
  assert Checkpoints(tmp_path / "checkpoints", keep=2).steps() == [3, 4]


def test_what_a_killed_save_left_is_deleted_by_who_writes(folder) -> None:
  """Whatever orbax names it; who reads may look on while another process writes."""
  checkpoints, whole = folder / "checkpoints", load(folder)
  left = [checkpoints / f"6.orbax-checkpoint-tmp{end}" for end in ("", "-1732800000")]
  for unfinished in left:
    (unfinished / "ema.orbax-checkpoint-tmp").mkdir(parents=True)
    (unfinished / "ema.orbax-checkpoint-tmp" / "d").write_bytes(b"half")
  assert outcome(folder, whole) == "harmless" and all(map(pathlib.Path.exists, left))
  assert Checkpoints(checkpoints, keep=2).steps() == [2, STEP]
  assert not any(map(pathlib.Path.exists, left))
  save(folder, steps=(6,))
  assert load(folder)[1]["step"] == 6
