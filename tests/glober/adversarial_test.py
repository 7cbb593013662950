"""The pairs of Eq. 10 and both forms of the loss, on logits one can check by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs.names import PAPER, load
from videodiff_jax.diffusion.process import Process
from videodiff_jax.glober import adversarial
from videodiff_jax.glober.networks import build


def frames(*values: float) -> jnp.ndarray:
  """A batch of one pair whose frames are constant pictures."""
  return jnp.array(values).reshape(1, 2, 1, 1, 1)


REAL, FAKE = frames(1.0, 2.0), frames(10.0, 20.0)


def test_generator_pairs() -> None:
  pairs = adversarial.generator_pairs(REAL, FAKE).reshape(3, 2).tolist()
  assert pairs == [[10, 20], [10, 2], [1, 20]]


def test_discriminator_pairs_and_labels() -> None:
  pairs, labels = adversarial.discriminator_pairs(REAL, FAKE)
  labelled = dict(zip(map(tuple, pairs.reshape(6, 2).tolist()), labels[:, 0].tolist()))
  assert labelled == {(1, 2): 1, (10, 20): 0, (10, 2): 0, (1, 20): 0, (2, 1): 0, (20, 10): 0}


def test_hinge_form() -> None:
  logits = jnp.array([[0.5], [0.5], [-3.0], [-0.5], [-3.0], [-3.0]])
  labels = jnp.array([1.0, 0, 0, 0, 0, 0])[:, None]
  np.testing.assert_allclose(
    adversarial.discriminator_loss(logits, labels, "hinge"), [(0.5 + 1.5 + 0.5) / 6]
  )
  np.testing.assert_allclose(
    adversarial.generator_loss(jnp.array([[0.5], [2.0], [-1.0]]), "hinge"), [(0.5 + 2.0) / 3]
  )


def test_the_balanced_hinge_weighs_the_real_pair_as_much_as_all_others() -> None:
  logits = jnp.array([[0.5], [0.5], [-3.0], [-0.5], [-3.0], [-3.0]])
  labels = jnp.array([1.0, 0, 0, 0, 0, 0])[:, None]
  loss = functools.partial(adversarial.discriminator_loss, labels=labels, loss="balanced_hinge")
  np.testing.assert_allclose(loss(logits), [0.5 * (0.5 + (1.5 + 0.5) / 5)])
  slope = jax.grad(lambda constant: loss(constant + jnp.zeros((6, 1))).sum())
  # No constant is a resting place by itself; the released mean is drawn to -1.
  assert slope(0.3) == slope(-0.3) == pytest.approx(0.0, abs=1e-7)
  hinge = jax.grad(
    lambda constant: adversarial.discriminator_loss(
      constant + jnp.zeros((6, 1)), labels, "hinge"
    ).sum()
  )
  assert hinge(-0.3) == pytest.approx(4 / 6)
  fakes = jnp.array([[0.5], [2.0], [-1.0]])
  np.testing.assert_allclose(adversarial.generator_loss(fakes, "balanced_hinge"), [(0.5 + 2.0) / 3])


def test_log_form() -> None:
  def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))

  values = [0.3, -0.2, 0.7, -1.0, 0.1, 2.0]
  labels = jnp.array([1.0, 0, 0, 0, 0, 0])[:, None]
  expected = -(np.log(sigmoid(0.3)) + sum(np.log(1 - sigmoid(x)) for x in values[1:]))
  loss = adversarial.discriminator_loss(jnp.array(values)[:, None], labels, "log")
  np.testing.assert_allclose(loss, [expected], rtol=1e-5)
  expected = sum(np.log(1 - sigmoid(x)) for x in values[:3])
  loss = adversarial.generator_loss(jnp.array(values[:3])[:, None], "log")
  np.testing.assert_allclose(loss, [expected], rtol=1e-5)


# ---- how much a pair counts

JUDGED = (*PAPER, "glober_clips", "glober_digits:64")


def weights_of(name: str, timesteps: jnp.ndarray) -> tuple[Process, np.ndarray]:
  config = load(name)
  process, cra = build(config).decoder_process, config.loss.cra
  return process, np.asarray(
    adversarial.pair_weights(process, timesteps, cra.weighting, cra.max_timestep)
  )


@pytest.mark.parametrize("name", JUDGED)
def test_no_estimate_s_gradient_is_amplified(name: str) -> None:
  """Eq. 9 turns an error of the predicted noise into one 14.6 times as large at t = 999."""
  t = jnp.arange(1000)
  process, weights = weights_of(name, jnp.stack([t, jnp.zeros_like(t)], 1))
  amplified = jax.vmap(lambda t: process.to_x0(jnp.zeros(1), t[None], jnp.ones(1))[0])(t)
  assert (np.abs(amplified) * weights).max() <= 1.0


@pytest.mark.parametrize("name", JUDGED)
def test_pairs_count_as_they_are_drawn(name: str) -> None:
  """Each frame's t is drawn by itself: the noisier one of a pair decides."""
  process = build(load(name)).decoder_process
  drawn = process.draw_timesteps(jax.random.key(0), (4000, 2))
  assert weights_of(name, drawn)[1].mean() > 0.25
  assert load(name).loss.cra.start_step < load(name).train.autoencoder.steps / 5


def test_the_noisier_frame_decides_and_max_timestep_ends_it() -> None:
  process = build(load("glober_sky")).decoder_process
  snr = float(jnp.exp(2 * process.log_snr(jnp.array(600))))
  pairs = jnp.array([[600, 10], [10, 600], [10, 20], [601, 0]])
  weights = adversarial.pair_weights(process, pairs, "min_snr", 600)
  np.testing.assert_allclose(weights, [snr, snr, 1.0, 0.0], rtol=1e-6)
  weights = adversarial.pair_weights(process, pairs, "uniform", 600)
  np.testing.assert_array_equal(weights, [1, 1, 1, 0])
