"""The kl_vae stage: reconstruction + KL, with LPIPS and a patch adversary by option.

The paper takes a pretrained KL-VAE (Sec. 3.1, Frame Encoding) whose recipe is Rombach et al.'s
(arXiv 2112.10752, Appendix G); this is that recipe.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from videodiff_jax.diffusion.saturation import hidden_by_clipping
from videodiff_jax.glober import patch_adversary
from videodiff_jax.glober.networks import Networks
from videodiff_jax.metrics import lpips
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.patch_discriminator import PatchDiscriminator
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import optimizers, state
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.state import Adversary, TrainState
from videodiff_jax.training.updates import Updates

RECONSTRUCTIONS = ("l1", "l2")

Distance = Callable[[jax.Array, jax.Array], jax.Array]  # two (n, h, w, 3) in [-1, 1] -> (n,)


@dataclasses.dataclass(frozen=True)
class FrameObjective:
  """How the frame auto-encoder is trained, on frames x (n, h, w, c) in [-1, 1].

  Attributes:
    model: the KL-VAE.
    reconstruction: of `RECONSTRUCTIONS`: the sum over a frame's pixels of |error| or error^2.
    lambda_kl: weight of the KL divergence, which is summed over a frame's latent.
    saturate: black drawn blacker than black, and white whiter, is no error.
    perceptual: LPIPS, or None.
    lambda_perceptual: its weight a number of the frame.
    discriminator: the patch adversary, or None.
    lambda_adversary: its weight beside `patch_adversary.adaptive_weight`.
  """

  model: KLVAE
  reconstruction: str = "l1"
  lambda_kl: float = 1e-6
  saturate: bool = False
  perceptual: Distance | None = None
  lambda_perceptual: float = 0.0
  discriminator: PatchDiscriminator | None = None
  lambda_adversary: float = 0.0

  def reconstruction_loss(self, drawn: jax.Array, x: jax.Array) -> tuple[jax.Array, Metrics]:
    """The loss of drawn frames without adversary and KL, the mean over frames, and its terms."""
    # Summed over a frame's pixels, as the KL is over its latent: their ratio has no side length.
    error = drawn - x
    if self.saturate:
      error = jnp.where(hidden_by_clipping(drawn, x), 0.0, error)
    error = jnp.abs(error) if self.reconstruction == "l1" else jnp.square(error)
    metrics = {"reconstruction": error.sum((1, 2, 3)).mean()}
    total = metrics["reconstruction"]
    if self.perceptual is not None:
      rgb = [jnp.broadcast_to(image, (*image.shape[:3], 3)) for image in (drawn, x)]
      metrics["lpips"] = self.perceptual(*rgb).mean()
      total += self.lambda_perceptual * metrics["lpips"] * x[0].size
    return total, metrics

  def losses(self, params: Any, x: jax.Array, key: jax.Array) -> Metrics:
    """The terms that no adversary has part in, and their sum as 'loss'; nothing is trained."""
    posterior = self.model.apply(params, x, method="encode")
    drawn = self.model.apply(params, posterior.sample(key), method="decode")
    total, metrics = self.reconstruction_loss(drawn, x)
    kl = posterior.kl().mean()
    return metrics | {"kl": kl, "loss": total + self.lambda_kl * kl}

  def adversary_loss(
    self, train: TrainState, drawn: jax.Array, features: jax.Array, slope: jax.Array
  ) -> tuple[tuple[jax.Array, Metrics], jax.Array]:
    """((the weighted loss, metrics), its gradient by the drawn frames).

    Args:
      train: parameters of both networks.
      drawn: (n, h, w, c) frames.
      features: (n, h, w, d) that the decoder's last convolution drew them from.
      slope: gradient by `drawn` of the other losses.
    """
    judge = functools.partial(self.discriminator.apply, train.adversary.params)
    loss_of = functools.partial(patch_adversary.generator_loss, judge)
    loss, slope_a = jax.value_and_grad(loss_of)(drawn)
    last = train.params["params"]["decoder"]["conv_out"]
    by_kernel = [
      patch_adversary.gradient_by_kernel(last, features, by_drawn) for by_drawn in (slope, slope_a)
    ]
    weight = self.lambda_adversary * patch_adversary.adaptive_weight(*by_kernel)
    metrics = {
      "adversary": loss,
      "adversary_weight": weight,
      # How hard it pulls at the pixels, where the reconstruction does with 1.
      "adversary_share": weight * jnp.linalg.norm(slope_a) / jnp.linalg.norm(slope),
    }
    return (weight * loss, metrics), weight * slope_a

  def gradients(
    self, train: TrainState, x: jax.Array, key: jax.Array, *, adversarial: bool
  ) -> dict[str, Any]:
    """Gradients and metrics on frames x; they are drawn once for all losses."""

    def autoencoded(params: Any) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
      posterior = self.model.apply(params, x, method="encode")
      drawn, kept = self.model.apply(
        params, posterior.sample(key), method="decode", mutable=["intermediates"]
      )
      return (drawn, posterior.kl().mean()), kept["intermediates"]["decoder"]["features"][0]

    (drawn, kl), pull_back, features = jax.vjp(autoencoded, train.params, has_aux=True)
    graph = jax.value_and_grad(self.reconstruction_loss, has_aux=True)
    (total, metrics), slope = graph(drawn, x)
    if adversarial:
      (loss, told), slope_a = self.adversary_loss(train, drawn, features, slope)
      total, slope, metrics = total + loss, slope + slope_a, metrics | told
    total += self.lambda_kl * kl
    metrics |= {"kl": kl, "loss": total}
    (by_params,) = pull_back((slope, jnp.full_like(kl, self.lambda_kl)))
    if not adversarial:
      return {"params": by_params, "metrics": metrics}

    def discriminator_loss(params: Any) -> jax.Array:
      judge = functools.partial(self.discriminator.apply, params)
      return patch_adversary.discriminator_loss(judge, x, drawn)

    loss, slope_d = jax.value_and_grad(discriminator_loss)(train.adversary.params)
    metrics |= {"discriminator": loss}
    return {"params": by_params, "adversary": slope_d, "metrics": metrics}

  def train_step(
    self, train: TrainState, batch: Batch, updates: Updates, *, adversarial: bool
  ) -> tuple[TrainState, Metrics]:
    """One iteration on a batch's 'frames' (b, f, h, w, c) uint8."""

    def gradients(part: Batch, key: jax.Array) -> dict[str, Any]:
      return self.gradients(train, flat_frames(part), key, adversarial=adversarial)

    return updates.step(train, batch, gradients)


