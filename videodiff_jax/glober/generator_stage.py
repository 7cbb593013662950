"""The generator stage: the DiT on standardised posterior samples of global features (Sec. 3.2)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from videodiff_jax.diffusion.guidance import drop
from videodiff_jax.glober import generator
from videodiff_jax.glober.autoencoder import standardise
from videodiff_jax.glober.drawing import make_drawing
from videodiff_jax.glober.latents import channel_statistics, global_feature
from videodiff_jax.glober.networks import Networks
from videodiff_jax.training import optimizers, partitioning, state
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.updates import Updates


@dataclasses.dataclass(frozen=True)
class GeneratorObjective:
  """The DiT's objective: Eq. 7 with global features instead of frame latents.

  Attributes:
    networks: the system's networks; KL-VAE and auto-encoder are frozen.
    drop_condition: probability of the null condition.
    draws_per_clip: number of posterior samples of each clip in a batch.
  """

  networks: Networks
  drop_condition: float = 0.0
  draws_per_clip: int = 1

  def posterior_samples(self, frozen: Any, batch: Batch, key: jax.Array, draws: int) -> jax.Array:
    """Draws samples of Eq. 1, (b * draws, H'', W'', C''), `draws` of each clip in succession."""
    keys = jax.random.split(key)
    posterior = global_feature(self.networks, frozen, batch, keys[0])
    repeated = jax.tree.map(lambda x: jnp.repeat(x, draws, axis=0), posterior)
    return repeated.sample(keys[1])

  def loss(
    self, params: Any, features: jax.Array, values: jax.Array, null: jax.Array, key: jax.Array
  ) -> jax.Array:
    """Computes the loss of Eq. 7 for each global feature, (b,).

    Args:
      params: the DiT's parameters.
      features: (b, H'', W'', C'') standardised global features.
      values: (b, ...) values of the condition, see conditions.py.
      null: the value that dropout replaces them with.
      key: PRNG key of timesteps, noise and dropout.
    """
    process = self.networks.generator_process
    keys = jax.random.split(key, 3)
    values = drop(keys[0], values, null, self.drop_condition)
    t = process.draw_timesteps(keys[1], values.shape[:1])
    noise = jax.random.normal(keys[2], features.shape)
    t, noise = partitioning.split_batch((t, noise))
    v_t = process.q_sample(features, t, noise)
    prediction = generator.denoise(self.networks, params, v_t, t, values)
    return process.loss(prediction, features, t, noise)

  def inputs(
    self, train: TrainState, frozen: Any, batch: Batch, key: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the arguments of `loss` after the parameters, for a step with this key."""
    keys = jax.random.split(key)
    features = self.posterior_samples(frozen, batch, keys[0], self.draws_per_clip)
    features = standardise(features, train.statistics["global_features"])
    features = partitioning.split_batch(features)
    condition = self.networks.condition
    values = jnp.repeat(condition.of_batch(batch), self.draws_per_clip, axis=0)
    return features, values, condition.null(frozen), keys[1]

  def gradients(
    self, train: TrainState, frozen: Any, batch: Batch, key: jax.Array
  ) -> dict[str, Any]:
    """Computes gradients and metrics of (a part of) a batch."""
    given = self.inputs(train, frozen, batch, key)
    graph = jax.value_and_grad(lambda params: self.loss(params, *given).mean())
    value, slope = graph(train.params)
    return {"params": slope, "metrics": {"loss": value}}

  def train_step(
    self, train: TrainState, frozen: Any, batch: Batch, updates: Updates
  ) -> tuple[TrainState, Metrics]:
    """Makes one iteration."""
    return updates.step(train, batch, lambda part, key: self.gradients(train, frozen, part, key))


def generator_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Builds the stage that trains the DiT on a frozen KL-VAE and auto-encoder (Sec. 3.2)."""
  settings = config.train.generator
  objective = GeneratorObjective(networks, config.loss.drop_condition, settings.draws_per_clip)
  updates = Updates(optimizers.of_stage(settings), state.Ema(**settings.ema), settings.accumulate)

  def init(key: jax.Array) -> TrainState:
    features = jnp.zeros((1, *networks.feature_shape))
    key_init, key = jax.random.split(key)
    model, condition = networks.generator, networks.condition
    inputs = condition.generator_inputs(condition.example(), model.context_dim)
    params = model.init(key_init, features, jnp.zeros(1), **inputs)
    statistics = {"global_features": channel_statistics(networks.feature_shape[-1])}
    return state.create(key, params, updates.optimizer, statistics)

  def train_step(train: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
    return objective.train_step(train, frozen, batch, updates)

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    given = objective.inputs(train, frozen, batch, key)
    return {"loss": objective.loss(train.ema_params, *given).mean()}

  def measure(frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    return {"global_features": objective.posterior_samples(frozen, batch, key, 1)}

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    params = frozen | {
      "generator": train.ema_params,
      "feature_statistics": train.statistics["global_features"],
    }
    values = networks.condition.of_batch(batch)
    return {"generated": make_drawing(config, networks).generate(params, values, key)}

  return Stage("generator", init, ((0, train_step),), preview, validate, measure)
