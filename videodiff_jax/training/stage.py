"""The contract between a system and the training loop."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from videodiff_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training, as pure functions.

  Attributes:
    name: the stage's name, and its folder in the workdir.
    init: key -> TrainState.
    train_steps: (first step, function) pairs in order; the loop compiles each when it is reached.
      Most stages have one pair. The autoencoder has a second, for when its adversarial loss starts.
      A stage with no pair trains nothing: it consists of its pretrained weights.
      A function takes (state, frozen, batch) and returns (state, metrics), with the scalars 'loss'
      and 'gradient_norm' among the metrics.
    preview: (state, frozen, batch, key) -> {name: float video (n, f, h, w, c) in [-1, 1]}.
    validate: (state, frozen, batch, key) -> scalars of `ema_params`, among them 'loss': what the
      steps minimise without adversarial terms, which change with the adversary. None in a stage
      that trains nothing.
    measure: (frozen, batch, key) -> {name: samples (n, ..., c)}, whose per-channel mean and std
      become state.statistics; None where nothing is measured.
    measured_examples: number of examples that `measure` is averaged over.
    pretrained: puts external weights into a new state, whose arrays it consumes; or None.
  """

  name: str
  init: Callable[[jax.Array], TrainState]
  train_steps: tuple[tuple[int, TrainStep], ...]
  preview: Callable[[TrainState, Any, Batch, jax.Array], dict[str, jax.Array]]
  validate: Callable[[TrainState, Any, Batch, jax.Array], Metrics] | None = None
  measure: Callable[[Any, Batch, jax.Array], dict[str, jax.Array]] | None = None
  measured_examples: int = 1024
  pretrained: Callable[[TrainState], TrainState] | None = None

  def step_from(self, step: int) -> tuple[int, TrainStep]:
    """Returns the (first step, function) pair to use after `step` steps."""
    return [pair for pair in self.train_steps if pair[0] <= step][-1]
