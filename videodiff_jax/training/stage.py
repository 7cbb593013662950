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
  """One trainable thing, as pure functions.

  Attributes:
    name: its folder in the workdir.
    init: key -> TrainState.
    train_steps: (first step, function) pairs in order; the loop compiles each when it is reached.
      None at all: what is pretrained is all there is to it.
      Most stages have one; the autoencoder gets a second when its adversarial loss sets in.
      A function takes (state, frozen, batch) and returns (state, metrics), with scalars 'loss'
      and 'gradient_norm' among the metrics.
    preview: (state, frozen, batch, key) -> {name: float video (n, f, h, w, c) in [-1, 1]}.
    validate: (state, frozen, batch, key) -> scalars, 'loss' among them, of `ema_params`: what the
      steps minimise, without adversarial terms, which change with the adversary. None in a stage
      that trains nothing.
    measure: (frozen, batch, key) -> {name: samples (n, ..., c)} whose per-channel mean and std over
      `measured_examples` become state.statistics; None where nothing is measured.
    pretrained: puts weights of elsewhere into a fresh state, whose arrays it uses up; or None.
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
    """The (first step, function) pair in force after `step` steps."""
    return [pair for pair in self.train_steps if pair[0] <= step][-1]
