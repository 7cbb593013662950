"""The kl_vae stage: reconstruction and KL, optionally with LPIPS and a patch adversary.

The paper uses a pretrained KL-VAE (Sec. 3.1, Frame Encoding). This is the recipe by which Rombach
et al. trained it (arXiv 2112.10752, Appendix G).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from videodiff_jax.diffusion.saturation import without_overshoot
from videodiff_jax.glober import patch_adversary
from videodiff_jax.glober.networks import Networks
from videodiff_jax.metrics import lpips
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.outputs import output
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
  """The frame auto-encoder's objective, on frames x (n, h, w, c) in [-1, 1].

  Attributes:
    model: the KL-VAE.
    reconstruction: a name in `RECONSTRUCTIONS`: the sum over a frame of |error| or error^2.
    lambda_kl: weight of the KL divergence, which is summed over a frame's latent.
    saturate: if True, overshoot at saturated pixels is not penalised.
    perceptual: LPIPS, or None.
    lambda_perceptual: weight of LPIPS per number of the frame.
    discriminator: the patch adversary, or None.
    lambda_adversary: its weight, which multiplies `patch_adversary.adaptive_weight`.
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
    """Returns the loss of drawn frames without adversary and KL, a mean over frames, and terms."""
    # Summed over pixels, as the KL is over the latent, so that their ratio has no side length.
    error = drawn - x
    if self.saturate:
      error = without_overshoot(error, x)
    error = jnp.abs(error) if self.reconstruction == "l1" else jnp.square(error)
    metrics = {"reconstruction": error.sum((1, 2, 3)).mean()}
    total = metrics["reconstruction"]
    if self.perceptual is not None:
      rgb = [jnp.broadcast_to(image, (*image.shape[:3], 3)) for image in (drawn, x)]
      metrics["lpips"] = self.perceptual(*rgb).mean()
      total += self.lambda_perceptual * metrics["lpips"] * x[0].size
    return total, metrics

  def losses(self, params: Any, x: jax.Array, key: jax.Array) -> Metrics:
    """Returns the terms without the adversary, and their sum as 'loss'."""
    posterior = output(self.model, params, x, method="encode")
    drawn = output(self.model, params, posterior.sample(key), method="decode")
    total, metrics = self.reconstruction_loss(drawn, x)
    kl = posterior.kl().mean()
    return metrics | {"kl": kl, "loss": total + self.lambda_kl * kl}

  @property
  def _discriminator(self) -> PatchDiscriminator:
    assert self.discriminator is not None  # there is no adversarial loss without
    return self.discriminator

  def adversary_loss(
    self, train: TrainState, drawn: jax.Array, features: jax.Array, slope: jax.Array
  ) -> tuple[tuple[jax.Array, Metrics], jax.Array]:
    """Computes the adversary's loss of drawn frames.

    Args:
      train: the state, with the parameters of both networks.
      drawn: (n, h, w, c) drawn frames.
      features: (n, h, w, d) the input of the decoder's last convolution.
      slope: gradient of the other losses with respect to `drawn`.

    Returns:
      ((the weighted loss, metrics), its gradient with respect to `drawn`).
    """
    judge = functools.partial(output, self._discriminator, train.adversary_params)
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
      # The norm of its gradient at the pixels, divided by that of the other losses.
      "adversary_share": weight * jnp.linalg.norm(slope_a) / jnp.linalg.norm(slope),
    }
    return (weight * loss, metrics), weight * slope_a

  def gradients(
    self, train: TrainState, x: jax.Array, key: jax.Array, *, adversarial: bool
  ) -> dict[str, Any]:
    """Computes gradients and metrics on frames x, which are drawn once for all losses."""

    # The frames, with a function that pulls gradients back to the parameters.
    def autoencoded(params: Any) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
      posterior = output(self.model, params, x, method="encode")
      drawn, kept = self.model.apply(
        params, posterior.sample(key), method="decode", mutable=["intermediates"]
      )
      return (drawn, posterior.kl().mean()), kept["intermediates"]["decoder"]["features"][0]

    (drawn, kl), pull_back, features = jax.vjp(autoencoded, train.params, has_aux=True)
    # The auto-encoder's losses and their gradient with respect to the frames.
    graph = jax.value_and_grad(self.reconstruction_loss, has_aux=True)
    (total, metrics), slope = graph(drawn, x)
    if adversarial:
      (loss, terms), slope_a = self.adversary_loss(train, drawn, features, slope)
      total, slope, metrics = total + loss, slope + slope_a, metrics | terms
    total += self.lambda_kl * kl
    metrics |= {"kl": kl, "loss": total}
    (by_params,) = pull_back((slope, jnp.full_like(kl, self.lambda_kl)))
    if not adversarial:
      return {"params": by_params, "metrics": metrics}

    # The discriminator's loss.
    def discriminator_loss(params: Any) -> jax.Array:
      judge = functools.partial(output, self._discriminator, params)
      return patch_adversary.discriminator_loss(judge, x, drawn)

    loss, slope_d = jax.value_and_grad(discriminator_loss)(train.adversary_params)
    metrics |= {"discriminator": loss}
    return {"params": by_params, "adversary": slope_d, "metrics": metrics}

  def train_step(
    self, train: TrainState, batch: Batch, updates: Updates, *, adversarial: bool
  ) -> tuple[TrainState, Metrics]:
    """Makes one iteration on a batch's 'frames' (b, f, h, w, c) uint8."""

    def gradients(part: Batch, key: jax.Array) -> dict[str, Any]:
      return self.gradients(train, flat_frames(part), key, adversarial=adversarial)

    return updates.step(train, batch, gradients)


def flat_frames(batch: Batch) -> jax.Array:
  """Converts a batch's 'frames' (b, f, h, w, c) uint8 to (b f, h, w, c) in [-1, 1]."""
  return to_float(batch["frames"]).reshape(-1, *batch["frames"].shape[2:])


def make_objective(config: ml_collections.ConfigDict, networks: Networks) -> FrameObjective:
  """Builds the objective of a configuration; this reads LPIPS' weights if they are needed."""
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
  """Builds the stage that trains the KL-VAE on single frames: 'frames' (b, 1, h, w, c)."""
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
    if objective.discriminator is not None and updates.adversary_optimizer is not None:
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
    posterior = output(
      model, train.ema_params, clips.reshape(-1, *clips.shape[2:]), method="encode"
    )
    drawn = output(model, train.ema_params, posterior.mean, method="decode")
    return {"real": clips, "reconstruction": drawn.reshape(clips.shape)}

  steps = ((0, functools.partial(train_step, adversarial=False)),)
  if objective.discriminator is not None:
    steps += ((adversary_start, functools.partial(train_step, adversarial=True)),)
  return Stage("kl_vae", init, steps, preview, validate)
