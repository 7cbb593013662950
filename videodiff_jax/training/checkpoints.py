"""Checkpoints of a stage by orbax: asynchronous, restored to any mesh and number of hosts."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from videodiff_jax import storage
from videodiff_jax.training import checksums, hosts, remote_checkpoints
from videodiff_jax.training.state import TrainState

_ITEMS = ("ema", "meta", "rest")
# A key of `meta`: whether the checkpoint was committed with checksums. Old ones lack it.
_SUMMED = "checksums"
# Part of the name of a folder that orbax has not renamed yet, which is no checkpoint.
_UNFINISHED = ".orbax-checkpoint-tmp"


class CheckpointError(ValueError):
  """A checkpoint is missing, damaged or from another run; the message says what to do."""


class Checkpoints:
  """The checkpoints in one stage's folder.

  Each holds three items: `ema` (averaged parameters and statistics, all that sampling needs),
  `rest` (the other fields of the TrainState) and `meta` (a JSON dict). It also holds the SHA-256 of
  their files, which is checked whenever an item is read. Orbax commits a checkpoint by renaming it,
  so an incomplete one is never listed. All hosts must open, save, restore and close together.

  In object storage, orbax commits by a last object, and there are no checksums of ours: the store
  compares its own whenever it takes or gives an object.
  """

  def __init__(self, folder: pathlib.Path | str, keep: int | None = None, sums: bool = True):
    """Opens a folder for reading or, with `keep`, for writing.

    Args:
      folder: the folder of the stage's checkpoints.
      keep: number of newest checkpoints to keep. Others, and unfinished ones, which a killed run
        left, are deleted. Only one process may write at a time (`locks.py`).
      sums: whether new checkpoints get checksums.
    """
    self.folder = storage.path(folder).absolute()
    self._keep, self._sums = keep, sums and not storage.is_remote(self.folder)
    self._saving = 0
    if keep is not None:
      hosts.decide(self._delete_unfinished)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      enable_async_checkpointing=True,
      # The first host lists the folder and broadcasts it, so that all resume from the same step.
      single_host_load_and_broadcast=True,
      # Called on the first host, once all hosts have written and before the checkpoint is renamed.
      async_options=ocp.AsyncOptions(post_finalization_callback=self._write_sums),
      temporary_path_class=remote_checkpoints.temporary_path_class(self.folder),
    )
    self._manager = ocp.CheckpointManager(os.fspath(self.folder), options=options)
    if keep is not None:
      for step in self.steps()[:-keep]:
        self._manager.delete(step)

  def steps(self) -> list[int]:
    """Returns the steps of all complete checkpoints, in order."""
    return sorted(map(int, self._manager.all_steps()))  # on several hosts, a broadcast array's

  def latest_step(self) -> int | None:
    """Returns the newest complete checkpoint's step, or None where there is none."""
    step = self._manager.latest_step()
    return None if step is None else int(step)

  def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
    """Starts writing a checkpoint; returns once the state is copied from the devices."""
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
    """Returns the JSON dict saved with a checkpoint.

    Raises:
      CheckpointError: as `restore`.
    """
    self._require(step, ("meta",))
    return self._restore(step, {"meta": ocp.args.JsonRestore()}).meta

  def restore(self, step: int, target: TrainState) -> TrainState:
    """Restores the state of a step, placed as `target` (ShapeDtypeStructs with shardings) says.

    Raises:
      CheckpointError: there is no such step, a file is damaged, or the networks differ.
    """
    self._require(step, _ITEMS)
    ema, rest = _split(target)
    restored = self._restore(
      step, {"ema": ocp.args.StandardRestore(ema), "rest": ocp.args.StandardRestore(rest)}
    )
    return dataclasses.replace(target, **restored.ema, **restored.rest)

  def restore_ema(self, step: int, target: TrainState) -> dict[str, Any]:
    """Restores only {'ema_params', 'statistics'} of a step; errors as `restore`."""
    self._require(step, ("ema", "meta"))
    return self._restore(step, {"ema": ocp.args.StandardRestore(_split(target)[0])}).ema

  def set_aside_damaged(self) -> None:
    """Moves checkpoints newer than the newest intact one to the folder 'damaged', with a warning.

    Raises:
      CheckpointError: there are checkpoints and all are damaged; nothing is moved.
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
      aside = hosts.decide(functools.partial(self._set_aside, newer))
      logging.warning(
        "DAMAGED CHECKPOINT: %s/%d: %s. It is moved to %s, and training resumes from step %d.",
        self.folder, newer, what, aside, step,
      )  # fmt: skip
    if damaged:
      self._manager.reload()

  def wait(self) -> None:
    """Waits until the checkpoint that `save` started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def _delete_unfinished(self) -> None:
    left = self.folder.glob(f"*{_UNFINISHED}*")
    for unfinished in remote_checkpoints.unfinished(self.folder) or left:
      logging.info("%s was being written by a run that was killed: it is deleted.", unfinished)
      storage.rmtree(unfinished)

  def _write_sums(self) -> None:
    if self._sums:
      (unfinished,) = self.folder.glob(f"{self._saving}{_UNFINISHED}*")
      checksums.write(unfinished, _ITEMS)

  def _require(self, step: int, items: Sequence[str]) -> None:
    steps = self.steps()
    if step not in steps:
      raise CheckpointError(
        f"No complete checkpoint of step {step} in {self.folder}. "
        + (f"It has steps {', '.join(map(str, steps))}." if steps else "It has none at all.")
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
        f"--mode=train sets it aside and resumes from step {before[-1]}; other modes use that "
        "step once the folder is moved away."
        if before
        else "There is no earlier one: put the file back, or move the folder away to train the "
        "stage again."
      )
    )

  def _set_aside(self, step: int) -> str:
    aside = self.folder.with_name("damaged")
    aside.mkdir(exist_ok=True)
    names = itertools.chain([str(step)], (f"{step}_{n}" for n in itertools.count(2)))
    target = next(aside / name for name in names if not (aside / name).exists())
    return str((self.folder / str(step)).rename(target))

  def _restore(self, step: int, items: dict[str, Any]) -> Any:
    # Checked first, since orbax's readers would each print a traceback with the error.
    targets = {name: args.item for name, args in items.items() if name != "meta"}
    if differs := hosts.decide(lambda: _differs(self.folder / str(step), targets)):
      raise CheckpointError(
        f"Checkpoint {step} in {self.folder} does not fit this configuration's networks: "
        f"{differs}. Use the config it was trained with, or another --workdir."
      )
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # orbax, tensorstore and json raise any kind on a damaged file
      first = str(error).partition("\n")[0]
      raise self._error(step, f"it cannot be read ({type(error).__name__}: {first})") from error


