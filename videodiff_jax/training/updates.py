"""Applies an iteration's gradients, for stages that make one optimiser step per iteration."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from videodiff_jax.training import optimizers, state
from videodiff_jax.training.stage import Batch, Metrics
from videodiff_jax.training.state import Ema, TrainState

# (part of a batch, key) -> {"params": gradients, "metrics": scalars}; "adversary" is optional.
Gradients = Callable[[Batch, jax.Array], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Updates:
  """The optimisers of a stage.

  Attributes:
    optimizer: the optimiser of the stage's parameters.
    ema: the parameters' moving average.
    accumulate: number of parts of a batch whose gradients are computed one after another.
    adversary_optimizer: the optimiser of the discriminator, where the stage has one.
  """

  optimizer: optax.GradientTransformation
  ema: Ema
  accumulate: int = 1
  adversary_optimizer: optax.GradientTransformation | None = None

  def step(
    self, train: TrainState, batch: Batch, gradients: Gradients, adversary_every: int = 1
  ) -> tuple[TrainState, Metrics]:
    """Makes one iteration: gradients of the batch, optimiser steps, the average.

    Args:
      train: the state before the iteration.
      batch: arrays with leading axis b.
      gradients: computes a part's gradients, with a key for this step and part only.
      adversary_every: iterations between two steps of the discriminator.

    Returns:
      The state after the iteration, and the metrics with 'gradient_norm' before clipping.
    """
    key = jax.random.fold_in(train.key, train.step)
    result = optimizers.accumulate(gradients, batch, key, self.accumulate)
    metrics = result["metrics"] | {"gradient_norm": optax.tree.norm(result["params"])}
    adversary = train.adversary
    if "adversary" in result:
      # Between its steps the discriminator keeps both its parameters and its moments.
      adversary = when_due(
        train.step,
        adversary_every,
        lambda old, slope: old.apply_gradients(slope, self.adversary_optimizer),
        lambda old, slope: old,
        adversary,
        result["adversary"],
      )
    new = state.apply_gradients(train, result["params"], self.optimizer, self.ema)
    return dataclasses.replace(new, adversary=adversary), metrics


def when_due(step: jax.Array, every: int, update: Callable, keep: Callable, *operands: Any) -> Any:
  """Returns `update(*operands)` at every `every`-th step, `keep(*operands)` at others."""
  if every == 1:
    return update(*operands)
  return jax.lax.cond(step % every == 0, update, keep, *operands)
