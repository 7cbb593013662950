"""How an iteration's gradients become new parameters, in stages that take one step each."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from videodiff_jax.training import optimizers, state
from videodiff_jax.training.stage import Batch, Metrics
from videodiff_jax.training.state import Ema, TrainState

# (part of a batch, key) -> {"params", perhaps "adversary": gradients, "metrics": scalars}
Gradients = Callable[[Batch, jax.Array], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Updates:
  """The optimisers of a stage.

  Attributes:
    optimizer: of its parameters.
    ema: their moving average.
    accumulate: parts of a batch whose gradients are computed one after the other.
    adversary_optimizer: of a discriminator's parameters, where the stage has one.
  """

  optimizer: optax.GradientTransformation
  ema: Ema
  accumulate: int = 1
  adversary_optimizer: optax.GradientTransformation | None = None

  def step(
    self, train: TrainState, batch: Batch, gradients: Gradients, adversary_every: int = 1
  ) -> tuple[TrainState, Metrics]:
    """One iteration: gradients of the batch, optimiser steps, the average.

    Args:
      train: the state before it.
      batch: arrays with leading axis b.
      gradients: draws from its key, which is of this step and part alone.
      adversary_every: iterations between two steps of the discriminator.

    Returns:
      The state after it, and the metrics with 'gradient_norm', before clipping.
    """
    key = jax.random.fold_in(train.key, train.step)
    result = optimizers.accumulate(gradients, batch, key, self.accumulate)
    metrics = result["metrics"] | {"gradient_norm": optax.tree.norm(result["params"])}
    adversary = train.adversary
    if "adversary" in result:
      # Between its steps the discriminator keeps parameters and moments alike.
      adversary = when_due(
        train.step,
        adversary_every,
        lambda old, slope: old.apply_gradients(slope, self.adversary_optimizer),
        lambda old, slope: old,
        adversary,
        result["adversary"],
      )
    new = state.apply_gradients(train, result["params"], self.optimizer, self.ema)
    return new.replace(adversary=adversary), metrics


def when_due(step: jax.Array, every: int, update: Callable, keep: Callable, *operands: Any) -> Any:
  """`update(*operands)` at every `every`-th step, `keep(*operands)` between."""
  if every == 1:
    return update(*operands)
  return jax.lax.cond(step % every == 0, update, keep, *operands)
