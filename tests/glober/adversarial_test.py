"""The pairs of Eq. 10 and both forms of the loss, on logits one can check by hand."""

import jax.numpy as jnp
import numpy as np

from videodiff_jax.glober import adversarial


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