def _damage(folder: pathlib.Path, items: Sequence[str]) -> str | None:
  """Describes the first damage to a checkpoint's items; None where there is none or no checksum."""
  if not (folder / checksums.NAME).is_file():
    try:
      summed = json.loads((folder / "meta" / "metadata").read_text()).get(_SUMMED, False)
    except (OSError, ValueError, AttributeError) as error:
      return f"meta/metadata cannot be read ({error})"
    if not summed:
      if not storage.is_remote(folder):  # which has checksums of its own
        logging.info("Checkpoint %s was written without checksums: it is read as it is.", folder)
      return None
  return checksums.damage(folder, items)


def _differs(folder: pathlib.Path, targets: dict[str, Any]) -> str | None:
  """Describes the first array whose shape is not the target's; None if none, or unreadable."""

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
  """Sums each array's words, weighted by position, modulo 2^32; the same on any sharding."""

  def weighted_sum(x: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).reshape(-1)
    place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(2) + jnp.uint32(1)
    return jnp.sum(bits * place, dtype=jnp.uint32)

  return jax.tree.map(weighted_sum, tree)


def fingerprint(tree: Any) -> str:
  """Returns a short hash of the names, shapes and values of a tree of float arrays."""
  sums = jax.device_get(_checksums(tree))
  shapes = jax.tree.leaves(jax.tree.map(lambda x: str(x.shape), tree))
  named = jax.tree_util.tree_leaves_with_path(sums)
  text = json.dumps(
    [[jax.tree_util.keystr(path), shape, int(s)] for (path, s), shape in zip(named, shapes)]
  )
  return hashlib.sha256(text.encode()).hexdigest()[:16]
