"""AdamW with warm-up and clipping, and gradient accumulation."""

from collections.abc import Callable
from typing import Any

import einops
import jax
import jax.numpy as jnp
import ml_collections
import optax

from videodiff_jax.choices import check_choice
from videodiff_jax.training import partitioning

DECAYS = ("constant", "cosine")


def make_optimizer(
  learning_rate: float,
  *,
  steps: int,
  warmup_steps: int = 0,
  decay: str = "constant",
  weight_decay: float = 0.01,
  clip_norm: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.999,
) -> optax.GradientTransformation:
  """Makes AdamW with weight decay on every parameter, as torch does (the papers' runs).

  Args:
    learning_rate: the peak learning rate.
    steps: the run's steps; a cosine ends there, at a twentieth of the peak.
    warmup_steps: steps of linear warm-up from zero.
    decay: 'constant' or 'cosine'.
    weight_decay: AdamW's weight decay, which the learning rate multiplies.
    clip_norm: the global norm that gradients are clipped to; 0 does not clip.
    b1: decay of the first moment.
    b2: decay of the second moment.

  Raises:
    ValueError: `decay` is unknown.
  """
  check_choice("decay", decay, DECAYS)
  if decay == "cosine":
    schedule = optax.warmup_cosine_decay_schedule(
      0.0, learning_rate, warmup_steps, max(steps, warmup_steps + 1), 0.05 * learning_rate
    )
  else:  # constant
    schedule = optax.linear_schedule(
      learning_rate / max(warmup_steps, 1), learning_rate, warmup_steps
    )
  scatter = optax.stateless(lambda updates, params: partitioning.scatter(updates))
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  return optax.chain(scatter, clip, optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay))


def of_stage(settings: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Makes the optimiser of a stage from its settings, `config.train.NAME`."""
  return make_optimizer(steps=settings.steps, **settings.optimizer)


def of_adversary(
  settings: ml_collections.ConfigDict, first_step: int, every: int = 1
) -> optax.GradientTransformation:
  """Makes the optimiser of a stage's discriminator, with the stage's settings.

  An optimiser counts its own steps. So the discriminator's optimiser warms up when its loss starts,
  and a cosine ends with the stage.

  Args:
    settings: the stage's `config.train.NAME`.
    first_step: the stage's step at which the discriminator starts to learn.
    every: steps of the stage per step of the discriminator.
  """
  own_steps = max(settings.steps - first_step, 0) // every
  return make_optimizer(steps=own_steps, **settings.optimizer)


def accumulate(
  function: Callable[[dict[str, jax.Array], jax.Array], Any],
  batch: dict[str, jax.Array],
  key: jax.Array,
  parts: int,
) -> Any:
  """Averages `function(batch, key)` over `parts` equal parts of the batch, one at a time.

  Memory falls to that of one part, and the sums are split over devices as the state is. Every
  device works on each part, on any mesh. Where losses are means over examples, the result equals
  that of the whole batch, except for random numbers, which each part draws from its own key.

  Args:
    function: returns a tree of float arrays (gradients and metrics), means over its batch.
    batch: arrays with leading axis b, which `parts` divides.
    key: PRNG key, split into one key per part.
    parts: number of parts; 1 calls `function` once on the whole batch.
  """
  if parts == 1:
    return function(batch, key)
  split = jax.tree.map(lambda x: einops.rearrange(x, "(b p) ... -> p b ...", p=parts), batch)
  keys = jax.random.split(key, parts)
  shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split), keys[0])
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def add(total: Any, part: tuple) -> tuple[Any, None]:
    values = partitioning.scatter(function(partitioning.split_batch(part[0]), part[1]))
    return jax.tree.map(lambda t, v: t + v / parts, total, values), None

  return jax.lax.scan(add, zeros, (split, keys))[0]
