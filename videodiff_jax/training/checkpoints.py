"""Checkpoints of a stage: orbax, asynchronous, restored onto any mesh and number of hosts."""

import hashlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from videodiff_jax.training import checksums, hosts
from videodiff_jax.training.state import TrainState

_ITEMS = ("ema", "meta", "rest")
# In `meta`: whether the checkpoint was committed with checksums. Early ones say nothing of it.
_SUMMED = "checksums"
# In the name of a folder that orbax has not renamed yet: it is no checkpoint.
_UNFINISHED = ".orbax-checkpoint-tmp"


class CheckpointError(ValueError):
  """A checkpoint that is missing, torn or of another run; the message says what to do."""


class Checkpoints:
  """The checkpoints of one stage's folder.

  Each holds three items: `ema` (averaged parameters and statistics: all that sampling needs),
  `rest` (the other fields of the TrainState) and `meta` (a JSON dict), and the SHA-256 of their
  files, which are compared whenever an item is read. Orbax commits a checkpoint by renaming it, so
  a torn one is never listed. All hosts open, save, restore and close together.
  """

  def __init__(self, folder: pathlib.Path | str, keep: int | None = None, sums: bool = True):
    """Opens a folder, to read or, with a number of checkpoints to keep, to write.

    Args:
      folder: of the stage's checkpoints.
      keep: how many stay; what a killed run left beyond them, or left unfinished, is deleted. Who
        writes is alone here (`locks.py`).
      sums: whether checkpoints that are written get their checksums.
    """
    self.folder = pathlib.Path(folder).absolute()
    self._keep, self._sums = keep, sums
    self._saving = 0
    if keep is not None:
      hosts.decide(self._delete_unfinished)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      enable_async_checkpointing=True,
      # The first host lists the folder and tells the others, so that all go on from one step.
      single_host_load_and_broadcast=True,
      # Called on the first host, once all hosts have written and before the checkpoint is renamed.
      async_options=ocp.AsyncOptions(post_finalization_callback=self._write_sums),
    )
    self._manager = ocp.CheckpointManager(self.folder, options=options)
    if keep is not None:
      for step in self.steps()[:-keep]:
        self._manager.delete(step)

  def steps(self) -> list[int]:
    """The steps of all complete checkpoints, in order."""
    return sorted(self._manager.all_steps())

  def latest_step(self) -> int | None:
    """The newest complete checkpoint's step, or None where there is none."""
    return self._manager.latest_step()

  def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
    """Starts writing; returns once the state is copied from the devices."""
    self.wait()
    self._saving = step
    ema, rest = _split(state)
    items = ocp.args.Composite(
      ema=ocp.args.StandardSave(ema),
      rest=ocp.args.StandardSave(rest),
      meta=ocp.args.JsonSave(meta | {_SUMMED: self._sums}),
    )
    self._manager.save(step, args=items)

  def meta(self, step: int) -> dict[str, Any]:
    """The JSON dict saved with a checkpoint.

    Raises:
      CheckpointError: as `restore`.
    """
    self._require(step, ("meta",))
    return self._restore(step, {"meta": ocp.args.JsonRestore()}).meta

  def restore(self, step: int, target: TrainState) -> TrainState:
    """The state of a step, placed as `target` (ShapeDtypeStructs with shardings) says.

    Raises:
      CheckpointError: no such step; a damaged file; or it is of other networks.
    """
    self._require(step, _ITEMS)
    ema, rest = _split(target)
    restored = self._restore(
      step, {"ema": ocp.args.StandardRestore(ema), "rest": ocp.args.StandardRestore(rest)}
    )
    return target.replace(**restored.ema, **restored.rest)

  def restore_ema(self, step: int, target: TrainState) -> dict[str, Any]:
    """{'ema_params', 'statistics'} of a step, without reading the rest; errors as `restore`."""
    self._require(step, ("ema", "meta"))
    return self._restore(step, {"ema": ocp.args.StandardRestore(_split(target)[0])}).ema

  def set_aside_damaged(self) -> None:
    """Moves checkpoints newer than the newest whole one into the folder 'damaged', and says so.

    Raises:
      CheckpointError: there are checkpoints, and none is whole; nothing is moved.
    """
    damaged = {}
    for step in reversed(self.steps()):
      if (what := self._damage(step, _ITEMS)) is None:
        break
      damaged[step] = what
    else:
      if damaged:
        raise self._error(*next(iter(damaged.items())))
    for newer, what in damaged.items():
      aside = hosts.decide(lambda newer=newer: str(self._move(newer)))
      logging.warning(
        "DAMAGED CHECKPOINT: %s/%d: %s. It is set aside as %s, and training goes on from step %d.",
        self.folder, newer, what, aside, step,
      )  # fmt: skip
    if damaged:
      self._manager.reload()

  def wait(self) -> None:
    """Blocks until what `save` started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def _delete_unfinished(self) -> None:
    for unfinished in self.folder.glob(f"*{_UNFINISHED}*"):
      logging.info("%s was being written by a run that was killed: it is deleted.", unfinished)
      shutil.rmtree(unfinished)

  def _write_sums(self) -> None:
    if self._sums:
      (unfinished,) = self.folder.glob(f"{self._saving}{_UNFINISHED}*")
      checksums.write(unfinished, _ITEMS)

  def _require(self, step: int, items: Sequence[str]) -> None:
    steps = self.steps()
    if step not in steps:
      raise CheckpointError(
        f"No complete checkpoint of step {step} in {self.folder}. "
        + (f"Steps there: {', '.join(map(str, steps))}." if steps else "There is none at all.")
      )
    if (what := self._damage(step, items)) is not None:
      raise self._error(step, what)

  def _damage(self, step: int, items: Sequence[str]) -> str | None:
    return hosts.decide(lambda: _damage(self.folder / str(step), items))

  def _error(self, step: int, what: str) -> CheckpointError:
    before = [other for other in self.steps() if other < step]
    return CheckpointError(
      f"Checkpoint {self.folder}/{step} is damaged: {what}. "
      + (
        f"--mode=train sets it aside and goes on from step {before[-1]}; other modes take that "
        "step once the folder is moved away."
        if before
        else "There is none before it: put the file back, or move the folder away to train the "
        "stage anew."
      )
    )

  def _move(self, step: int) -> pathlib.Path:
    aside = self.folder.with_name("damaged")
    aside.mkdir(exist_ok=True)
    names = itertools.chain([str(step)], (f"{step}_{n}" for n in itertools.count(2)))
    target = next(aside / name for name in names if not (aside / name).exists())
    return (self.folder / str(step)).rename(target)

  def _restore(self, step: int, items: dict[str, Any]) -> Any:
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # of orbax, tensorstore and json: whatever a damaged file leads to
      targets = {name: args.item for name, args in items.items() if name != "meta"}
      if differs := _differs(self.folder / str(step), targets):
        raise CheckpointError(
          f"Checkpoint {step} in {self.folder} does not fit this configuration's networks: "
          f"{differs}. Use the config it was trained with, or another --workdir."
        ) from error
      first = str(error).partition("\n")[0]
      raise self._error(step, f"it cannot be read ({type(error).__name__}: {first})") from error


def _damage(folder: pathlib.Path, items: Sequence[str]) -> str | None:
  """What of a checkpoint's items is not as it was written; None where all is, or nobody knows."""
  if not (folder / checksums.NAME).is_file():
    try:
      summed = json.loads((folder / "meta" / "metadata").read_text()).get(_SUMMED, False)
    except (OSError, ValueError, AttributeError) as error:
      return f"meta/metadata cannot be read ({error})"
    if not summed:
      logging.info("Checkpoint %s was written without checksums: it is read as it is.", folder)
      return None
  return checksums.damage(folder, items)


