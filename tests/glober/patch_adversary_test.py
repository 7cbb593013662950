"""The weight of the KL-VAE's adversary: by hand, and in the stage's own step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from tests.glober import tiny
from tests.helpers import first_moment
from videodiff_jax.glober import patch_adversary, stages
from videodiff_jax.models.patch_discriminator import PatchDiscriminator
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training.state import TrainState

pytestmark = pytest.mark.heavy

SIDE, FRAMES = 32, 2  # the smallest pictures that three strided levels can judge


def test_weight_is_the_ratio_of_the_norms() -> None:
  weight = patch_adversary.adaptive_weight(jnp.array([[3.0], [4.0]]), jnp.array([0.3, 0.4]))
  np.testing.assert_allclose(weight, 5 / (0.5 + 1e-4), rtol=1e-6)
  assert patch_adversary.adaptive_weight(jnp.ones(1), jnp.zeros(1)) == 1e4
  assert patch_adversary.adaptive_weight(jnp.zeros(1), jnp.ones(1)) == 0.0


def test_gradient_by_the_kernel_of_a_toy() -> None:
  """Drawn = sum over taps of kernel x features; the gradient correlates features and slope s."""
  features = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(2.0)
  slope = jnp.zeros((1, 3, 3, 1)).at[0, 1, 2, 0].set(5.0)
  last = {"kernel": jnp.zeros((3, 3, 1, 1)), "bias": jnp.zeros(1)}
  found = patch_adversary.gradient_by_kernel(last, features, slope)
  # The pixel right of the lit one sees it through the left tap of its middle row.
  np.testing.assert_allclose(found[:, :, 0, 0], [[0, 0, 0], [10, 0, 0], [0, 0, 0]])


def config() -> ml_collections.ConfigDict:
  settings = tiny.config()
  settings.data.image_size = SIDE
  settings.loss.kl_vae.update(adversary=0.5, adversary_start=1)
  settings.train.kl_vae.optimizer.update(clip_norm=0.0, b1=0.5)
  return settings


def pictures() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {"frames": rng.integers(0, 256, (FRAMES, 1, SIDE, SIDE, 1), np.uint8)}


@pytest.fixture(scope="module")
def start() -> TrainState:
  return tiny.filled(config(), "kl_vae")


@pytest.fixture(scope="module")
def steps() -> Any:
  """Both compiled steps: without the adversary, and against it."""
  return [jax.jit(step) for _, step in stages.make_stage(config(), "kl_vae").train_steps]


@pytest.fixture(scope="module")
def gradients(start) -> Any:
  """params of D -> the gradients of reconstruction and adversary by all of the KL-VAE's, apart."""
  model, x = stages.build(config()).kl_vae, to_float(pictures()["frames"][:, 0])

  def losses(params: Any, judge: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    key = jax.random.fold_in(start.key, 0)
    posterior = model.apply(params, x, method="encode")
    drawn = model.apply(params, posterior.sample(key), method="decode")
    kl = config().loss.kl_vae.kl * posterior.kl().mean()
    adversary = -PatchDiscriminator().apply(judge, drawn).mean()
    return jnp.abs(drawn - x).sum((1, 2, 3)).mean(), kl, adversary

  return jax.jit(functools.partial(jax.jacrev(losses), start.params))


@pytest.mark.parametrize("trained", [1.0, 30.0])
def test_adversary_pulls_half_as_hard_at_the_last_layer(start, steps, gradients, trained) -> None:
  """With a fresh discriminator, and with one whose gradients have grown 30-fold."""
  judge = jax.tree.map(np.copy, start.adversary.params)
  judge["params"]["conv_out"]["kernel"] *= trained
  state = start.replace(adversary=start.adversary.replace(params=judge))
  new, metrics = steps[1](state, {}, pictures())
  reconstruction, kl, adversary = gradients(judge)
  of_last = [
    np.linalg.norm(tree["params"]["decoder"]["conv_out"]["kernel"])
    for tree in (reconstruction, adversary)
  ]
  weight = metrics["adversary_weight"]
  np.testing.assert_allclose(weight, 0.5 * of_last[0] / (of_last[1] + 1e-4), rtol=1e-4)
  np.testing.assert_allclose(weight * of_last[1] / of_last[0], 0.5, rtol=0.02)
  # The gradient that is taken is that of all three.
  total = jax.tree.map(lambda r, k, a: r + k + weight * a, reconstruction, kl, adversary)
  taken = jax.tree.map(lambda moment: 2 * moment, first_moment(new))
  scale = max(np.abs(x).max() for x in jax.tree.leaves(total))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), taken, total)


def test_no_growth_of_the_discriminator_is_felt_at_the_pixels(start, steps) -> None:
  shares = []
  for factor in (1.0, 30.0):
    judge = jax.tree.map(np.copy, start.adversary.params)
    judge["params"]["conv_out"]["kernel"] *= factor
    state = start.replace(adversary=start.adversary.replace(params=judge))
    shares.append(steps[1](state, {}, pictures())[1]["adversary_share"])
  np.testing.assert_allclose(*shares, rtol=1e-3)


def test_a_discriminator_of_zeros_pulls_nowhere(start, steps) -> None:
  """Its weight is bounded, and the step is the one without an adversary."""
  blind = jax.tree.map(np.zeros_like, start.adversary.params)
  state = start.replace(adversary=start.adversary.replace(params=blind))
  new, metrics = steps[1](state, {}, pictures())
  plain, _ = steps[0](state, {}, pictures())
  assert (metrics["adversary_weight"], metrics["adversary_share"]) == (0.5e4, 0.0)
  assert metrics["discriminator"] == 1.0
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), new.params, plain.params
  )


def test_validation_is_the_loss_of_the_average_without_an_adversary(start, steps) -> None:
  _, trained = steps[0](start, {}, pictures())
  stage = stages.make_stage(config(), "kl_vae")
  train = start.replace(params=None, ema_params=start.params)
  losses = jax.jit(stage.validate)(train, {}, pictures(), jax.random.fold_in(start.key, 0))
  assert losses.keys() == {"loss", "reconstruction", "kl"}
  for name, loss in losses.items():
    np.testing.assert_allclose(loss, trained[name], rtol=1e-5, err_msg=name)
