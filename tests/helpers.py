"""Cheap parameters for tests (an initialiser costs more to compile than a test); setup.py read."""

import contextlib
import dataclasses
import pathlib
import runpy
import sys
import types
from typing import Any
from unittest import mock

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What installs a module that some tests need.
_EXTRAS = {
  "apache_beam": "beam", "av": "demo", "diffusers": "parity", "ftfy": "text", "h5py": "hdf5",
  "mlxtend": "demo", "nbclient": "test", "nbformat": "test", "regex": "text",
  "skimage": "parity", "skvideo": "demo", "torch": "parity", "transformers": "parity",
  "vizdoom": "doom",
}  # fmt: skip


def needs(module: str) -> types.ModuleType:
  """The module; where it is missing the test is skipped, and told what would run it."""
  extra = _EXTRAS[module.partition(".")[0]]
  where = ", in an environment of its own" if extra == "beam" else ""
  reason = f'{module} is missing: pip install -e ".[{extra}]"{where}'
  return pytest.importorskip(module, reason=reason)


def assert_same_pixels(ours: np.ndarray, expected: np.ndarray) -> None:
  """uint8 of the same floats, which two programs may round to neighbouring values."""
  assert ours.shape == expected.shape and ours.dtype == expected.dtype == np.uint8
  assert np.abs(ours.astype(int) - expected).max() <= 1


def setup_arguments() -> dict[str, Any]:
  """What setup.py gives to `setuptools.setup`."""
  given: dict[str, Any] = {}
  setuptools = types.SimpleNamespace(setup=given.update, find_packages=lambda **_: [])
  with mock.patch.dict(sys.modules, setuptools=setuptools):
    runpy.run_path(str(ROOT / "setup.py"))
  return given


def fill(shapes: Any, seed: int = 0, scale: float = 0.05) -> Any:
  """Random float32 values for a tree of abstract arrays; nothing stays zero, so every path shows.

  Norm scales (named `scale`) are drawn near one; integer leaves become zeros.
  """
  rng = np.random.default_rng(seed)

  def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if not np.issubdtype(leaf.dtype, np.floating):
      return np.zeros(leaf.shape, leaf.dtype)
    centre = 1.0 if "scale" in jax.tree_util.keystr(path[-1:]) else 0.0
    return (centre + scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def traced_for(kind: str) -> contextlib.AbstractContextManager:
  """Inside it functions are traced for one device of this kind, which need not be at hand."""
  known = {"device_kind": kind, "num_cores": None, "platform": "tpu" if "TPU" in kind else "gpu"}
  names = [field.name for field in dataclasses.fields(AbstractDevice)]  # fewer in jax 0.9
  device = AbstractDevice(**{name: known[name] for name in names})
  mesh = AbstractMesh((1,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)
  return jax.sharding.use_abstract_mesh(mesh)


def checkpoints(jaxpr: core.ClosedJaxpr) -> int:
  """How many parts of a function are computed again in its backward pass."""
  names = [str(equation.primitive) for equation in jaxpr.eqns]
  return sum("remat" in name or "checkpoint" in name for name in names)


def assert_remat_changes_nothing(module: nn.Module, variables: Any, *inputs: Any) -> None:
  """Neither the module's values nor the gradients of its parameters."""

  def run(module: nn.Module) -> Any:
    def loss(variables: Any) -> tuple[jax.Array, Any]:
      out = module.apply(variables, *inputs)
      return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(out)), out

    return jax.jit(jax.grad(loss, has_aux=True))(variables)

  plain, again = (run(module.clone(remat=remat)) for remat in ("none", "blocks"))
  chex.assert_trees_all_close(again, plain, rtol=1e-4, atol=1e-4)


def filled_state(stage: Stage, scale: float = 0.05) -> TrainState:
  """A stage's state with filled parameters, which are their own average, and a real key."""
  abstract = jax.eval_shape(stage.init, jax.random.key(0))
  keyless = fill(
    abstract.replace(key=jax.ShapeDtypeStruct((), np.int32)), seed=len(stage.name), scale=scale
  )
  statistics = jax.tree.map(lambda x: np.ones_like(x), keyless.statistics)
  zeros = jax.tree.map(np.zeros_like, (keyless.opt_state, keyless.adversary))
  adversary = keyless.adversary and keyless.adversary.replace(opt_state=zeros[1].opt_state)
  return keyless.replace(
    key=jax.random.key(0),
    opt_state=zeros[0],
    adversary=adversary,
    statistics=statistics,
    step=np.int32(0),
    ema_params=keyless.params,
  )


def first_moment(state: TrainState) -> dict:
  """Adam's first moment after one step from zero: a tenth of the (scattered, clipped) gradient."""

  def is_adam(part: object) -> bool:
    return hasattr(part, "mu")

  parts = jax.tree.leaves(state.opt_state, is_leaf=is_adam)
  return next(part.mu for part in parts if is_adam(part))
