"""The stages: where the CRA gradient goes, one device against eight, what the HLO gathers."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from tests.faults import toys
from tests.glober import tiny
from tests.helpers import filled_state, first_moment
from videodiff_jax.glober import autoencoder_stage, latents, stages
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import flops, optimizers, partitioning
from videodiff_jax.training.compiled_steps import trace_step
from videodiff_jax.training.state import TrainState

pytestmark = pytest.mark.heavy


def gradient_norms(tree: dict) -> dict[str, float]:
  return {
    jax.tree_util.keystr(path): float(np.linalg.norm(value))
    for path, value in jax.tree_util.tree_leaves_with_path(tree)
  }


def norm(tree: dict) -> float:
  return float(np.linalg.norm(list(gradient_norms(tree).values())))


def direction(tree: dict) -> dict:
  length = norm(tree)
  return jax.tree.map(lambda x: np.asarray(x) / length, tree)


def settings(discriminator_every: int = 1) -> ml_collections.ConfigDict:
  """A heavy L_cra^G, and the autoencoder's batches in two parts."""
  config = tiny.config(lambda_cra=1e3)
  config.loss.cra.discriminator_every = discriminator_every
  config.train.autoencoder.accumulate = 2
  return config


def batch(seed: int = 0) -> dict[str, np.ndarray]:
  """Each of its two parts has a clip for each of eight devices."""
  return tiny.batch(16, seed)


@pytest.fixture(scope="module")
def traced() -> jax.stages.Traced:
  """The autoencoder's step, its discriminator learning every second time."""
  step = jax.jit(stages.make_stage(settings(2), "autoencoder").train_steps[-1][1])
  return step.trace(tiny.state("autoencoder"), tiny.frozen("autoencoder"), batch())


@pytest.fixture(scope="module")
def with_cra(traced) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  compiled = traced.lower().compile()
  return lambda state, batch: compiled(state, tiny.frozen("autoencoder"), batch)


@pytest.fixture(scope="module")
def first_step(with_cra: Callable) -> tuple[TrainState, dict]:
  return with_cra(tiny.state("autoencoder"), batch())


@pytest.fixture(scope="module")
def stepped(first_step) -> TrainState:
  new, metrics = first_step
  assert metrics["cra_generator"] > 0
  return new


def test_cra_gradient_reaches_encoder_control_and_decoder(with_cra, stepped) -> None:
  """The gradient's direction with and without L_cra^G differs in every module of the decoder.

  Without: a discriminator of zeros, whose logits no frame changes.
  """
  state = tiny.state("autoencoder")
  blind = state.adversary.replace(params=jax.tree.map(np.zeros_like, state.adversary.params))
  new, metrics = with_cra(state.replace(adversary=blind), batch())
  assert 0 < metrics["cra_weight"] < 1
  np.testing.assert_allclose(metrics["cra_generator"], metrics["cra_weight"])  # relu(1 - 0)
  # Clipping scales the whole gradient: compare directions.
  one, other = (direction(first_moment(after)) for after in (stepped, new))
  one, other = one["params"], other["params"]
  for module in ("encoder", "control", "unet"):
    difference = jax.tree.map(np.subtract, one[module], other[module])
    assert norm(difference) > 1e-2, module
    reached = [value > 0 for value in gradient_norms(one[module]).values()]
    assert sum(reached) > 0.9 * len(reached), module


def test_real_pairs_are_frames_or_what_the_kl_vae_makes_of_their_latents() -> None:
  frozen, given = tiny.frozen("autoencoder"), tiny.batch(2)
  statistics = latents.channel_statistics(4)
  rng = np.random.default_rng(0)
  z = rng.normal(size=(2, 2, 2, *tiny.networks().latent_shape)).astype(np.float32)

  def judged(real: str, on: str, batch: dict, made: Any = z) -> Any:
    config = tiny.config()
    config.loss.cra.real, config.model.discriminator.on = real, on
    objective = autoencoder_stage.make_objective(config, tiny.networks())
    made = autoencoder_stage.Synthesis(0.0, 0.0, *made, timesteps=None)
    return objective.judged_frames(frozen, statistics, batch, made)

  frames, fake = judged("frames", "pixels", given)
  np.testing.assert_array_equal(frames, to_float(given["target_frames"]))
  assert fake.shape == frames.shape
  decoded, same = judged("reconstructions", "pixels", {})  # no frames are read
  np.testing.assert_array_equal(same, fake)
  np.testing.assert_array_equal(decoded, judged("frames", "pixels", given, z[::-1])[1])
  np.testing.assert_array_equal(judged("frames", "latents", {}), z)


