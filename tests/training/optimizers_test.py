"""Optimiser, accumulation, average."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from configs import common
from videodiff_jax.training import optimizers, partitioning, state


def rates(optimizer: optax.GradientTransformation, steps: int) -> np.ndarray:
  """The learning rate of each step: what Adam's update is under a constant gradient."""
  params = jnp.zeros(1)
  opt_state = optimizer.init(params)
  found = []
  for _ in range(steps):
    updates, opt_state = optimizer.update(jnp.ones(1), opt_state, params)
    found.append(-float(updates[0]))
  return np.array(found)


def test_unknown_decay_lists_the_choices() -> None:
  with pytest.raises(ValueError, match="constant, cosine"):
    optimizers.make_optimizer(1.0, steps=10, decay="linear")


@pytest.mark.parametrize("decay", optimizers.DECAYS)
def test_warm_up_is_linear_and_cosine_ends_at_a_twentieth(decay: str) -> None:
  optimizer = optimizers.make_optimizer(
    1.0, steps=20, warmup_steps=4, decay=decay, weight_decay=0.0
  )
  found = rates(optimizer, 21)
  assert np.all(np.diff(found[:5]) > 0)
  np.testing.assert_allclose(found[4], 1.0, rtol=1e-3)
  np.testing.assert_allclose(found[20], {"constant": 1.0, "cosine": 0.05}[decay], rtol=1e-2)


@pytest.mark.parametrize(("decay", "last"), [("constant", 1.0), ("cosine", 0.05)])
@pytest.mark.parametrize("every", [1, 2])
def test_a_discriminator_that_sets_in_late_follows_the_whole_schedule(
  decay: str, last: float, every: int
) -> None:
  """It warms up from its own first step, and a cosine ends with the stage's last step."""
  settings = common.stage(steps=60, batch_size=8, learning_rate=1.0)
  settings.optimizer.update(decay=decay, warmup_steps=4, weight_decay=0.0)
  own = (60 - 20) // every
  found = rates(optimizers.of_adversary(settings, first_step=20, every=every), own + 1)
  assert np.all(np.diff(found[:5]) > 0)
  np.testing.assert_allclose(found[[4, own]], [1.0, last], rtol=1e-2)


def test_clipping_bounds_the_global_norm() -> None:
  clipped, free = (optimizers.make_optimizer(1e-3, steps=1, clip_norm=norm) for norm in (1.0, 0.0))
  params = {"a": jnp.zeros(2)}
  gradient = {"a": jnp.array([30.0, 40.0])}

  def moment(optimizer: optax.GradientTransformation) -> jax.Array:
    _, opt_state = optimizer.update(gradient, optimizer.init(params), params)
    adam = [
      s for s in jax.tree.leaves(opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    ]
    return adam[0].mu["a"]

  np.testing.assert_allclose(moment(clipped), [0.06, 0.08], rtol=1e-5)
  np.testing.assert_allclose(moment(free), [3.0, 4.0], rtol=1e-5)


def test_accumulation_is_the_mean_over_all_examples() -> None:
  batch = {"x": jnp.arange(24.0).reshape(12, 2)}

  def function(part: dict, key: jax.Array) -> dict:
    del key
    return {"mean": part["x"].mean(0), "square": jnp.square(part["x"]).mean()}

  whole = optimizers.accumulate(function, batch, jax.random.key(0), 1)
  parts = optimizers.accumulate(function, batch, jax.random.key(0), 4)
  for name, value in whole.items():
    np.testing.assert_allclose(parts[name], value, rtol=1e-6)


def test_accumulated_gradients_are_split_like_the_parameters() -> None:
  """Whole sums of a large network's gradients would take as much memory as its parameters."""
  x = jnp.linspace(-1.0, 1.0, 8 * 128).reshape(8, 128)

  def function(part: dict, key: jax.Array) -> dict:
    del key
    return {"kernel": part["x"].T @ part["x"] / len(part["x"])}

  def both(batch: dict) -> list[dict]:
    return [optimizers.accumulate(function, batch, jax.random.key(0), n) for n in (1, 2)]

  with jax.set_mesh(partitioning.make_mesh(2, 2, jax.devices()[:4])):
    whole, parts = jax.jit(both)(partitioning.place({"x": x}))
  assert parts["kernel"].sharding.spec == partitioning.spec((128, 128), 2) != P()
  np.testing.assert_allclose(parts["kernel"], whole["kernel"], rtol=1e-5, atol=1e-6)


def test_accumulated_parts_draw_differently() -> None:
  batch = {"x": jnp.zeros(8)}
  draws = optimizers.accumulate(
    lambda part, key: jax.random.normal(key, (4,)), batch, jax.random.key(0), 2
  )
  keys = jax.random.split(jax.random.key(0), 2)
  expected = (jax.random.normal(keys[0], (4,)) + jax.random.normal(keys[1], (4,))) / 2
  np.testing.assert_allclose(draws, expected, rtol=1e-6)
  assert not np.allclose(jax.random.normal(keys[0], (4,)), jax.random.normal(keys[1], (4,)))


def test_average_copies_decays_and_keeps_its_interval() -> None:
  ema = state.Ema(decay=0.75, interval=2, copy_until=2)
  average, param = jnp.zeros(1), jnp.ones(1)
  assert ema.update(average, param, 2) == 1.0  # copied
  assert ema.update(average, param, 3) == 0.0  # between two updates
  assert ema.update(average, param, 4) == 0.25


@pytest.mark.parametrize("interval", [1, 10])
def test_a_warmed_up_average_forgets_the_start(interval: int) -> None:
  """Without warm-up 1.8 % of the start is left after 40,000 updates; with it <1e-6 after 20."""
  drawn, trained = jnp.ones(1), jnp.zeros(1)
  left = {}
  for warmup in (False, True):
    ema = state.Ema(decay=0.9999, interval=interval, warmup=warmup)
    average = drawn
    for step in range(interval, 20 * interval + 1, interval):
      average = ema.update(average, trained, jnp.int32(step))
    left[warmup] = float(average[0])
  assert left[False] > 0.997
  assert left[True] == pytest.approx(1 / math.comb(30, 10) * 21, rel=1e-4)


def test_a_warmed_up_average_becomes_the_plain_one() -> None:
  plain, warmed = (state.Ema(decay=0.9, warmup=warmup) for warmup in (False, True))
  average, param = jnp.zeros(3), jnp.ones(3)
  np.testing.assert_allclose(warmed.update(average, param, 10), 9 / 20, rtol=1e-6)
  for step in (80, 1000):
    np.testing.assert_array_equal(
      plain.update(average, param, step), warmed.update(average, param, step)
    )
