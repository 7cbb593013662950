"""LGC-VD's one training stage, 'lgcvd', which trains both networks together."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from videodiff_jax.choices import check_choice
from videodiff_jax.lgcvd.conditioning import (
  empty_fragment,
  frames_at,
  local_condition,
  split_frames,
  stack_frames,
  task_positions,
)
from videodiff_jax.lgcvd.networks import Networks, build, make_objective, make_rollout
from videodiff_jax.lgcvd.objective import Objective
from videodiff_jax.models.outputs import output
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import optimizers, state, warm_start
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.state import TrainState

NAMES = ("lgcvd",)

# The preview's one-step estimate is at this fraction of the timesteps: t = 592 of 1000 in Fig. 3.
_PREVIEW_TIME = 0.592


def make_stage(config: ml_collections.ConfigDict, name: str) -> Stage:
  """Builds the stage of a name in `NAMES`."""
  check_choice("stage", name, NAMES)
  return warm_start.with_run(config, lgcvd_stage(config, build(config)))


def frozen_networks(name: str, ema: dict[str, dict[str, Any]]) -> dict[str, Any]:
  """Returns the stage's `frozen` argument: empty, as no stage is trained before it."""
  del name, ema
  return {}


def make_optimizer(
  config: ml_collections.ConfigDict, objective: Objective
) -> optax.GradientTransformation:
  """Builds the stage's optimiser."""
  settings = config.train.lgcvd
  # Its schedule counts optimiser steps, and an iteration may make two of them.
  updates = objective.num_updates
  schedule = dict(settings.optimizer)
  schedule["warmup_steps"] *= updates
  return optimizers.make_optimizer(steps=updates * settings.steps, **schedule)


def trained_elsewhere(
  config: ml_collections.ConfigDict, params: Any, ema_params: Any, step: int
) -> TrainState:
  """Returns a training state from parameters and their average after `step` iterations.

  Published weights come without the optimiser's moments: training continues with new ones.
  """
  optimizer = make_optimizer(config, make_objective(config, build(config)))
  train = state.create(jax.random.key(config.seed), params, optimizer)
  return dataclasses.replace(train, step=jnp.int32(step), ema_params=ema_params)


def lgcvd_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Trains the UNet and the sequence encoder on Eq. 9, in the two stages of Sec. 3.3."""
  objective = make_objective(config, networks)
  optimizer = make_optimizer(config, objective)
  ema = state.Ema(**config.train.lgcvd.ema)

  def init(key: jax.Array) -> TrainState:
    key_init, key = jax.random.split(key)
    fragment = jnp.zeros((1, *networks.fragment_shape))
    condition = jnp.zeros((1, *networks.condition_shape))
    params = networks.model.init(key_init, fragment, jnp.zeros(1), condition, fragment)
    return state.create(key, params, optimizer)

  def train_step(train: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
    del frozen
    return objective.train_step(train, to_float(batch["frames"]), optimizer, ema)

  def validate(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
    del frozen
    return objective.losses(train.ema_params, to_float(batch["frames"]), key)

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Draws the first window from its given frames, in one step and sampled (Fig. 3)."""
    del frozen
    rollout, process = make_rollout(config, networks), networks.process
    window, _ = objective.windows(to_float(batch["frames"]))
    b = len(window)
    of_task = task_positions("prediction", networks.num_frames, networks.slots)
    positions = jnp.broadcast_to(jnp.array(of_task), (b, networks.slots))
    given = frames_at(window, positions)

    x_0 = stack_frames(window)
    key_noise, key_start, key_steps = jax.random.split(key, 3)
    noise = jax.random.normal(key_noise, x_0.shape)
    t = jnp.full(b, int(_PREVIEW_TIME * process.num_timesteps))
    x_t = process.q_sample(x_0, t, noise)
    condition = local_condition(given, positions, networks.num_frames)
    nothing = empty_fragment(x_0.shape)
    prediction = output(networks.model, train.ema_params, x_t, t, condition, nothing)
    one_step = split_frames(process.to_x0(x_t, t, prediction), networks.num_frames)

    start = jax.random.normal(key_start, x_0.shape)
    memory = rollout.start(train.ema_params, x_0.shape)
    sampled, _ = rollout.draw_fragment(
      train.ema_params, memory, given, positions, start, jax.random.split(key_steps, b)
    )
    return {"one step": one_step, "sampled": sampled, "real": window}

  return Stage(NAMES[0], init, ((0, train_step),), preview, validate)
