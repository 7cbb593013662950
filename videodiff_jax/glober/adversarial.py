"""The Coherence and Realism Adversarial loss: which pairs of frames, and what is made of them.

A pair is a stack (b, 2, h, w, c) of an earlier and a later frame; D is large for real pairs.
"""

import jax
import jax.numpy as jnp

LOSSES = ("hinge", "log")


def generator_pairs(real: jax.Array, fake: jax.Array) -> jax.Array:
  """The three pairs of L_cra^G (Eq. 10): at least one frame is synthesised, order is right.

  Args:
    real: (b, 2, h, w, c) frames x_i, x_j, i < j.
    fake: (b, 2, h, w, c) synthesised frames at the same indices (Eq. 9).

  Returns:
    (3, b, 2, h, w, c): (fake_i, fake_j), (fake_i, real_j), (real_i, fake_j).
  """
  mixed_1 = jnp.stack([fake[:, 0], real[:, 1]], 1)
  mixed_2 = jnp.stack([real[:, 0], fake[:, 1]], 1)
  return jnp.stack([fake, mixed_1, mixed_2])


def discriminator_pairs(real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The six pairs of L_cra^D (Eq. 10) with their labels.

  Returns:
    (6, b, 2, h, w, c): (real_i, real_j) first, then the five fakes: not realistic (the three of
    `generator_pairs`) or not coherent (real and fake with the order reversed); and labels (6, 1).
  """
  reversed_pairs = jnp.stack([real[:, ::-1], fake[:, ::-1]])
  pairs = jnp.concatenate([real[None], generator_pairs(real, fake), reversed_pairs])
  return pairs, jnp.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])[:, None]


def hinge(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """relu(1 - s logit), s = +1 for label 1 and -1 for label 0; elementwise (the release's form)."""
  return jax.nn.relu(1.0 - (2.0 * labels - 1.0) * logits)


def discriminator_loss(logits: jax.Array, labels: jax.Array, loss: str) -> jax.Array:
  """L_cra^D a sample. logits (6, b), labels (6, 1) -> (b,).

  'hinge': mean over the pairs of `hinge`. 'log': -[log s(D(real)) + sum log(1 - s(D(fake)))], s
  the sigmoid; Eq. 10 as printed is this with the sign turned, which is unbounded below.
  """
  if loss == "hinge":
    return hinge(logits, labels).mean(0)
  return jax.nn.softplus(jnp.where(labels > 0, -logits, logits)).sum(0)


def generator_loss(logits: jax.Array, loss: str) -> jax.Array:
  """L_cra^G a sample. logits (3, b) -> (b,).

  'hinge': mean of relu(1 - logit): the pairs count as real. 'log': sum of log(1 - s(D)), Eq. 10.
  """
  if loss == "hinge":
    return hinge(logits, jnp.ones_like(logits)).mean(0)
  return -jax.nn.softplus(logits).sum(0)
