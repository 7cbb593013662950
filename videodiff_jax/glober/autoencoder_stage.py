"""The autoencoder stage: the loss of Eq. 8, and the discriminator's loss (Sec. 3.1)."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from einops import rearrange

from videodiff_jax.diffusion.guidance import drop
from videodiff_jax.glober.adversarial import CRA, Pairs
from videodiff_jax.glober.autoencoder import Statistics, decode_frames
from videodiff_jax.glober.drawing import make_drawing
from videodiff_jax.glober.latents import channel_statistics, draw_latents
from videodiff_jax.glober.networks import Networks
from videodiff_jax.models.outputs import output
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import optimizers, partitioning, state
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.state import Adversary, TrainState
from videodiff_jax.training.updates import Updates, when_due


class Synthesis(NamedTuple):
  """Target frames synthesised in one step.

  Attributes:
    reconstruction: L_rec (Eq. 7), a mean over frames.
    kl: L_kl (Eq. 2), summed over (h, w, c), a mean over clips.
    latents: (b, f, H', W', C') standardised latents of the targets.
    estimates: (b, f, H', W', C') their one-step estimates (Eq. 9).
    timesteps: (b, f) the timesteps of the estimates.
  """

  reconstruction: jax.Array
  kl: jax.Array
  latents: jax.Array
  estimates: jax.Array
  timesteps: jax.Array


@dataclasses.dataclass(frozen=True)
class AutoencoderObjective:
  """The video auto-encoder's objective: L_rec + lambda_1 L_kl + lambda_2 L_cra^G (Eq. 8).

  Attributes:
    networks: the system's networks; the KL-VAE is frozen.
    lambda_kl: lambda_1.
    drop_video: probability of zero keyframe latents, whose encoding is the null video.
    drop_condition: probability of the null condition, independent of `drop_video`.
    cra: the CRA loss with lambda_2, or None.
  """

  networks: Networks
  lambda_kl: float
  drop_video: float = 0.0
  drop_condition: float = 0.0
  cra: CRA | None = None

  def synthesise(
    self, params: Any, frozen: Any, statistics: Statistics, batch: Batch, key: jax.Array
  ) -> Synthesis:
    """Encodes clips, and estimates their target frames from noisy ones (Eq. 2, 7 and 9).

    Args:
      params: the auto-encoder's parameters.
      frozen: 'kl_vae' and, where text is encoded, 'null_text'.
      statistics: the latents' channel statistics.
      batch: 'key_frames' and 'target_frames' (b, n, h, w, c) uint8, or their moments (latents.py);
        'target_times' (b, f) tau; the entries that the condition reads.
      key: PRNG key of latents, timesteps, noise, the posterior sample and dropout.
    """
    # Latents and condition of the batch.
    networks, model = self.networks, self.networks.autoencoder
    draws = jax.random.split(key, 3)
    key_latents = draw_latents(networks, frozen, statistics, batch, "key", draws[0])
    latents = draw_latents(networks, frozen, statistics, batch, "target", draws[1])
    values = networks.condition.of_batch(batch)
    null = networks.condition.null(frozen)

    # The global feature, with videos and conditions dropped for guidance.
    b, f = batch["target_times"].shape
    keys = jax.random.split(draws[2], 5)
    key_latents = drop(keys[0], key_latents, jnp.zeros(()), self.drop_video)
    values = drop(keys[1], values, null, self.drop_condition)
    posterior = output(model, params, key_latents, method="encode")
    v = posterior.sample(keys[2])

    def per_frame(x: jax.Array) -> jax.Array:
      return jnp.repeat(x, f, axis=0)

    # One denoising step for every target frame.
    process = networks.decoder_process
    z_0 = rearrange(latents, "b f h w c -> (b f) h w c")
    t = process.draw_timesteps(keys[3], (b * f,))
    noise = jax.random.normal(keys[4], z_0.shape)
    t, noise = partitioning.split_batch((t, noise))
    z_t = process.q_sample(z_0, t, noise)
    given = per_frame(v), batch["target_times"].reshape(-1), per_frame(values)
    given = output(model, params, *given, method="frame_conditions")
    prediction = output(model, params, z_t, t, given, method="denoise")
    estimates = process.to_x0(z_t, t, prediction)
    return Synthesis(
      reconstruction=process.loss(prediction, z_0, t, noise).mean(),
      kl=posterior.kl().mean(),
      latents=latents,
      estimates=rearrange(estimates, "(b f) h w c -> b f h w c", b=b),
      timesteps=t.reshape(b, f),
    )

  def without_cra(self, made: Synthesis) -> Metrics:
    """Returns the terms of Eq. 8 without CRA, and their sum as 'loss'."""
    total = made.reconstruction + self.lambda_kl * made.kl
    return {"reconstruction": made.reconstruction, "kl": made.kl, "loss": total}

  @property
  def _cra(self) -> CRA:
    assert self.cra is not None  # nothing is judged without
    return self.cra

  def judged_frames(
    self, frozen: Any, statistics: Statistics, batch: Batch, made: Synthesis
  ) -> tuple[jax.Array, jax.Array]:
    """Returns (real, fake), each (b, f, h, w, c), as the discriminator of Eq. 10 sees them.

    The batch's 'target_frames' are needed where frames themselves count as real.
    """
    if self._cra.on == "latents":
      return made.latents, made.estimates

    def decoded(z: jax.Array) -> jax.Array:
      flat = z.reshape(-1, *z.shape[2:])
      frames = decode_frames(self.networks.kl_vae, frozen["kl_vae"], statistics, flat)
      return frames.reshape(*z.shape[:2], *frames.shape[1:])

    known = self._cra.real == "frames"
    real = to_float(batch["target_frames"]) if known else decoded(made.latents)
    return real, decoded(made.estimates)

  def pairs(self, frozen: Any, statistics: Statistics, batch: Batch, made: Synthesis) -> Pairs:
    """Returns the discriminator's pairs of neighbouring targets, real and synthesised."""
    real, fake = self.judged_frames(frozen, statistics, batch, made)
    return self._cra.pairs(real, fake, made.timesteps)

  def loss(
    self, params: Any, train: TrainState, frozen: Any, batch: Batch, key: jax.Array, with_cra: bool
  ) -> tuple[jax.Array, tuple[Metrics, Pairs | None]]:
    """Returns the loss of Eq. 8, its metrics, and the pairs for the discriminator.

    Args:
      params: the auto-encoder's parameters, used instead of the state's.
      train: the state, whose statistics and discriminator are read.
      frozen: as in `synthesise`.
      batch: as in `synthesise`.
      key: as in `synthesise`.
      with_cra: whether to include L_cra^G.
    """
    statistics = train.statistics["latents"]
    made = self.synthesise(params, frozen, statistics, batch, key)
    metrics = self.without_cra(made)
    if not with_cra:
      return metrics["loss"], (metrics, None)
    pairs = self.pairs(frozen, statistics, batch, made)
    cra_loss, cra_metrics = self._cra.generator_loss(train.adversary_params, pairs)
    total = metrics["loss"] + self._cra.weight * cra_loss
    return total, (metrics | cra_metrics | {"loss": total}, pairs)

  def gradients(
    self, train: TrainState, frozen: Any, batch: Batch, key: jax.Array, *, with_cra: bool
  ) -> dict[str, Any]:
    """Computes gradients and metrics of (a part of) a batch; frames are synthesised only once."""
    graph = jax.grad(self.loss, has_aux=True)
    slope, (metrics, pairs) = graph(train.params, train, frozen, batch, key, with_cra)
    if not with_cra:
      return {"params": slope, "metrics": metrics}

    def watched(params: Any, pairs: Pairs) -> tuple[Any, Metrics]:
      """Returns zero gradients and the same metrics, for a third of the work."""
      metrics = self._cra.discriminator_loss(params, pairs)[1]
      return jax.tree.map(jnp.zeros_like, params), metrics

    learned = jax.grad(self._cra.discriminator_loss, has_aux=True)
    every = self._cra.discriminator_every
    slope_d, metrics_d = when_due(
      train.step, every, learned, watched, train.adversary_params, pairs
    )
    return {"params": slope, "adversary": slope_d, "metrics": metrics | metrics_d}

  def train_step(
    self, train: TrainState, frozen: Any, batch: Batch, updates: Updates, *, with_cra: bool
  ) -> tuple[TrainState, Metrics]:
    """Makes one iteration of the auto-encoder and, with CRA, of the discriminator."""

    def gradients(part: Batch, key: jax.Array) -> dict[str, Any]:
      return self.gradients(train, frozen, part, key, with_cra=with_cra)

    every = self._cra.discriminator_every if with_cra else 1
    return updates.step(train, batch, gradients, every)


def make_objective(config: ml_collections.ConfigDict, networks: Networks) -> AutoencoderObjective:
  """Builds the objective of a configuration."""
  loss = config.loss
  cra = None
  if loss.lambda_cra:
    cra = CRA(
      networks.discriminator,
      networks.decoder_process,
      weight=loss.lambda_cra,
      loss=loss.cra.loss,
      weighting=loss.cra.weighting,
      max_timestep=loss.cra.max_timestep,
      on=config.model.discriminator.on,
      real=loss.cra.real,
      discriminator_every=loss.cra.discriminator_every,
    )
  return AutoencoderObjective(networks, loss.lambda_kl, loss.drop_video, loss.drop_condition, cra)


def autoencoder_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Builds the stage that trains Eq. 8; its CRA loss starts at `config.loss.cra.start_step`."""
  settings, cra = config.train.autoencoder, config.loss.cra
  objective = make_objective(config, networks)
  updates = Updates(
    optimizers.of_stage(settings),
    state.Ema(**settings.ema),
    settings.accumulate,
    optimizers.of_adversary(settings, cra.start_step, cra.discriminator_every),
  )
  measured = not config.model.latent_scale

  def init(key: jax.Array) -> TrainState:
    keys = jax.random.split(key, 3)
    latents = jnp.zeros((1, config.data.num_keyframes, *networks.latent_shape))
    example = networks.condition.example()
    params = networks.autoencoder.init(keys[0], latents, jnp.zeros(1), example)
    adversary = None
    if objective.cra is not None and updates.adversary_optimizer is not None:
      judge = objective.cra.discriminator
      pair = jnp.zeros((1, 2, judge.image_size, judge.image_size, judge.in_channels))
      fresh = judge.init(keys[1], pair)
      adversary = Adversary(fresh, updates.adversary_optimizer.init(fresh))
    std = 1.0 if measured else 1.0 / config.model.latent_scale
    statistics = {"latents": channel_statistics(networks.latent_shape[-1], std)}
    return state.create(keys[2], params, updates.optimizer, statistics, adversary)

  def train_step(
    train: TrainState, frozen: Any, batch: Batch, with_cra: bool
  ) -> tuple[TrainState, Metrics]:
    return objective.train_step(train, frozen, batch, updates, with_cra=with_cra)

  def measure(frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    raw = channel_statistics(networks.latent_shape[-1])
    return {"latents": draw_latents(networks, frozen, raw, batch, "key", key)}

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    given = train.ema_params, frozen, train.statistics["latents"], batch, key
    return objective.without_cra(objective.synthesise(*given))

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    params = frozen | {
      "autoencoder": train.ema_params,
      "latent_statistics": train.statistics["latents"],
    }
    values = networks.condition.of_batch(batch)
    drawn = make_drawing(config, networks).reconstruct(params, batch["frames"], values, key)
    return {"real": to_float(batch["frames"]), "reconstruction": drawn}

  plain = functools.partial(train_step, with_cra=False)
  judged = functools.partial(train_step, with_cra=True)
  steps = ((0, plain),)
  if objective.cra:
    steps = ((0, judged),) if cra.start_step == 0 else ((0, plain), (cra.start_step, judged))
  return Stage("autoencoder", init, steps, preview, validate, measure if measured else None)
