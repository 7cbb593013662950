"""Checkpoints of a stage: orbax, asynchronous, restored onto any mesh and number of hosts."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from videodiff_jax.training.state import TrainState


class CheckpointError(ValueError):
  """A checkpoint that is missing, torn or of another run; the message says what to do."""


class Checkpoints:
  """The checkpoints of one stage's folder.

  Each holds three items: `ema` (averaged parameters and statistics: all that sampling needs),
  `rest` (the other fields of the TrainState) and `meta` (a JSON dict). Orbax commits a checkpoint
  by renaming it, so a torn one is never listed. All hosts open, save, restore and close together.
  """

  def __init__(self, folder: pathlib.Path | str, keep: int = 2):
    self.folder = pathlib.Path(folder).absolute()
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      enable_async_checkpointing=True,
      # The first host lists the folder and tells the others, so that all go on from one step.
      single_host_load_and_broadcast=True,
    )
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def latest_step(self) -> int | None:
    """The newest complete checkpoint's step, or None where there is none."""
    return self._manager.latest_step()

  def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
    """Starts writing; returns once the state is copied from the devices."""
    ema, rest = _split(state)
    items = ocp.args.Composite(
      ema=ocp.args.StandardSave(ema),
      rest=ocp.args.StandardSave(rest),
      meta=ocp.args.JsonSave(meta),
    )
    self._manager.save(step, args=items)

  def meta(self, step: int) -> dict[str, Any]:
    """The JSON dict saved with a checkpoint."""
    self._require(step)
    return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

  def restore(self, step: int, target: TrainState) -> TrainState:
    """The state of a step, placed as `target` (ShapeDtypeStructs with shardings) says."""
    self._require(step)
    ema, rest = _split(target)
    items = ocp.args.Composite(
      ema=ocp.args.StandardRestore(ema), rest=ocp.args.StandardRestore(rest)
    )
    restored = self._restore(step, items)
    return target.replace(**restored.ema, **restored.rest)

  def restore_ema(self, step: int, target: TrainState) -> dict[str, Any]:
    """{'ema_params', 'statistics'} of a step, without reading the rest."""
    self._require(step)
    items = ocp.args.Composite(ema=ocp.args.StandardRestore(_split(target)[0]))
    return self._restore(step, items).ema

  def wait(self) -> None:
    """Blocks until what `save` started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def _require(self, step: int) -> None:
    steps = sorted(self._manager.all_steps())
    if step not in steps:
      raise CheckpointError(
        f"No complete checkpoint of step {step} in {self.folder}. "
        + (f"Steps there: {', '.join(map(str, steps))}." if steps else "There is none at all.")
      )

  def _restore(self, step: int, items: ocp.args.Composite) -> Any:
    try:
      return self._manager.restore(step, args=items)
    except (ValueError, KeyError, TypeError) as error:
      raise CheckpointError(
        f"Checkpoint {step} in {self.folder} does not fit this configuration's networks. Use the "
        f"config it was trained with, or another --workdir. ({str(error).splitlines()[0]})"
      ) from error


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
