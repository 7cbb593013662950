"""The kl_vae stage: reconstruction + KL, with LPIPS and a patch adversary by option.

The paper takes a pretrained KL-VAE (Sec. 3.1, Frame Encoding) whose recipe is Rombach et al.'s
(arXiv 2112.10752, Appendix G); this is that recipe.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from videodiff_jax.glober import patch_adversary
from videodiff_jax.glober.networks import Networks
from videodiff_jax.metrics import lpips
from videodiff_jax.models.patch_discriminator import PatchDiscriminator
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import optimizers, state
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.state import Adversary, TrainState

RECONSTRUCTIONS = ("l1", "l2")


def shown(error: jax.Array, x: jax.Array) -> jax.Array:
  """The part of `error` = drawn - x that is seen when `drawn` is clipped to [-1, 1].

  Without the rest, black need not be met exactly from above and below, and a black background
  ends up black instead of grey by the noise of the network.
  """
  return jnp.where(
    x <= -1.0, jnp.maximum(error, 0.0), jnp.where(x >= 1.0, jnp.minimum(error, 0.0), error)
  )


def kl_vae_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Trains the frame auto-encoder on single frames; batches hold 'frames' (b, 1, h, w, c)."""
  settings, losses = config.train.kl_vae, config.loss.kl_vae
  optimizer = optimizers.of_stage(settings)
  adversary_start = max(losses.adversary_start, 1)
  adversary_optimizer = optimizers.of_adversary(settings, adversary_start)
  ema = state.Ema(**settings.ema)
  model = networks.kl_vae
  discriminator = PatchDiscriminator(dtype=jnp.dtype(config.precision))
  perceptual = lpips.load_params(losses.lpips_net) if losses.lpips else None

  def init(key: jax.Array) -> TrainState:
    keys = jax.random.split(key, 3)
    frame = jnp.zeros((1, config.data.image_size, config.data.image_size, config.data.channels))
    params = model.init(keys[0], frame, keys[0])
    adversary = None
    if losses.adversary:
      fresh = discriminator.init(keys[1], frame)
      adversary = Adversary(fresh, adversary_optimizer.init(fresh))
    return state.create(keys[2], params, optimizer, adversary=adversary)

  def reconstruction_loss(drawn: jax.Array, x: jax.Array) -> tuple[jax.Array, Metrics]:
    # Summed over a frame's pixels, as the KL is over its latent: their ratio has no side length.
    error = drawn - x
    if losses.saturate:
      error = shown(error, x)
    error = jnp.abs(error) if losses.reconstruction == "l1" else jnp.square(error)
    metrics = {"reconstruction": error.sum((1, 2, 3)).mean()}
    total = metrics["reconstruction"]
    if losses.lpips:
      rgb = [jnp.broadcast_to(image, (*image.shape[:3], 3)) for image in (drawn, x)]
      metrics["lpips"] = lpips.lpips(*rgb, losses.lpips_net, perceptual).mean()
      total += losses.lpips * metrics["lpips"] * x[0].size
    return total, metrics

  def adversary_loss(
    train: TrainState, drawn: jax.Array, features: jax.Array, slope: jax.Array
  ) -> tuple[tuple[jax.Array, Metrics], jax.Array]:
    """The weighted loss and metrics, and its gradient by `drawn`, where `slope` is the others'."""
    judge = functools.partial(discriminator.apply, train.adversary.params)
    loss_of = functools.partial(patch_adversary.generator_loss, judge)
    loss, slope_a = jax.value_and_grad(loss_of)(drawn)
    last = train.params["params"]["decoder"]["conv_out"]
    by_kernel = [
      patch_adversary.gradient_by_kernel(last, features, by_drawn) for by_drawn in (slope, slope_a)
    ]
    weight = losses.adversary * patch_adversary.adaptive_weight(*by_kernel)
    metrics = {
      "adversary": loss,
      "adversary_weight": weight,
      # How hard it pulls at the pixels, where the reconstruction does with 1.
      "adversary_share": weight * jnp.linalg.norm(slope_a) / jnp.linalg.norm(slope),
    }
    return (weight * loss, metrics), weight * slope_a

  def gradients(train: TrainState, batch: Batch, key: jax.Array, adversarial: bool) -> dict:
    x = to_float(batch["frames"]).reshape(-1, *batch["frames"].shape[2:])

    def autoencoded(params: Any) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
      posterior = model.apply(params, x, method="encode")
      drawn, kept = model.apply(
        params, posterior.sample(key), method="decode", mutable=["intermediates"]
      )
      return (drawn, posterior.kl().mean()), kept["intermediates"]["decoder"]["features"][0]

    (drawn, kl), pull_back, features = jax.vjp(autoencoded, train.params, has_aux=True)
    (total, metrics), slope = jax.value_and_grad(reconstruction_loss, has_aux=True)(drawn, x)
    if adversarial:
      (loss, told), slope_a = adversary_loss(train, drawn, features, slope)
      total, slope, metrics = total + loss, slope + slope_a, metrics | told
    total += losses.kl * kl
    metrics |= {"kl": kl, "loss": total}
    (grad,) = pull_back((slope, jnp.full_like(kl, losses.kl)))
    if not adversarial:
      return {"params": grad, "metrics": metrics}

    def of_discriminator(params: Any) -> jax.Array:
      judge = functools.partial(discriminator.apply, params)
      return patch_adversary.discriminator_loss(judge, x, drawn)

    loss, grad_d = jax.value_and_grad(of_discriminator)(train.adversary.params)
    return {"params": grad, "adversary": grad_d, "metrics": metrics | {"discriminator": loss}}

  def step(train: TrainState, batch: Batch, adversarial: bool) -> tuple[TrainState, Metrics]:
    result = optimizers.accumulate(
      lambda part, key: gradients(train, part, key, adversarial),
      batch, jax.random.fold_in(train.key, train.step), settings.accumulate,
    )  # fmt: skip
    metrics = result["metrics"] | {"gradient_norm": optax.tree.norm(result["params"])}
    new = state.apply_gradients(train, result["params"], optimizer, ema)
    if adversarial:
      adversary = train.adversary.apply_gradients(result["adversary"], adversary_optimizer)
      new = new.replace(adversary=adversary)
    return new, metrics

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    del frozen
    x = to_float(batch["frames"]).reshape(-1, *batch["frames"].shape[2:])
    posterior = model.apply(train.ema_params, x, method="encode")
    drawn = model.apply(train.ema_params, posterior.sample(key), method="decode")
    total, metrics = reconstruction_loss(drawn, x)
    kl = posterior.kl().mean()
    return metrics | {"kl": kl, "loss": total + losses.kl * kl}

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    del frozen, key
    clips = to_float(batch["frames"])
    posterior = model.apply(train.ema_params, clips.reshape(-1, *clips.shape[2:]), method="encode")
    drawn = model.apply(train.ema_params, posterior.mean, method="decode")
    return {"real": clips, "reconstruction": drawn.reshape(clips.shape)}

  def plain(train: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
    return step(train, batch, adversarial=False)

  def against_adversary(train: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
    return step(train, batch, adversarial=True)

  steps = ((0, plain),)
  if losses.adversary:
    steps = ((0, plain), (adversary_start, against_adversary))
  return Stage("kl_vae", init, steps, preview, validate)
