"""The objectives alone: a loss of each against its formula, with stand-ins for the networks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.glober import tiny
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.glober.adversarial import CRA
from videodiff_jax.glober.autoencoder_stage import AutoencoderObjective, Synthesis
from videodiff_jax.glober.generator_stage import GeneratorObjective
from videodiff_jax.models.gaussian import Gaussian

PROCESS = Process(make_schedule())  # predicts the noise


class Decoder:
  """In place of the auto-encoder: its encoding is given and its UNet predicts no noise at all."""

  posterior = Gaussian(jnp.full((2, 2, 2, 4), 0.5), jnp.full((2, 2, 2, 4), -1.0))

  def apply(self, params: Any, *args: jax.Array, method: str) -> Any:
    if method == "encode":
      return self.posterior
    return jnp.zeros_like(args[0]) if method == "denoise" else args


class Generator:
  """In place of the DiT: it predicts as noise the number of its class."""

  in_channels, context_dim = 4, 8

  def apply(self, params: Any, v: jax.Array, t: jax.Array, tokens: Any, labels: Any) -> jax.Array:
    assert not tokens.any() and tokens.shape == (len(v), 1, 8)
    return jnp.broadcast_to(labels[:, None, None, None], v.shape).astype(jnp.float32)


def test_autoencoder_s_losses() -> None:
  """Eq. 2, 7, 8 and 9 of a network that predicts no noise: L_rec is that of the noise itself."""
  networks = dataclasses.replace(tiny.networks(), autoencoder=Decoder(), decoder_process=PROCESS)
  objective = AutoencoderObjective(networks, lambda_kl=0.1)
  rng = np.random.default_rng(0)
  moments = rng.normal(size=(2, 2, 4, 4, 8)).astype(np.float32)
  moments[..., 4:] = -60.0  # no spread: the latents are the means
  batch = {
    "key_moments": moments, "target_moments": moments, "label": np.array([0, 1]),
    "target_times": np.float32([[0.1, 0.5], [0.2, 0.9]]),
  }  # fmt: skip
  statistics = {"mean": jnp.full(4, 0.5), "std": jnp.full(4, 2.0)}
  made = objective.synthesise({}, {}, statistics, batch, jax.random.key(0))
  z_0 = (moments[..., :4] - 0.5) / 2
  np.testing.assert_allclose(made.latents, z_0, atol=1e-6)
  log_snr = PROCESS.schedule.log_snr[np.asarray(made.timesteps)][..., None, None, None]
  noise = (made.estimates - z_0) * np.exp(log_snr)  # z_t / alpha - z_0 = sigma / alpha noise
  assert 0.8 < noise.std() < 1.2
  np.testing.assert_allclose(made.reconstruction, np.square(noise).mean(), rtol=1e-3)
  kl = 0.5 * 16 * (0.5**2 + np.exp(-1.0) - 1 + 1)
  np.testing.assert_allclose(made.kl, kl, rtol=1e-6)
  losses = objective.without_cra(made)
  np.testing.assert_allclose(losses["loss"], made.reconstruction + 0.1 * kl, rtol=1e-6)


def test_cra_s_pairs_and_losses_on_latents() -> None:
  """Eq. 10 of a discriminator whose logit is the sum of the first frame minus the second's."""

  class Discriminator:
    def apply(self, params: Any, pairs: jax.Array) -> jax.Array:
      return params * (pairs[:, 0] - pairs[:, 1]).sum((1, 2, 3))

  cra = CRA(Discriminator(), PROCESS, weight=0.2, on="latents", max_timestep=500)
  objective = AutoencoderObjective(tiny.networks(), 0.0, cra=cra)
  rng = np.random.default_rng(0)
  real, fake = rng.normal(size=(2, 2, 4, 1, 1, 1)).astype(np.float32)
  timesteps = np.array([[3, 7, 500, 501], [0, 400, 10, 20]])
  made = Synthesis(0.0, 0.0, real, fake, timesteps)
  pairs = objective.pairs({}, {}, {}, made)
  np.testing.assert_array_equal(pairs.weights, [1, 0, 1, 1])  # the noisier frame decides
  np.testing.assert_array_equal(pairs.real.reshape(4, 2), real.reshape(4, 2))

  def logit(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (2.0 * (first - second)).reshape(4)[[0, 2, 3]]

  (r_i, r_j), (f_i, f_j) = (x.reshape(4, 2).T for x in (real, fake))
  fakes = [logit(f_i, f_j), logit(f_i, r_j), logit(r_i, f_j)]
  loss, _ = cra.generator_loss(2.0, pairs)
  np.testing.assert_allclose(loss, np.maximum(1 - np.stack(fakes), 0).mean(), rtol=1e-5)
  fakes += [logit(r_j, r_i), logit(f_j, f_i)]
  each = [1 - logit(r_i, r_j), *(1 + fake for fake in fakes)]
  loss, metrics = cra.discriminator_loss(2.0, pairs)
  np.testing.assert_allclose(loss, np.maximum(np.stack(each), 0).mean(), rtol=1e-5)
  assert metrics["cra_discriminator"] == loss
  slope = jax.grad(lambda fake: cra.discriminator_loss(2.0, pairs._replace(fake=fake))[0])
  assert not slope(pairs.fake).any()


def test_generator_s_loss() -> None:
  """Eq. 7 of global features: what is predicted against the noise that was drawn."""
  networks = dataclasses.replace(tiny.networks(), generator=Generator(), generator_process=PROCESS)
  features, key = jnp.zeros((3, *tiny.FEATURE)), jax.random.key(1)
  labels, null = np.array([0, 1, 0]), np.array(2)
  noise = jax.random.normal(jax.random.split(key, 3)[2], features.shape)
  for dropped, predicted in ((0.0, labels), (1.0, np.array([2, 2, 2]))):
    loss = GeneratorObjective(networks, dropped).loss({}, features, labels, null, key)
    expected = np.square(predicted[:, None, None, None] - noise).mean((1, 2, 3))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
