"""What the training loop runs for GLOBER: kl_vae, autoencoder, generator."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from einops import rearrange

from videodiff_jax.glober import (
  adversarial,
  conditions,
  drawing,
  generator,
  latents,
  pretrained_init,
)
from videodiff_jax.glober.autoencoder import Statistics, decode_frames, reconstruction
from videodiff_jax.glober.kl_vae_stage import kl_vae_stage
from videodiff_jax.glober.networks import Networks, build
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import optimizers, partitioning, state, warm_start
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.state import Adversary, TrainState

NAMES = ("kl_vae", "autoencoder", "generator")


def make_stage(config: ml_collections.ConfigDict, name: str) -> Stage:
  """The stage of a name; see `NAMES`. It begins with the weights of `config.init`, if given."""
  makers: dict[str, Callable[[ml_collections.ConfigDict, Networks], Stage]] = {
    "kl_vae": kl_vae_stage,
    "autoencoder": autoencoder_stage,
    "generator": generator_stage,
  }
  networks = build(config)
  if name == "kl_vae" and pretrained_init.path_of(config, name):
    return pretrained_init.given_kl_vae_stage(config, networks)
  stage = pretrained_init.with_pretrained(config, networks, makers[name](config, networks))
  return warm_start.with_run(config, stage)


def frozen_networks(name: str, ema: dict[str, dict[str, Any]]) -> dict[str, Any]:
  """The `frozen` argument of a stage, from {'ema_params', 'statistics'} of the earlier ones.

  Where text is encoded, `ema['text']['null']` is the empty prompt's tokens (l, d).
  """
  frozen = {}
  if name != "kl_vae":
    frozen["kl_vae"] = ema["kl_vae"]["ema_params"]
    if "text" in ema:
      frozen["null_text"] = ema["text"]["null"]
  if name == "generator":
    frozen["autoencoder"] = ema["autoencoder"]["ema_params"]
    frozen["latent_statistics"] = ema["autoencoder"]["statistics"]["latents"]
  return frozen


def sampling_params(ema: dict[str, dict[str, Any]]) -> dict[str, Any]:
  """The `params` of glober.drawing, from {'ema_params', 'statistics'} of all stages."""
  return frozen_networks("generator", ema) | {
    "generator": ema["generator"]["ema_params"],
    "feature_statistics": ema["generator"]["statistics"]["global_features"],
  }


def channel_statistics(channels: int, std: float = 1.0) -> dict[str, jax.Array]:
  """Mean 0 and a common std for every channel: the values before any are measured."""
  return {"mean": jnp.zeros(channels), "std": jnp.full(channels, std)}


def autoencoder_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Eq. 8: L_rec + lambda_1 L_kl + lambda_2 L_cra^G, and the discriminator's own L_cra^D."""
  settings, losses, cra = config.train.autoencoder, config.loss, config.loss.cra
  optimizer = optimizers.of_stage(settings)
  optimizer_d = optimizers.of_adversary(settings, cra.start_step, cra.discriminator_every)
  ema = state.Ema(**settings.ema)
  model, process = networks.autoencoder, networks.decoder_process
  discriminator = networks.discriminator
  measured = not config.model.latent_scale

  def init(key: jax.Array) -> TrainState:
    keys = jax.random.split(key, 3)
    latents = jnp.zeros((1, config.data.num_keyframes, *networks.latent_shape))
    params = model.init(keys[0], latents, jnp.zeros(1), conditions.example(networks))
    adversary = None
    if losses.lambda_cra:
      side, channels = discriminator.image_size, discriminator.in_channels
      fresh = discriminator.init(keys[1], jnp.zeros((1, 2, side, side, channels)))
      adversary = Adversary(fresh, optimizer_d.init(fresh))
    std = 1.0 if measured else 1.0 / config.model.latent_scale
    statistics = {"latents": channel_statistics(networks.latent_shape[-1], std)}
    return state.create(keys[2], params, optimizer, statistics, adversary)

  def synthesised(
    params: Any, frozen: Any, statistics: Any, batch: Batch, key: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """The losses of Eq. 8 without CRA, and the target latents."""
    keys = jax.random.split(key, 3)
    encode = [
      latents.draw_latents(networks, frozen, statistics["latents"], batch, which, k)
      for which, k in (("key", keys[0]), ("target", keys[1]))
    ]
    out = reconstruction(
      model, process, params, *encode, batch["target_times"],
      conditions.of_batch(networks, batch), conditions.null(networks, frozen), keys[2],
      drop_video=losses.drop_video, drop_condition=losses.drop_condition,
    )  # fmt: skip
    return out, encode[1]

  def without_cra(out: dict[str, jax.Array]) -> Metrics:
    total = out["reconstruction"] + losses.lambda_kl * out["kl"]
    return {"reconstruction": out["reconstruction"], "kl": out["kl"], "loss": total}

  def cra_pairs(
    frozen: Any, statistics: Any, batch: Batch, out: dict, latents: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(real, fake) pairs (b, 2, h, w, c) of neighbouring targets, and how much each counts."""
    real, fake = judged_frames(
      config, networks, frozen, statistics["latents"], batch, latents, out["latents"]
    )
    pairs = batch["target_times"].shape[1] // 2
    real, fake, timesteps = (
      rearrange(x, "b (p f) ... -> (b p) f ...", p=pairs) for x in (real, fake, out["timesteps"])
    )
    return real, fake, adversarial.pair_weights(process, timesteps, cra.weighting, cra.max_timestep)

  def judge(params: Any, pairs: jax.Array) -> jax.Array:
    """(p, n, 2, h, w, c) -> logits (p, n)."""
    # Clips stay the outer part of the batch axis: each device keeps its own.
    flat = rearrange(pairs, "p n f h w c -> (n p) f h w c")
    return rearrange(discriminator.apply(params, flat), "(n p) -> p n", p=len(pairs))

  def weighted_mean(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Over the pairs up to max_timestep; to divide by the weights would undo them in few pairs."""
    return (weights * values).sum() / jnp.maximum((weights > 0).sum(), 1)

  def if_due(step: jax.Array, update: Callable, keep: Callable, *operands: Any) -> Any:
    """`update(*operands)` at every discriminator_every-th step, `keep(*operands)` between."""
    if cra.discriminator_every == 1:
      return update(*operands)
    return jax.lax.cond(step % cra.discriminator_every == 0, update, keep, *operands)

  def gradients(
    train: TrainState, frozen: Any, batch: Batch, key: jax.Array, with_cra: bool
  ) -> dict:
    """Gradients and metrics of one (part of a) batch; the frames are synthesised once."""

    def of_autoencoder(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
      out, latents = synthesised(params, frozen, train.statistics, batch, key)
      metrics = without_cra(out)
      total, pairs = metrics["loss"], None
      if with_cra:
        pairs = real, fake, weights = cra_pairs(frozen, train.statistics, batch, out, latents)
        logits = judge(train.adversary.params, adversarial.generator_pairs(real, fake))
        cra_loss = weighted_mean(weights, adversarial.generator_loss(logits, cra.loss))
        total = total + losses.lambda_cra * cra_loss
        metrics |= {"cra_generator": cra_loss, "cra_weight": weights.mean()}
      return total, (metrics | {"loss": total}, pairs)

    def of_discriminator(params: Any, pairs: Any) -> tuple[jax.Array, Metrics]:
      real, fake, weights = jax.lax.stop_gradient(pairs)
      inputs, labels = adversarial.discriminator_pairs(real, fake)
      logits = judge(params, inputs)
      loss = weighted_mean(weights, adversarial.discriminator_loss(logits, labels, cra.loss))
      right = (logits > 0) == (labels > 0)
      return loss, {"cra_discriminator": loss, "cra_accuracy": right.mean()}

    def watched(params: Any, pairs: Any) -> tuple[Any, Metrics]:
      """No gradient, and the same metrics, for a third of the work."""
      return jax.tree.map(jnp.zeros_like, params), of_discriminator(params, pairs)[1]

    grad, (metrics, pairs) = jax.grad(of_autoencoder, has_aux=True)(train.params)
    if not with_cra:
      return {"params": grad, "metrics": metrics}
    grad_d, metrics_d = if_due(
      train.step, jax.grad(of_discriminator, has_aux=True), watched, train.adversary.params, pairs
    )
    return {"params": grad, "adversary": grad_d, "metrics": metrics | metrics_d}

  def step(
    train: TrainState, frozen: Any, batch: Batch, with_cra: bool
  ) -> tuple[TrainState, Metrics]:
    result = optimizers.accumulate(
      lambda part, key: gradients(train, frozen, part, key, with_cra),
      batch, jax.random.fold_in(train.key, train.step), settings.accumulate,
    )  # fmt: skip
    metrics = result["metrics"] | {"gradient_norm": optax.tree.norm(result["params"])}
    adversary = train.adversary
    if with_cra:
      # Between its steps the discriminator keeps parameters and moments alike.
      adversary = if_due(
        train.step,
        lambda old, grad: old.apply_gradients(grad, optimizer_d),
        lambda old, grad: old,
        adversary,
        result["adversary"],
      )
    new = state.apply_gradients(train, result["params"], optimizer, ema)
    return new.replace(adversary=adversary), metrics

  def measure(frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    raw = channel_statistics(networks.latent_shape[-1])
    return {"latents": latents.draw_latents(networks, frozen, raw, batch, "key", key)}

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    return without_cra(synthesised(train.ema_params, frozen, train.statistics, batch, key)[0])

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    params = frozen | {
      "autoencoder": train.ema_params, "latent_statistics": train.statistics["latents"]
    }  # fmt: skip
    condition = conditions.of_batch(networks, batch)
    drawn = drawing.reconstruct_clips(config, networks, params, batch["frames"], condition, key)
    return {"real": to_float(batch["frames"]), "reconstruction": drawn}

  def without(*args: Any) -> tuple[TrainState, Metrics]:
    return step(*args, with_cra=False)

  def with_cra(*args: Any) -> tuple[TrainState, Metrics]:
    return step(*args, with_cra=True)

  steps = ((0, without),)
  if losses.lambda_cra:
    steps = ((0, with_cra),) if cra.start_step == 0 else ((0, without), (cra.start_step, with_cra))
  return Stage("autoencoder", init, steps, preview, validate, measure if measured else None)


def judged_frames(
  config: ml_collections.ConfigDict,
  networks: Networks,
  frozen: Any,
  statistics: Statistics,
  batch: Batch,
  latents: jax.Array,
  estimates: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """(real, fake) as the discriminator of Eq. 10 sees them, each (b, t, h, w, c).

  Args:
    config: `config.model.discriminator.on` says what is judged, `config.loss.cra.real` what on
      pixels is real: frames, or their reconstructions, which share the KL-VAE's traces with the
      fake ones.
    networks: of the system.
    frozen: networks of earlier stages.
    statistics: of latents.
    batch: 'target_frames' (b, t, h, w, c) uint8 is read where frames are real.
    latents: (b, t, H', W', C') of the targets.
    estimates: (b, t, H', W', C') of them in one step (Eq. 9).
  """
  if config.model.discriminator.on == "latents":
    return latents, estimates

  def decoded(z: jax.Array) -> jax.Array:
    flat = z.reshape(-1, *z.shape[2:])
    frames = decode_frames(networks.kl_vae, frozen["kl_vae"], statistics, flat)
    return frames.reshape(*z.shape[:2], *frames.shape[1:])

  known = config.loss.cra.real == "frames"
  return to_float(batch["target_frames"]) if known else decoded(latents), decoded(estimates)


def generator_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Sec. 3.2: the DiT on standardised posterior samples of the frozen video encoder."""
  settings = config.train.generator
  optimizer = optimizers.of_stage(settings)
  ema = state.Ema(**settings.ema)
  model, channels = networks.generator, networks.feature_shape[-1]

  def init(key: jax.Array) -> TrainState:
    features = jnp.zeros((1, *networks.feature_shape))
    key_init, key = jax.random.split(key)
    inputs = generator.inputs(model, conditions.example(networks))
    params = model.init(key_init, features, jnp.zeros(1), **inputs)
    statistics = {"global_features": channel_statistics(channels)}
    return state.create(key, params, optimizer, statistics)

  def posterior_samples(frozen: Any, batch: Batch, key: jax.Array, draws: int) -> jax.Array:
    """(b * draws, H'', W'', C'') samples of Eq. 1, `draws` of each clip."""
    keys = jax.random.split(key)
    posterior = latents.global_feature(networks, frozen, batch, keys[0])
    repeated = jax.tree.map(lambda x: jnp.repeat(x, draws, axis=0), posterior)
    return repeated.sample(keys[1])

  def loss_of(
    train: TrainState, frozen: Any, batch: Batch, key: jax.Array
  ) -> Callable[[Any], jax.Array]:
    """The loss as a function of the DiT's parameters."""
    keys = jax.random.split(key)
    features = posterior_samples(frozen, batch, keys[0], settings.draws_per_clip)
    scale = train.statistics["global_features"]
    features = partitioning.split_batch((features - scale["mean"]) / scale["std"])
    condition = jnp.repeat(conditions.of_batch(networks, batch), settings.draws_per_clip, axis=0)
    return lambda params: generator.loss(
      model, networks.generator_process, params, features,
      condition, conditions.null(networks, frozen), keys[1],
      drop_condition=config.loss.drop_condition,
    ).mean()  # fmt: skip

  def gradients(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict:
    value, grad = jax.value_and_grad(loss_of(train, frozen, batch, key))(train.params)
    return {"params": grad, "metrics": {"loss": value}}

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    return {"loss": loss_of(train, frozen, batch, key)(train.ema_params)}

  def train_step(train: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
    result = optimizers.accumulate(
      lambda part, key: gradients(train, frozen, part, key),
      batch, jax.random.fold_in(train.key, train.step), settings.accumulate,
    )  # fmt: skip
    metrics = result["metrics"] | {"gradient_norm": optax.tree.norm(result["params"])}
    return state.apply_gradients(train, result["params"], optimizer, ema), metrics

  def measure(frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    return {"global_features": posterior_samples(frozen, batch, key, 1)}

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    params = frozen | {
      "generator": train.ema_params, "feature_statistics": train.statistics["global_features"]
    }  # fmt: skip
    condition = conditions.of_batch(networks, batch)
    return {"generated": drawing.generate_clips(config, networks, params, condition, key)}

  return Stage("generator", init, ((0, train_step),), preview, validate, measure)