def test_a_step_whose_discriminator_judges_latents() -> None:
  """The loss of the step is Eq. 8 written out; it has no KL-VAE at all.

  The discriminator is the real one, the auto-encoder a toy.
  """
  config = tiny.config(lambda_cra=0.5)
  config.loss.cra.weighting = "uniform"
  config.model.discriminator.on = "latents"
  with toys.installed():
    toy = stages.build(config)
  networks = dataclasses.replace(toy, discriminator=stages.build(config).discriminator)
  objective = autoencoder_stage.make_objective(config, networks)
  stage = autoencoder_stage.autoencoder_stage(config, networks)
  train = filled_state(stage, scale=0.2)
  judge, rng = train.adversary.params, np.random.default_rng(0)
  batch = {name: tiny.batch(4)[name] for name in ("target_times", "label")}
  for name, count in (("key_moments", tiny.KEYS), ("target_moments", 2)):
    shape = (4, count, *networks.latent_shape[:2], 2 * networks.latent_shape[2])
    batch[name] = rng.normal(size=shape).astype(np.float32)

  @jax.jit
  def both(train: TrainState) -> tuple[TrainState, dict, dict]:
    key = jax.random.fold_in(train.key, train.step)
    made = objective.synthesise(train.params, {}, train.statistics["latents"], batch, key)
    (r_i, r_j), (f_i, f_j) = (jnp.unstack(z, axis=1) for z in (made.latents, made.estimates))
    fakes = [jnp.stack(pair, 1) for pair in ((f_i, f_j), (f_i, r_j), (r_i, f_j))]
    logits = [networks.discriminator.apply(judge, pair) for pair in fakes]
    counts = made.timesteps.max(1) <= config.loss.cra.max_timestep
    hinge = (counts * jnp.maximum(1 - jnp.stack(logits), 0).mean(0)).sum() / counts.sum()
    total = made.reconstruction + config.loss.lambda_kl * made.kl + 0.5 * hinge
    return *stage.train_steps[-1][1](train, {}, batch), {"cra_generator": hinge, "loss": total}

  new, metrics, expected = both(train)
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
  assert share_moved(train.params, new.params) > 0.9
  assert share_moved(judge, new.adversary.params) > 0.9


def test_kl_vae_is_not_trained_by_the_autoencoder_stage(stepped) -> None:
  groups = {name.split("'")[3] for name in gradient_norms(first_moment(stepped))}
  assert groups == {"encoder", "control", "unet", "class_embedding"}


def test_one_step_updates_both_optimisers(stepped) -> None:
  before = tiny.state("autoencoder")
  assert int(stepped.step) == 1
  assert share_moved(before.params, stepped.params) > 0.9
  assert share_moved(before.adversary.params, stepped.adversary.params) > 0.9


def test_discriminator_waits_for_its_step(with_cra, stepped) -> None:
  waited, metrics = with_cra(stepped, batch(seed=1))
  assert share_moved(stepped.params, waited.params) > 0.9
  assert share_moved(stepped.adversary, waited.adversary) == 0.0
  assert metrics["cra_discriminator"] > 0  # watched all the same
  again, _ = with_cra(waited, batch(seed=2))
  assert share_moved(waited.adversary, again.adversary) > 0.9


def test_a_due_step_is_that_of_a_discriminator_that_always_learns() -> None:
  """With linear networks, whose programs differ in nothing else."""

  def after(discriminator_every: int) -> list[jax.Array]:
    with toys.installed():
      stage = stages.make_stage(settings(discriminator_every), "autoencoder")
      vae = filled_state(stages.make_stage(settings(), "kl_vae"), scale=0.2)
    step = jax.jit(stage.train_steps[-1][1])
    given = {"kl_vae": vae.params}
    return jax.tree.leaves(step(filled_state(stage, scale=0.2), given, batch()))

  for one, other in zip(after(2), after(1), strict=True):
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


