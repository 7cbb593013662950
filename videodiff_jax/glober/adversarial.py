"""The Coherence and Realism Adversarial (CRA) loss: its pairs of frames and its terms.

A pair is a stack (b, 2, h, w, c) of an earlier and a later frame; D is large for real pairs.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from videodiff_jax.diffusion.process import Process
from videodiff_jax.models.discriminator import PairDiscriminator
from videodiff_jax.models.outputs import output
from videodiff_jax.training.stage import Metrics

LOSSES = ("hinge", "balanced_hinge", "log")
REALS = ("frames", "reconstructions")
WEIGHTINGS = ("uniform", "min_snr")


def pair_weights(
  process: Process, timesteps: jax.Array, weighting: str, max_timestep: int
) -> jax.Array:
  """Returns the weight (b,) in [0, 1] of each pair of frames estimated at `timesteps` (b, 2).

  The paper and the release weight all pairs equally ('uniform'). Under Eq. 9 an error of the
  predicted noise is amplified by sigma / alpha in the estimated frame, 14.6 times at t = 999, and
  so is the gradient. 'min_snr' weights a pair by min(1, alpha^2 / sigma^2) of its noisier frame,
  which removes the amplification. With a predicted v or z_0 there is no amplification.

  Args:
    process: the diffusion process of frame latents.
    timesteps: (b, 2) timesteps of both frames.
    weighting: a name in `WEIGHTINGS`.
    max_timestep: pairs with a noisier frame have weight 0.
  """
  latest = timesteps.max(1)
  weights = (latest <= max_timestep).astype(jnp.float32)
  if weighting == "uniform":
    return weights
  return weights * jnp.minimum(jnp.exp(2.0 * process.log_snr(latest)), 1.0)


def generator_pairs(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Builds the three pairs of L_cra^G (Eq. 10): with a synthesised frame, in the right order.

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
  """Builds the six pairs of L_cra^D (Eq. 10) with their labels.

  Returns:
    Pairs (6, b, 2, h, w, c) and labels (6, 1). (real_i, real_j) comes first, then five fake pairs:
    not realistic (the three of `generator_pairs`), or not coherent (real and fake in reversed
    order).
  """
  reversed_pairs = jnp.stack([real[:, ::-1], fake[:, ::-1]])
  pairs = jnp.concatenate([real[None], generator_pairs(real, fake), reversed_pairs])
  return pairs, jnp.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])[:, None]


def hinge(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Computes relu(1 - s logit) elementwise, s = +1 for label 1 and -1 for label 0 (as released)."""
  return jax.nn.relu(1.0 - (2.0 * labels - 1.0) * logits)


def discriminator_loss(logits: jax.Array, labels: jax.Array, loss: str) -> jax.Array:
  """Computes each sample's L_cra^D (b,) from logits (6, b) and labels (6, 1).

  'hinge' is the mean of `hinge` over the pairs (as released). There a constant -1 is a resting
  place, since five of six pairs are fake, and small discriminators were seen to stay at it.
  'balanced_hinge' (ours) averages real and fake pairs separately, so that they weigh equally; then
  every constant in [-1, 1] costs the same. 'log' is -[log s(D(real)) + sum log(1 -
  s(D(fake)))], with s the sigmoid. Eq. 10 as printed has the opposite sign, which is unbounded
  below.
  """
  if loss == "hinge":
    return hinge(logits, labels).mean(0)
  if loss == "balanced_hinge":
    each, real = hinge(logits, labels), labels > 0
    return 0.5 * (each.mean(0, where=real) + each.mean(0, where=~real))
  return jax.nn.softplus(jnp.where(labels > 0, -logits, logits)).sum(0)


def generator_loss(logits: jax.Array, loss: str) -> jax.Array:
  """Computes each sample's L_cra^G (b,) from logits (3, b).

  For both hinges it is the mean of relu(1 - logit), as for real pairs. 'log' is the sum of log(1 -
  s(D)), Eq. 10.
  """
  if loss == "log":
    return -jax.nn.softplus(logits).sum(0)
  return hinge(logits, jnp.ones_like(logits)).mean(0)


class Pairs(NamedTuple):
  """Real and fake pairs (n, 2, h, w, c) at the same indices i < j, and their weights (n,)."""

  real: jax.Array
  fake: jax.Array
  weights: jax.Array


@dataclasses.dataclass(frozen=True)
class CRA:
  """The CRA loss and its settings.

  Attributes:
    discriminator: D.
    process: the diffusion process of frame latents.
    weight: lambda_2 of Eq. 8.
    loss: a name in `LOSSES`.
    weighting: a name in `WEIGHTINGS`, see `pair_weights`.
    max_timestep: pairs with a noisier frame have weight 0.
    on: whether D judges 'pixels' or 'latents'.
    real: a name in `REALS`, the real samples on pixels: frames, or the KL-VAE's reconstructions,
      which have the same artefacts as the fake samples.
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
    """Pairs neighbours among f targets.

    Args:
      real: (b, f, h, w, c) real targets, f even.
      fake: (b, f, h, w, c) their estimates.
      timesteps: (b, f) the timesteps of the estimates.
    """
    count = real.shape[1] // 2
    real, fake, timesteps = (
      rearrange(x, "b (p f) ... -> (b p) f ...", p=count) for x in (real, fake, timesteps)
    )
    weights = pair_weights(self.process, timesteps, self.weighting, self.max_timestep)
    return Pairs(real, fake, weights)

  def generator_loss(self, params: Any, pairs: Pairs) -> tuple[jax.Array, Metrics]:
    """Computes L_cra^G with the discriminator's parameters, without lambda_2."""
    logits = self._judge(params, generator_pairs(pairs.real, pairs.fake))
    loss = _weighted_mean(pairs.weights, generator_loss(logits, self.loss))
    return loss, {"cra_generator": loss, "cra_weight": pairs.weights.mean()}

  def discriminator_loss(self, params: Any, pairs: Pairs) -> tuple[jax.Array, Metrics]:
    """Computes L_cra^D of the discriminator's parameters; no gradient flows to the pairs."""
    real, fake, weights = jax.lax.stop_gradient(pairs)
    inputs, labels = discriminator_pairs(real, fake)
    logits = self._judge(params, inputs)
    loss = _weighted_mean(weights, discriminator_loss(logits, labels, self.loss))
    right = (logits > 0) == (labels > 0)
    return loss, {"cra_discriminator": loss, "cra_accuracy": right.mean()}

  def _judge(self, params: Any, pairs: jax.Array) -> jax.Array:
    """Judges pairs (p, n, 2, h, w, c) by logits (p, n)."""
    # Clips stay the outer part of the batch axis, so that each device keeps its own.
    flat = rearrange(pairs, "p n f h w c -> (n p) f h w c")
    return rearrange(output(self.discriminator, params, flat), "(n p) -> p n", p=len(pairs))


def _weighted_mean(weights: jax.Array, values: jax.Array) -> jax.Array:
  """Averages over pairs with nonzero weight; dividing by the weights' sum would undo them."""
  return (weights * values).sum() / jnp.maximum((weights > 0).sum(), 1)
