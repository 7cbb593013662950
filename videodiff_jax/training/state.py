"""TrainState: everything a stage trains, in one pytree."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class Adversary:
  """A discriminator's parameters and its own optimiser state."""

  params: Any
  opt_state: Any

  def apply_gradients(self, gradients: Any, optimizer: optax.GradientTransformation) -> "Adversary":
    """Makes one optimiser step."""
    updates, opt_state = optimizer.update(gradients, self.opt_state, self.params)
    return Adversary(optax.apply_updates(self.params, updates), opt_state)


@flax.struct.dataclass
class TrainState:
  """The state of one stage's training, as a checkpoint holds it.

  Attributes:
    step: number of iterations done, int32.
    params: trained parameters, float32.
    ema_params: moving average of `params`, which samples, scores and later stages use.
    opt_state: the optimiser's state for `params`.
    key: the stage's PRNG key; step n draws from fold_in(key, n).
    statistics: per-channel mean and std measured once at the stage's start; {} where none are.
    adversary: the discriminator of an adversarial loss, or None.
  """

  step: jax.Array
  params: Any
  ema_params: Any
  opt_state: Any
  key: jax.Array
  statistics: dict[str, Any]
  adversary: Adversary | None = None

  @property
  def adversary_params(self) -> Any:
    """The discriminator's parameters, in a stage that has one."""
    assert self.adversary is not None
    return self.adversary.params


@dataclasses.dataclass(frozen=True)
class Ema:
  """Exponential moving average of the parameters.

  Attributes:
    decay: weight of the old average at each update.
    interval: steps between updates.
    copy_until: up to this step the average is a copy of the parameters.
    warmup: if True, update n weights the old average by at most (1 + n) / (10 + n), so that the
      initial parameters are forgotten after a few updates, even with a long average.
  """

  decay: float = 0.999
  interval: int = 1
  copy_until: int = 0
  warmup: bool = False

  def update(self, average: Any, params: Any, step: jax.Array) -> Any:
    """Returns the average after `step` steps."""
    weight: jax.Array | float = 1.0 - self.decay
    if self.warmup:
      weight = jnp.maximum(weight, 9.0 / (10.0 + step // self.interval))  # 1 - (1 + n) / (10 + n)
    weight = jnp.where(step <= self.copy_until, 1.0, weight)
    weight = jnp.where(step % self.interval == 0, weight, 0.0)
    return jax.tree.map(lambda a, p: a + weight * (p - a), average, params)


def create(
  key: jax.Array,
  params: Any,
  optimizer: optax.GradientTransformation,
  statistics: dict[str, Any] | None = None,
  adversary: Adversary | None = None,
) -> TrainState:
  """Creates a state at step 0 whose average is a copy of the parameters."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(params),
    key=key,
    statistics=statistics or {},
    adversary=adversary,
  )


def update_params(
  state: TrainState, gradients: Any, optimizer: optax.GradientTransformation
) -> TrainState:
  """Makes one optimiser step on `params`, without counting the step or updating the average."""
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  return dataclasses.replace(
    state, params=optax.apply_updates(state.params, updates), opt_state=opt_state
  )


def count_step(state: TrainState, ema: Ema) -> TrainState:
  """Counts an iteration whose optimiser steps are done, and updates the average."""
  step = state.step + 1
  return dataclasses.replace(
    state, step=step, ema_params=ema.update(state.ema_params, state.params, step)
  )


def apply_gradients(
  state: TrainState, gradients: Any, optimizer: optax.GradientTransformation, ema: Ema
) -> TrainState:
  """Makes an iteration of one optimiser step: updates, counts and averages."""
  return count_step(update_params(state, gradients, optimizer), ema)