@pytest.mark.parametrize(
  ("name", "group", "changes", "expected"),
  [
    ("kl_vae", "kl_vae", {"adversary": 0.5, "adversary_start": 3}, (3, 1)),
    ("autoencoder", "cra", {"start_step": 2, "discriminator_every": 2}, (2, 2)),
  ],
)
def test_a_discriminator_s_schedule_begins_with_it(
  monkeypatch, name: str, group: str, changes: dict, expected: tuple
) -> None:
  """Its optimiser is made for the steps that it has, and not for the stage's."""
  made = []
  plain = optimizers.of_adversary
  monkeypatch.setattr(
    optimizers,
    "of_adversary",
    lambda train, first, every=1: made.append((first, every)) or plain(train, first, every),
  )
  config = tiny.config()
  config.loss[group].update(changes)
  stage = stages.make_stage(config, name)
  assert made == [expected]
  assert [first for first, _ in stage.train_steps] == [0, expected[0]]


class Stepped(NamedTuple):
  """What a step on a mesh returned, the frozen networks it was given, and its program."""

  new: TrainState
  metrics: dict[str, Any]
  frozen: dict[str, Any]
  program: str


@functools.cache
def stepped_on(name: str, data: int, fsdp: int) -> Stepped:
  """One step of a stage, arrays split from 256 elements on."""
  mesh = partitioning.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
  start = tiny.state(name)  # made outside any mesh: its key would stay on that one
  with pytest.MonkeyPatch.context() as patch, jax.set_mesh(mesh):
    patch.setattr(partitioning, "_MIN_SHARDED_SIZE", 256)
    # A fresh copy: the step donates its state.
    state = jax.tree.map(np.array, start.replace(key=None))
    state = state.replace(key=jax.random.clone(start.key))
    state = jax.device_put(state, partitioning.shardings(state, mesh))
    frozen = jax.device_put(tiny.frozen(name), partitioning.shardings(tiny.frozen(name), mesh))
    placed = partitioning.put_batch(batch(), mesh)
    step = stages.make_stage(settings(2), name).train_steps[-1][1]
    compiled = trace_step(step, state, frozen, placed).lower().compile()
    return Stepped(*compiled(state, frozen, placed), frozen, compiled.as_text())


@pytest.fixture(params=["autoencoder", "generator"])
def on_one(request, first_step) -> tuple[str, TrainState, dict]:
  """A stage, and its state and metrics after a step on one device."""
  if request.param == "autoencoder":
    return request.param, *first_step
  return request.param, *stepped_on(request.param, 1, 1)[:2]


def test_eight_devices_equal_one(on_one) -> None:
  """Losses and gradients to 1e-5; and what the eight-device program sends between devices."""
  name, one, metrics = on_one
  eight = stepped_on(name, 2, 4)
  for key, value in metrics.items():
    np.testing.assert_allclose(eight.metrics[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
  expected, actual = (jax.tree.leaves(jax.device_get(first_moment(s))) for s in (one, eight.new))
  scale = max(np.abs(g).max() for g in expected)
  for a, b in zip(actual, expected):
    np.testing.assert_allclose(a, b, atol=1e-5 * scale)
  assert "all-to-all" not in eight.program
  split = sharded_elements(eight.new) + sharded_elements(eight.frozen)
  assert 0 < gathered_elements(eight.program) <= split


def test_validation_is_the_step_s_loss_of_the_average(on_one) -> None:
  """On eight devices, with the draws of a step on one; the autoencoder's is without CRA."""
  name, _, trained = on_one
  stage, state = stages.make_stage(settings(), name), tiny.state(name)
  mesh = partitioning.make_mesh(2, 4)

  @jax.jit
  def validate(average: Any, frozen: Any, batch: dict) -> Any:
    # The parameters themselves, here of nothing, are not looked at.
    train = state.replace(params=None, ema_params=average, key=None)
    return optimizers.accumulate(
      lambda part, key: stage.validate(train, frozen, part, key),
      batch, jax.random.fold_in(jax.random.key(0), 0), settings().train[name].accumulate,
    )  # fmt: skip

  given = (state.params, tiny.frozen(name))
  with jax.set_mesh(mesh):
    placed = jax.device_put(given, partitioning.shardings(given, mesh))
    losses = validate(*placed, partitioning.put_batch(batch(), mesh))
  compared = losses.keys() - ({"loss"} if name == "autoencoder" else set())
  assert compared == ({"reconstruction", "kl"} if name == "autoencoder" else {"loss"})
  for key in compared:
    np.testing.assert_allclose(losses[key], trained[key], rtol=1e-5, err_msg=key)
  if name == "autoencoder":
    total = losses["reconstruction"] + settings().loss.lambda_kl * losses["kl"]
    np.testing.assert_allclose(losses["loss"], total, rtol=1e-5)


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