def _differs(folder: pathlib.Path, targets: dict[str, Any]) -> str | None:
  """The first array whose shape differs from the target's; None where none does, or it is torn."""

  def shapes(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
    return {name: tuple(shape) for name, shape in named.items() if name != "key"}

  for item, target in targets.items():
    try:
      there = shapes(ocp.StandardCheckpointHandler().metadata(folder / item).tree)
    except Exception:  # as in `_restore`
      return None
    here = shapes(target)
    for name in sorted(there.keys() | here.keys()):
      if there.get(name) != here.get(name):
        return f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
  return None


def _split(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
  ema = {"ema_params": state.ema_params, "statistics": state.statistics}
  names = ("step", "params", "opt_state", "key", "adversary")
  return ema, {name: getattr(state, name) for name in names}


@jax.jit
def _checksums(tree: Any) -> Any:
  """Sums of the bits, each weighted by its place, modulo 2^32: the same on any sharding."""

  def one(x: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).reshape(-1)
    place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(2) + jnp.uint32(1)
    return jnp.sum(bits * place, dtype=jnp.uint32)

  return jax.tree.map(one, tree)


def fingerprint(tree: Any) -> str:
  """A short hash of names, shapes and values of a tree of float arrays."""
  sums = jax.device_get(_checksums(tree))
  shapes = jax.tree.leaves(jax.tree.map(lambda x: str(x.shape), tree))
  named = jax.tree_util.tree_leaves_with_path(sums)
  text = json.dumps(
    [[jax.tree_util.keystr(path), shape, int(s)] for (path, s), shape in zip(named, shapes)]
  )
  return hashlib.sha256(text.encode()).hexdigest()[:16]