def flat_frames(batch: Batch) -> jax.Array:
  """A batch's 'frames' (b, f, h, w, c) uint8 -> (b f, h, w, c) in [-1, 1]."""
  return to_float(batch["frames"]).reshape(-1, *batch["frames"].shape[2:])


def make_objective(config: ml_collections.ConfigDict, networks: Networks) -> FrameObjective:
  """The objective that a configuration describes; LPIPS' weights are read."""
  loss = config.loss.kl_vae
  perceptual = discriminator = None
  if loss.lpips:
    net, params = loss.lpips_net, lpips.load_params(loss.lpips_net)
    perceptual = functools.partial(lpips.lpips, net=net, params=params)
  if loss.adversary:
    discriminator = PatchDiscriminator(dtype=jnp.dtype(config.precision))
  return FrameObjective(
    networks.kl_vae,
    loss.reconstruction,
    loss.kl,
    loss.saturate,
    perceptual,
    loss.lpips,
    discriminator,
    loss.adversary,
  )


def kl_vae_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Trains the frame auto-encoder on single frames; batches hold 'frames' (b, 1, h, w, c)."""
  settings = config.train.kl_vae
  adversary_start = max(config.loss.kl_vae.adversary_start, 1)
  objective = make_objective(config, networks)
  updates = Updates(
    optimizers.of_stage(settings),
    state.Ema(**settings.ema),
    settings.accumulate,
    optimizers.of_adversary(settings, adversary_start),
  )
  model = networks.kl_vae

  def init(key: jax.Array) -> TrainState:
    keys = jax.random.split(key, 3)
    frame = jnp.zeros((1, config.data.image_size, config.data.image_size, config.data.channels))
    params = model.init(keys[0], frame, keys[0])
    adversary = None
    if objective.discriminator is not None:
      fresh = objective.discriminator.init(keys[1], frame)
      adversary = Adversary(fresh, updates.adversary_optimizer.init(fresh))
    return state.create(keys[2], params, updates.optimizer, adversary=adversary)

  def train_step(
    train: TrainState, frozen: Any, batch: Batch, adversarial: bool
  ) -> tuple[TrainState, Metrics]:
    del frozen
    return objective.train_step(train, batch, updates, adversarial=adversarial)

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    del frozen
    return objective.losses(train.ema_params, flat_frames(batch), key)

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    del frozen, key
    clips = to_float(batch["frames"])
    posterior = model.apply(train.ema_params, clips.reshape(-1, *clips.shape[2:]), method="encode")
    drawn = model.apply(train.ema_params, posterior.mean, method="decode")
    return {"real": clips, "reconstruction": drawn.reshape(clips.shape)}

  steps = ((0, functools.partial(train_step, adversarial=False)),)
  if objective.discriminator is not None:
    steps += ((adversary_start, functools.partial(train_step, adversarial=True)),)
  return Stage("kl_vae", init, steps, preview, validate)
