"""--mode=plan: parameters, FLOPs and bytes of every stage, before anything is allocated."""

import contextlib
import dataclasses
import functools
import gc
import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from clu import parameter_overview
from jax.sharding import AbstractMesh, AxisType

from experiments.setup import checks, systems
from videodiff_jax.training import flops, partitioning
from videodiff_jax.training.flops import count_parameters
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.writers import format_table

_KEY = jax.eval_shape(lambda: jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class StageFigures:
  """Parameters, FLOPs and memory of a stage.

  Attributes:
    parameters: parameters of the averaged weights, which later stages use.
    flops_per_step: FLOPs of a step for the whole batch, with the adversarial loss on.
    state_bytes: bytes of the whole TrainState.
    device_bytes: bytes of the state and the frozen networks on one device of the mesh.
  """

  parameters: int
  flops_per_step: int
  state_bytes: int
  device_bytes: int


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
  """Disables garbage collection, which took a quarter of the time as traces stay alive."""
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


@_without_garbage_collection()
def stage_figures(config: ml_collections.ConfigDict, name: str) -> StageFigures:
  """Traces a stage on abstract arrays and returns its figures.

  Raises:
    UserError: the networks refuse the configuration's sizes.
  """
  config = _countable(config)
  try:
    return _stage_figures(config, name)
  except ValueError as error:
    raise checks.UserError(f"Stage {name} cannot be built: {error}") from error


def _stage_figures(config: ml_collections.ConfigDict, name: str) -> StageFigures:
  key = config.to_json()
  train, frozen = arguments(key, name)
  mesh = abstract_mesh(config)
  return StageFigures(
    parameters=count_parameters(train.ema_params),
    flops_per_step=_flops_per_step(key, name, -1),
    state_bytes=_bytes(train),
    device_bytes=_device_bytes(train, mesh) + _device_bytes(frozen, mesh),
  )


@_without_garbage_collection()
def flops_between(config: ml_collections.ConfigDict, name: str, begin: int, end: int) -> int:
  """Counts a stage's FLOPs from step `begin` to step `end`.

  The adversarial loss counts only in the steps that use it.
  """
  config = _countable(config)
  firsts = [first for first, _ in _stages(config).make_stage(config, name).train_steps]
  total = 0
  for i, (first, until) in enumerate(zip(firsts, [*firsts[1:], end])):
    steps = min(until, end) - max(first, begin)
    if steps > 0:
      total += steps * _flops_per_step(config.to_json(), name, i - len(firsts))
  return total


def flops_of_last_step(config: ml_collections.ConfigDict, name: str) -> int:
  """Counts the FLOPs of a stage's last training step, which computes all of its losses."""
  return _flops_per_step(_countable(config).to_json(), name, -1)


def steps_of(config: ml_collections.ConfigDict, name: str) -> int:
  """Returns the number of steps that a stage is trained for: 0 if its weights are given."""
  trained = _stages(config).make_stage(config, name).train_steps
  return config.train[name].steps if trained else 0


def show(config: ml_collections.ConfigDict) -> str:
  """Returns the tables of --mode=plan: variables, networks, and what each stage costs."""
  mesh, system = abstract_mesh(config), systems.of(config)
  rows, variables = [], []
  for name in system.stages.NAMES:
    figures = stage_figures(config, name)
    params = _state(_countable(config).to_json(), name).ema_params
    overview = parameter_overview.get_parameter_overview(params, include_stats=False)
    variables.append(f"{name}:\n{overview}")
    batch = config.train[name].batch_size
    rows.append(
      (name, f"{figures.parameters:,}", batch, f"{figures.flops_per_step / 1e12:.3f}",
       f"{figures.flops_per_step / mesh.size / 1e12:.3f}", f"{figures.state_bytes / 1e9:.2f}",
       f"{figures.device_bytes / 1e9:.2f}")
    )  # fmt: skip
  modules = [
    (name, f"{count:,}", f"{cost / 1e9:.2f}", of)
    for name, count, cost, of in module_figures(system.build(_countable(config)))
  ]
  heading = (
    "stage", "parameters", "batch", "TFLOP/step", "TFLOP/step/device", "state GB", "GB/device"
  )  # fmt: skip
  return "\n\n".join(
    [
      *variables,
      format_table(modules, ("network", "parameters", "GFLOP", "of one")),
      format_table(rows, heading),
      f"mesh {dict(mesh.shape)}: {mesh.size} device(s). GB/device: state and frozen networks, "
      "without activations. FLOPs: 2 per multiply-add of matrix products and convolutions.",
    ]
  )


@_without_garbage_collection()
def module_figures(networks: Any) -> list[tuple[str, int, int, str]]:
  """Returns (network, parameters, FLOPs of a forward pass, its input) for every network."""
  return systems.of_networks(networks).network_figures(networks)


def abstract_mesh(config: ml_collections.ConfigDict) -> AbstractMesh:
  """Returns the configuration's mesh without devices; data = -1 counts as one device."""
  shape = (max(config.mesh.data, 1), config.mesh.fsdp)
  return AbstractMesh(shape, partitioning.AXES, axis_types=(AxisType.Auto,) * 2)


def _countable(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns a configuration of the same networks whose trace is complete, short and quick.

  It leaves out operations that multiply nothing. Recomputation in the backward pass (remat) does
  not count as model FLOPs.
  """
  config = config.copy_and_resolve_references()  # a plain copy would share the inner dicts
  if "remat" in config:
    config.remat = "none"
  for name in _stages(config).NAMES:
    config.train[name].optimizer.clip_norm = 0.0
  systems.of(config).countable(config)
  return config


def _stages(config: ml_collections.ConfigDict) -> Any:
  return systems.of(config).stages


@functools.lru_cache(maxsize=8)
def _state(config_json: str, name: str) -> TrainState:
  config = ml_collections.ConfigDict(json.loads(config_json))
  return jax.eval_shape(_stages(config).make_stage(config, name).init, _KEY)


def arguments(config_json: str, name: str) -> tuple[TrainState, Any]:
  """Returns a stage's abstract state and frozen networks."""
  config = ml_collections.ConfigDict(json.loads(config_json))
  stages = _stages(config)
  states = {n: _state(config_json, n) for n in stages.NAMES[: stages.NAMES.index(name) + 1]}
  frozen = stages.frozen_networks(
    name,
    {n: {"ema_params": s.ema_params, "statistics": s.statistics} for n, s in states.items()}
    | systems.of(config).given(config),
  )
  return states[name], frozen


@functools.lru_cache(maxsize=8)
def _flops_per_step(config_json: str, name: str, index: int) -> int:
  """Counts the FLOPs of a stage's step function; `index` is counted from the end."""
  config = ml_collections.ConfigDict(json.loads(config_json))
  steps = _stages(config).make_stage(config, name).train_steps
  if not steps:
    return 0
  batch = systems.of(config).abstract_batch(config, name)
  traced = jax.jit(steps[index][1]).trace(*arguments(config_json, name), batch)
  return flops.count(traced.jaxpr)


def _bytes(tree: Any) -> int:
  return sum(math.prod(x.shape) * _itemsize(x) for x in jax.tree.leaves(tree))


def _itemsize(x: Any) -> int:
  return 8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize


def _device_bytes(tree: Any, mesh: AbstractMesh) -> int:
  leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(partitioning.shardings(tree, mesh)))
  return sum(math.prod(s.shard_shape(x.shape)) * _itemsize(x) for x, s in leaves)
