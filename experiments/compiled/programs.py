"""The programs of a configuration, on the devices of a target: training steps and samplers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from experiments.compiled.targets import Target
from experiments.setup import checks, systems
from experiments.setup.errors import as_user_error
from experiments.train import plan
from videodiff_jax.choices import check_choice
from videodiff_jax.training import compiled_steps, flops, partitioning


@dataclasses.dataclass(frozen=True)
class Program:
  """One program to compile.

  Attributes:
    name: the stage of a training step, or 'sample ...'.
    rows: clips, frames or trajectories of one call over all devices.
    mesh: the mesh of the target's devices.
    trace: traces it on abstract arrays over the mesh.
    flops: the model's operations of a call over all devices, from the trace.
  """

  name: str
  rows: int
  mesh: Mesh
  trace: Callable[[], Any]
  flops: Callable[[Any], int]


def names(config: ConfigDict) -> list[str]:
  """Lists the programs of a configuration: the stages that it trains, then its samplers."""
  system = systems.of(config)
  samplers = system.hook("samplers").NAMES if "samplers" in system.hooks else ()
  return [*(name for name in config.stages if plan.steps_of(config, name)), *samplers]


def make(config: ConfigDict, target: Target, chosen: Sequence[str] = ()) -> list[Program]:
  """Makes the programs of a configuration for a target.

  Args:
    config: the configuration.
    target: what to compile for.
    chosen: names of programs; all by default.

  Raises:
    UserError: the mesh or a batch does not fit the target, or there is no such program.
  """
  with as_user_error():
    mesh = partitioning.make_mesh(config.mesh.data, config.mesh.fsdp, list(target.devices))
  there = names(config)
  for name in chosen:
    with as_user_error():
      check_choice("--programs", name, there)
  wanted = chosen or there
  stages = [name for name in config.stages if name in wanted]
  checks.check_batches(config, stages, mesh.size, f" of {target.name}")
  found = [step(config, name, mesh) for name in there if name in config.stages]
  if len(found) < len(there):
    made = systems.of(config).hook("samplers").make(config, mesh)
    found += [Program(name, rows, mesh, trace, _counted) for name, rows, trace in made]
  return [program for program in found if program.name in wanted]


def step(config: ConfigDict, name: str, mesh: Mesh) -> Program:
  """Makes the program of a stage's last training step, which computes all of its losses."""

  def trace() -> Any:
    state, frozen = plan.arguments(config.to_json(), name)
    batch = systems.of(config).abstract_batch(config, name)
    function = systems.of(config).stages.make_stage(config, name).train_steps[-1][1]
    state, frozen = (partitioning.with_shardings(tree, mesh) for tree in (state, frozen))
    # Nothing can be computed while a mesh is open whose devices are not at hand.
    with jax.set_mesh(mesh):
      return compiled_steps.trace_step(function, state, frozen, split(batch, mesh))

  def model_flops(traced: Any) -> int:
    del traced  # what it computes again in the backward pass does not count
    return plan.flops_of_last_step(config, name)

  return Program(name, config.train[name].batch_size, mesh, trace, model_flops)


def split(tree: Any, mesh: Mesh) -> Any:
  """Returns abstract arrays with their leading axes split over all devices; scalars lie on each."""

  def of(x: Any) -> jax.ShapeDtypeStruct:
    spec = partitioning.BATCH if x.shape else PartitionSpec()
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

  return jax.tree.map(of, tree)


def _counted(traced: Any) -> int:
  return flops.count(traced.jaxpr)
