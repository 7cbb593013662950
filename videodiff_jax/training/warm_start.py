"""Warm starts: the stages of a run begin with the averaged weights of config.init.run."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import traverse_util

from videodiff_jax import typed
from videodiff_jax.choices import summarise
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.workdir import load_ema_as, read_config, steps_done


def with_run(config: ml_collections.ConfigDict, stage: Stage) -> Stage:
  """Makes a stage begin with the average and statistics of config.init.run, if it is set.

  The step, the optimiser's moments and an adversary are reinitialised.
  """
  if not config.init.run:
    return stage

  def pretrained(state: TrainState) -> TrainState:
    begun = load_ema_as(typed.path(config.init.run, "config.init.run"), stage.name, state)
    params = jax.tree.map(jnp.copy, begun["ema_params"])
    return dataclasses.replace(state, params=params, **begun)

  return dataclasses.replace(stage, pretrained=pretrained, measure=None)


def check(
  config: ml_collections.ConfigDict,
  names: Sequence[str],
  make_stage: Callable[[ml_collections.ConfigDict, str], Stage],
  alike: Sequence[str],
) -> None:
  """Checks that config.init.run fits the new run, by configuration keys and shapes only.

  Args:
    config: the new run's configuration.
    names: the stages that the new run begins.
    make_stage: the system's function that builds a stage.
    alike: keys or groups of keys, such as 'diffusion.schedule', that must be equal for the weights
      to keep their meaning.

  Raises:
    ValueError: weights are given twice, the system or the networks differ, or a stage has none.
    CheckpointError: config.init.run is no run's folder.
  """
  if not config.init.run:
    return
  if others := [
    key for key in config.init if key not in ("run", "text_encoder") and config.init[key]
  ]:
    raise ValueError(f"config.init.run and config.init.{others[0]} both give weights: choose one.")
  run = typed.path(config.init.run, "config.init.run")
  saved = read_config(run)
  if saved.system != config.system:
    raise ValueError(
      f"config.init.run: {run} holds a run of system {saved.system!r}, not {config.system!r}."
    )
  there, here = (_chosen(settings, alike) for settings in (saved, config))
  differ = [
    f"config.{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} now"
    for key in sorted(there.keys() | here.keys())
    if there.get(key) != here.get(key)
  ]
  for name in () if differ else names:
    if steps_done(run, name) is None:
      raise ValueError(f"config.init.run: {run} has no weights of stage {name!r}.")
    there, here = (_shapes(make_stage(settings, name)) for settings in (saved, config))
    differ += [
      f"{name}, {path}: {there.get(path, 'absent')} there, {here.get(path, 'absent')} now"
      for path in sorted(there.keys() | here.keys())
      if there.get(path) != here.get(path)
    ]
  if differ:
    raise ValueError(
      f"config.init.run: the networks of {run} are not those of this configuration:\n  "
      + summarise(differ, separator="\n  ")
      + "\nGive the same values, or leave config.init.run away."
    )  # fmt: skip


def _chosen(config: ml_collections.ConfigDict, alike: Sequence[str]) -> dict[str, Any]:
  """Returns 'a.b.c' -> value for the keys and groups that must be alike."""
  flat = traverse_util.flatten_dict(json.loads(config.to_json()), sep=".")
  return {key: flat[key] for key in flat if any(f"{key}.".startswith(f"{a}.") for a in alike)}


def _shapes(stage: Stage) -> dict[str, tuple[int, ...]]:
  state = jax.eval_shape(stage.init, jax.random.key(0))
  kept = {"ema_params": state.ema_params, "statistics": state.statistics}
  return {path: x.shape for path, x in traverse_util.flatten_dict(kept, sep="/").items()}
