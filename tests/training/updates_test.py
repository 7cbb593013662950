"""One iteration of a stage with a number for its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from videodiff_jax.training import state
from videodiff_jax.training.state import Adversary, Ema, TrainState
from videodiff_jax.training.updates import Updates

SGD = optax.sgd(0.1)
UPDATES = Updates(SGD, Ema(decay=0.5), accumulate=2, adversary_optimizer=optax.sgd(1.0))


def start() -> TrainState:
  judge = jnp.array(1.0)
  return state.create(
    jax.random.key(0), jnp.array(2.0), SGD, adversary=Adversary(judge, SGD.init(judge))
  )


def stepped(train: TrainState, with_adversary: bool, every: int = 1) -> tuple[TrainState, dict]:
  """A gradient of the mean of x, and one of 3 for the discriminator."""

  def gradients(part: dict[str, jax.Array], key: jax.Array) -> dict:
    del key
    assert part["x"].shape == (2,)
    found = {"params": part["x"].mean(), "metrics": {"loss": part["x"].max()}}
    return found | ({"adversary": jnp.array(3.0)} if with_adversary else {})

  return UPDATES.step(train, {"x": jnp.arange(4.0)}, gradients, every)


def test_parameters_average_and_metrics() -> None:
  new, metrics = stepped(start(), with_adversary=False)
  np.testing.assert_allclose(new.params, 2.0 - 0.1 * 1.5)
  np.testing.assert_allclose(new.ema_params, 2.0 - 0.5 * 0.1 * 1.5)
  assert (int(new.step), float(new.adversary.params)) == (1, 1.0)
  np.testing.assert_allclose(metrics["gradient_norm"], 1.5)
  np.testing.assert_allclose(metrics["loss"], (2 + 3) / 2)  # of parts of every second example


def test_a_discriminator_learns_when_it_is_due() -> None:
  train, seen = start(), []
  for _ in range(3):
    train, _ = stepped(train, with_adversary=True, every=2)
    seen.append(float(train.adversary.params))
  assert seen == [-2.0, -2.0, -5.0]
