"""The Coherence and Realism Adversarial loss: which pairs of frames, and what is made of them.

A pair is a stack (b, 2, h, w, c) of an earlier and a later frame; D is large for real pairs.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from videodiff_jax.diffusion.process import Process
from videodiff_jax.models.discriminator import PairDiscriminator
from videodiff_jax.training.stage import Metrics

LOSSES = ("hinge", "log")
REALS = ("frames", "reconstructions")
WEIGHTINGS = ("uniform", "min_snr")


def pair_weights(
  process: Process, timesteps: jax.Array, weighting: str, max_timestep: int
) -> jax.Array:
  """How much the pair of two frames estimated at `timesteps` (b, 2) counts. Returns (b,) in [0, 1].

  The paper and the release let all pairs count alike ('uniform'). Under Eq. 9 an error of the
  predicted noise is sigma / alpha times as large in the estimated frame, 14.6 times at t = 999,
  and so is the gradient. 'min_snr' weighs a pair with min(1, alpha^2 / sigma^2) of its noisier
  frame, which leaves nothing amplified. With a predicted v or z_0 nothing is to begin with.

  Args:
    process: diffusion of frame latents.
    timesteps: of both frames.
    weighting: see `WEIGHTINGS`.
    max_timestep: pairs with a noisier frame weigh nothing.
  """
  latest = timesteps.max(1)
  weights = (latest <= max_timestep).astype(jnp.float32)
  if weighting == "uniform":
    return weights
  return weights * jnp.minimum(jnp.exp(2.0 * process.log_snr(latest)), 1.0)


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


def hinge(logits: jax.Array, labels: jax.Array | float) -> jax.Array:
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


class Pairs(NamedTuple):
  """(real, fake) pairs (n, 2, h, w, c) at the same indices i < j, and how much each counts (n,)."""

  real: jax.Array
  fake: jax.Array
  weights: jax.Array


@dataclasses.dataclass(frozen=True)
class CRA:
  """The CRA loss as a system is trained with it.

  Attributes:
    discriminator: D.
    process: diffusion of frame latents.
    weight: lambda_2 of Eq. 8.
    loss: of `LOSSES`.
    weighting: of `WEIGHTINGS`, see `pair_weights`.
    max_timestep: pairs with a noisier frame weigh nothing.
    on: 'pixels', or 'latents' as they are.
    real: of `REALS`, what on pixels is real: frames, or the KL-VAE's reconstructions of them, which
      share its traces with the fake ones.
    discriminator_every: iterations between two steps of the discriminator.
  """

  discriminator: PairDiscriminator
  process: Process
  weight: float
  loss: str = "hinge"
  weighting: str = "uniform"
  max_timestep: int = 1000
  on: str = "pixels"
  real: str = "frames"
  discriminator_every: int = 1

  def pairs(self, real: jax.Array, fake: jax.Array, timesteps: jax.Array) -> Pairs:
    """Pairs of neighbours among f targets.

    Args:
      real: (b, f, h, w, c), f even.
      fake: as `real`.
      timesteps: (b, f) that the fake ones were estimated at.
    """
    count = real.shape[1] // 2
    real, fake, timesteps = (
      rearrange(x, "b (p f) ... -> (b p) f ...", p=count) for x in (real, fake, timesteps)
    )
    weights = pair_weights(self.process, timesteps, self.weighting, self.max_timestep)
    return Pairs(real, fake, weights)

  def generator_loss(self, params: Any, pairs: Pairs) -> tuple[jax.Array, Metrics]:
    """L_cra^G under the discriminator's parameters, without lambda_2."""
    logits = self._judge(params, generator_pairs(pairs.real, pairs.fake))
    loss = _weighted_mean(pairs.weights, generator_loss(logits, self.loss))
    return loss, {"cra_generator": loss, "cra_weight": pairs.weights.mean()}

  def discriminator_loss(self, params: Any, pairs: Pairs) -> tuple[jax.Array, Metrics]:
    """L_cra^D of the discriminator's parameters; nothing flows back into the pairs."""
    real, fake, weights = jax.lax.stop_gradient(pairs)
    inputs, labels = discriminator_pairs(real, fake)
    logits = self._judge(params, inputs)
    loss = _weighted_mean(weights, discriminator_loss(logits, labels, self.loss))
    right = (logits > 0) == (labels > 0)
    return loss, {"cra_discriminator": loss, "cra_accuracy": right.mean()}

  def _judge(self, params: Any, pairs: jax.Array) -> jax.Array:
    """(p, n, 2, h, w, c) -> logits (p, n)."""
    # Clips stay the outer part of the batch axis: each device keeps its own.
    flat = rearrange(pairs, "p n f h w c -> (n p) f h w c")
    return rearrange(self.discriminator.apply(params, flat), "(n p) -> p n", p=len(pairs))


def _weighted_mean(weights: jax.Array, values: jax.Array) -> jax.Array:
  """Over the pairs up to max_timestep; to divide by the weights would undo them in few pairs."""
  return (weights * values).sum() / jnp.maximum((weights > 0).sum(), 1)
