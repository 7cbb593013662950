"""Weights, states and batches for a benchmark: a configuration's shapes, invented values."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.setup import glober as glober_setup
from experiments.setup import lgcvd as lgcvd_setup
from experiments.setup import systems
from videodiff_jax import glober, lgcvd
from videodiff_jax.training import compiled_steps, partitioning
from videodiff_jax.training.stage import TrainStep

_KEY = jax.eval_shape(lambda: jax.random.key(0))
_WEIGHT = 0.02

Fill = Callable[[Any, jax.sharding.Mesh], Any]  # a tree of abstract arrays -> arrays on the mesh


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What a stage's last step takes.

  Attributes:
    step: the step function.
    mesh: the mesh of one device that the arrays lie on.
    state: a TrainState.
    frozen: the networks of the stages below.
    batch: a batch of the configuration's size.
  """

  step: TrainStep
  mesh: jax.sharding.Mesh
  state: Any
  frozen: Any
  batch: Any

  def compiled(self) -> Any:
    """Compiles the step as training does."""
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      (self.state, self.frozen, self.batch),
    )
    with jax.set_mesh(self.mesh):
      return compiled_steps.trace_step(self.step, *abstract).lower().compile()


def config(name: str, variants: str = "") -> ml_collections.ConfigDict:
  """Returns configs/NAME.py with its variants."""
  return importlib.import_module(f"configs.{name}").get_config(variants or None)


def one_device(device: jax.Device) -> jax.sharding.Mesh:
  """Returns a mesh of one device."""
  return partitioning.make_mesh(devices=[device])


def pipeline(
  config: ml_collections.ConfigDict, fill: Fill, mesh: jax.sharding.Mesh
) -> glober.Pipeline | lgcvd.Pipeline:
  """Makes a configuration's pipeline with invented weights."""
  if config.system == "glober":
    return glober.Pipeline(config, fill(glober_setup.abstract_weights(config), mesh), mesh)
  params = fill(lgcvd_setup.abstract_weights(config), mesh)
  return lgcvd.Pipeline(config, {"raw": params, "ema": params}, mesh)


def make(
  config: ml_collections.ConfigDict, name: str, fill: Fill, mesh: jax.sharding.Mesh
) -> Inputs:
  """Makes the inputs of a stage's last step; batches are random pixels, optimisers are new."""
  system = systems.of(config)
  names = system.stages.NAMES[: system.stages.NAMES.index(name) + 1]
  built = {n: system.stages.make_stage(config, n) for n in names}
  states = {n: jax.eval_shape(stage.init, _KEY) for n, stage in built.items()}
  below = {n: {"ema_params": s.ema_params, "statistics": s.statistics} for n, s in states.items()}
  frozen = system.stages.frozen_networks(name, below | system.given(config))
  batch = system.abstract_batch(config, name)
  return Inputs(
    step=built[name].train_steps[-1][1],
    mesh=mesh,
    state=_state(states[name], fill, mesh),
    frozen=fill(frozen, mesh),
    batch=randomly(batch, mesh),
  )


def _state(abstract: Any, fill: Fill, mesh: jax.sharding.Mesh) -> Any:
  params = fill(abstract.params, mesh)
  adversary = abstract.adversary
  if adversary is not None:
    adversary = dataclasses.replace(
      adversary,
      params=fill(adversary.params, mesh),
      opt_state=constantly(adversary.opt_state, mesh, 0.0),
    )
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return dataclasses.replace(
    abstract,
    step=constantly(abstract.step, mesh, 0.0),
    params=params,
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=constantly(abstract.opt_state, mesh, 0.0),
    key=jax.device_put(jax.random.key(0), replicated),
    statistics=fill(abstract.statistics, mesh),
    adversary=adversary,
  )


def constantly(tree: Any, mesh: jax.sharding.Mesh, value: float = _WEIGHT) -> Any:
  """Fills with one number, made on the device, for measuring time alone."""
  return jax.tree.map(
    lambda x, s: jnp.full(x.shape, value, x.dtype, device=s),
    tree,
    partitioning.shardings(tree, mesh),
  )


def randomly(tree: Any, mesh: jax.sharding.Mesh, seed: int = 0) -> Any:
  """Fills with numbers of the usual size, the same on every device: for comparing results."""
  rng = np.random.default_rng(seed)

  def draw(path: tuple, leaf: Any, sharding: Any) -> jax.Array:
    name = jax.tree_util.keystr(path[-1:])
    if leaf.dtype == np.uint8:
      values = rng.integers(0, 256, leaf.shape)
    elif not jnp.issubdtype(leaf.dtype, jnp.floating):
      values = np.zeros(leaf.shape)
    else:
      fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100
      values = rng.standard_normal(leaf.shape) / np.sqrt(max(fan_in, 1))
      if "scale" in name or "std" in name:
        values = 1 + 0.1 * np.abs(values)
      elif "times" in name:
        values = rng.random(leaf.shape)
    return jax.device_put(values.astype(leaf.dtype), sharding)

  return jax.tree_util.tree_map_with_path(draw, tree, partitioning.shardings(tree, mesh))
