"""The stages: where the CRA gradient goes, one device against eight, what the HLO gathers."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.glober import tiny
from videodiff_jax.glober import stages
from videodiff_jax.training import flops, partitioning
from videodiff_jax.training.programs import trace_step
from videodiff_jax.training.state import TrainState


def gradient_norms(tree: dict) -> dict[str, float]:
  norms = jax.tree.map(lambda x: float(jnp.linalg.norm(x)), tree)
  return {jax.tree_util.keystr(path): v for path, v in jax.tree_util.tree_leaves_with_path(norms)}


def first_moment(state: TrainState) -> dict:
  """Adam's first moment after one step from zero: a tenth of the (scattered, clipped) gradient."""
  return next(
    part.mu for part in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(part)
  )


def is_adam(part: object) -> bool:
  return hasattr(part, "mu")


def cra_step(discriminator_every: int) -> jax.stages.Traced:
  """The autoencoder's step with a heavy L_cra^G, a batch in two parts."""
  config = tiny.config(lambda_cra=1e3)
  config.loss.cra.discriminator_every = discriminator_every
  config.train.autoencoder.accumulate = 2
  step = jax.jit(stages.make_stage(config, "autoencoder").train_steps[-1][1])
  return step.trace(tiny.state("autoencoder"), tiny.frozen("autoencoder"), tiny.batch())


@pytest.fixture(scope="module")
def traced() -> jax.stages.Traced:
  """Of a discriminator that learns every second step."""
  return cra_step(2)


@pytest.fixture(scope="module")
def with_cra(traced) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  compiled = traced.lower().compile()
  return lambda state, batch: compiled(state, tiny.frozen("autoencoder"), batch)


@pytest.fixture(scope="module")
def first_step(with_cra: Callable) -> tuple[TrainState, dict]:
  return with_cra(tiny.state("autoencoder"), tiny.batch())


@pytest.fixture(scope="module")
def stepped(first_step) -> TrainState:
  new, metrics = first_step
  assert metrics["cra_generator"] > 0
  return new


def test_cra_gradient_reaches_encoder_control_and_decoder(stepped) -> None:
  """The gradient's direction with and without L_cra^G differs in every module of the decoder."""
  config = tiny.config(lambda_cra=0.0)
  config.train.autoencoder.accumulate = 2
  plain = stages.make_stage(config, "autoencoder").train_steps[0][1]
  state = tiny.state("autoencoder").replace(adversary=None)
  new, _ = jax.jit(plain)(state, tiny.frozen("autoencoder"), tiny.batch())
  # Clipping scales the whole gradient: compare directions.
  one, other = (
    optax.tree.scale(1 / optax.tree.norm(m), m) for m in map(first_moment, (stepped, new))
  )
  one, other = one["params"], other["params"]
  for module in ("encoder", "control", "unet"):
    difference = jax.tree.map(jnp.subtract, one[module], other[module])
    assert optax.tree.norm(difference) > 1e-2, module
    reached = [value > 0 for value in gradient_norms(one[module]).values()]
    assert sum(reached) > 0.9 * len(reached), module


def test_kl_vae_is_not_trained_by_the_autoencoder_stage(stepped) -> None:
  groups = {name.split("'")[3] for name in gradient_norms(first_moment(stepped))}
  assert groups == {"encoder", "control", "unet", "class_embedding"}


def test_one_step_updates_both_optimisers(stepped) -> None:
  before = tiny.state("autoencoder")
  assert int(stepped.step) == 1
  assert share_moved(before.params, stepped.params) > 0.9
  assert share_moved(before.adversary.params, stepped.adversary.params) > 0.9


def test_discriminator_waits_for_its_step(with_cra, stepped) -> None:
  waited, metrics = with_cra(stepped, tiny.batch(seed=1))
  assert share_moved(stepped.params, waited.params) > 0.9
  assert share_moved(stepped.adversary, waited.adversary) == 0.0
  assert metrics["cra_discriminator"] > 0  # watched all the same
  again, _ = with_cra(waited, tiny.batch(seed=2))
  assert share_moved(waited.adversary, again.adversary) > 0.9


def test_a_due_step_is_that_of_a_discriminator_that_always_learns(first_step) -> None:
  always = cra_step(1).lower().compile()
  expected = always(tiny.state("autoencoder"), tiny.frozen("autoencoder"), tiny.batch())
  for one, other in zip(jax.tree.leaves(first_step), jax.tree.leaves(expected)):
    if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_between_its_steps_the_discriminator_costs_a_third(traced) -> None:
  between, due = max(conditionals(traced.jaxpr.jaxpr), key=max)
  assert 0 < between < 0.36 * due


def conditionals(jaxpr: jax.extend.core.Jaxpr) -> Iterator[list[int]]:
  """The FLOPs of every branch of each `cond`, the false branch first."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "cond":
      yield [flops.count(branch) for branch in equation.params["branches"]]
    for inner in flops._inner(equation.params):
      yield from conditionals(getattr(inner, "jaxpr", inner))


def share_moved(before: Any, after: Any) -> float:
  pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after))
  return float(np.mean([bool((a != b).any()) for a, b in pairs]))


@pytest.mark.parametrize("name", ["autoencoder", "generator"])
def test_eight_devices_equal_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
  """Losses and gradients to 1e-5; and what the eight-device program sends between devices."""
  monkeypatch.setattr(partitioning, "_MIN_SHARDED_SIZE", 256)
  results, program = {}, ""
  start = tiny.state(name)  # made outside any mesh: its key would stay on that one
  for count, fsdp in ((1, 1), (8, 4)):
    mesh = partitioning.make_mesh(-1, fsdp, jax.devices()[:count])
    with jax.set_mesh(mesh):
      # A fresh copy: the step donates its state.
      state = jax.tree.map(lambda x: jnp.array(x), start)
      state = jax.device_put(state, partitioning.shardings(state, mesh))
      frozen = jax.device_put(tiny.frozen(name), partitioning.shardings(tiny.frozen(name), mesh))
      batch = partitioning.put_batch(tiny.batch(), mesh)
      step = stages.make_stage(tiny.config(), name).train_steps[-1][1]
      compiled = trace_step(step, state, frozen, batch).lower().compile()
      program = compiled.as_text()
      new, metrics = compiled(state, frozen, batch)
      results[count] = jax.device_get((metrics, first_moment(new)))
  (metrics_1, gradients_1), (metrics_8, gradients_8) = results[1], results[8]
  for key, value in metrics_1.items():
    np.testing.assert_allclose(metrics_8[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
  scale = max(np.abs(g).max() for g in jax.tree.leaves(gradients_1))
  for one, eight in zip(jax.tree.leaves(gradients_1), jax.tree.leaves(gradients_8)):
    np.testing.assert_allclose(eight, one, atol=1e-5 * scale)
  assert "all-to-all" not in program
  split = sharded_elements(new) + sharded_elements(frozen)
  assert 0 < gathered_elements(program) <= split


def gathered_elements(program: str) -> int:
  """Elements of all all-gather results in a compiled program."""
  total = 0
  for line in re.findall(r"= (.*?) all-gather(?:-start)?\(", program):
    shapes = re.findall(r"\w+\[([\d,]*)\]", line)
    total += int(np.prod([int(n) for n in shapes[-1].split(",") if n]))
  return total


def sharded_elements(tree: object) -> int:
  """Elements of parameters that live split: each may be gathered once a step."""
  if isinstance(tree, TrainState):
    tree = (tree.params, tree.adversary and tree.adversary.params)
  leaves = jax.tree.leaves(tree)
  return sum(x.size for x in leaves if not x.sharding.is_fully_replicated)
