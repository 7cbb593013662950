"""The two-stage training of Sec. 3.3 on the loss of Eq. 9, with the ablations of Table 5.

A training sample is two windows that overlap by as many frames as there are slots. The first
stage draws the first window from true frames and the tensor U. Its one-step estimate of x_0
(Eq. 7) stands in for the sampled fragment: the second stage draws the second window from it. What
Table 5 calls '- two-stage' trains the same windows from true frames.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.saturation import hidden_by_clipping
from videodiff_jax.lgcvd.conditioning import (
  TaskMix,
  empty_fragment,
  frames_at,
  local_condition,
  split_frames,
  stack_frames,
  task_positions,
)
from videodiff_jax.lgcvd.model import ContextModel
from videodiff_jax.training import partitioning, state
from videodiff_jax.training.stage import Metrics
from videodiff_jax.training.state import Ema, TrainState

UPDATES = ("two", "one")
SECOND_STAGES = ("paper", "release")
ONE_STAGES = ("both", "halves")


class StageDraws(NamedTuple):
  """What one stage draws: positions (b, k), timesteps (b,) and noise (b, h, w, F c)."""

  positions: jax.Array
  t: jax.Array
  noise: jax.Array


class Draws(NamedTuple):
  """What an iteration draws; `continues` (b,) as in `conditioning.Conditions`."""

  first: StageDraws
  second: StageDraws
  continues: jax.Array


class Inputs(NamedTuple):
  """One stage's task: x_0 (b, h, w, F c) from its condition and the last fragment.

  The last fragment is (b, h, w, F c), or (1, h, w, F c) if it is U for all of them.
  """

  x_0: jax.Array
  condition: jax.Array
  last_fragment: jax.Array
  t: jax.Array
  noise: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective:
  """How LGC-VD is trained.

  Attributes:
    model: both networks; without an encoder it is Table 5's 'sequence encoder' off.
    process: of fragments; its prediction type and norm make the loss.
    mix: the tasks; also says F and k.
    two_stage: off, both windows are drawn from true frames, the second with the true first
      window as its last fragment.
    second_stage: which frames the second window is drawn from. 'paper' (Sec. 3.3): always the
      last k of the first stage's estimate, whatever the first stage's task was. 'release': those
      where the task is prediction; in its other tasks true frames, or none.
    one_stage: with two_stage off, 'both' trains both windows of every sample, with as many
      updates and on as many fragments as the two-stage training; 'halves' one window of each, the
      first of the even samples and the second of the odd ones, counted over the whole run, in one
      update.
    updates: 'two' makes an optimiser step after each window, the second with the weights of the
      first (as released); 'one' takes the mean of both windows' gradients.
    clip_estimate: clips the estimate to [-1, 1], as samples are. The release does not. Needed
      with epsilon, whose estimate at the last timestep is the network's error times 6e4.
    saturate: black may be drawn blacker than black, and white whiter: where an estimate of x_0 lies
      beyond a pixel at the end of the range there is no loss. Samples are clipped, so that what is
      black comes out black without haze. Not in the paper.
  """

  model: ContextModel
  process: Process
  mix: TaskMix
  two_stage: bool = True
  second_stage: str = "paper"
  one_stage: str = "halves"
  updates: str = "two"
  clip_estimate: bool = True
  saturate: bool = False

  def __post_init__(self) -> None:
    for name, choices in (
      ("updates", UPDATES),
      ("second_stage", SECOND_STAGES),
      ("one_stage", ONE_STAGES),
    ):
      if (value := getattr(self, name)) not in choices:
        raise ValueError(f"Unknown {name} {value!r}. Choose one of: {', '.join(choices)}.")

  @property
  def num_updates(self) -> int:
    """Optimiser steps an iteration."""
    return 2 if self._both_windows and self.updates == "two" else 1

  @property
  def _both_windows(self) -> bool:
    """Whether every sample trains both its windows."""
    return self.two_stage or self.one_stage == "both"

  def trains(self, positions: Sequence[int]) -> bool:
    """Whether fragments are ever drawn from frames at these k positions (-1 for none)."""
    if self.mix.draws(positions):
      return True
    goes_on = tuple(positions) == self._prediction
    always = self.second_stage == "paper" or bool(self.mix.shares.get("live_photo"))
    return self._both_windows and always and goes_on

  @property
  def _prediction(self) -> tuple[int, ...]:
    return task_positions("prediction", self.mix.num_frames, self.mix.slots)

  def windows(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(b, at least 2 F - k, h, w, c) -> the first and the second F frames, k of them common."""
    length, shift = self.mix.num_frames, self.mix.num_frames - self.mix.slots
    if frames.shape[1] < shift + length:
      raise ValueError(
        f"Two windows of {length} frames with {self.mix.slots} in common take "
        f"{shift + length} frames; the data gives {frames.shape[1]}."
      )
    return frames[:, :length], frames[:, shift : shift + length]

  def draw(self, key: jax.Array, frames: jax.Array) -> Draws:
    """All that is random in an iteration on frames (b, f, h, w, c)."""
    b, _, h, w, c = frames.shape
    key_mix, *keys = jax.random.split(key, 5)
    conditions = self.mix.draw(key_mix, b)
    if self.second_stage == "paper":
      positions = jnp.broadcast_to(jnp.array(self._prediction), conditions.second.shape)
      goes_on = jnp.ones_like(conditions.continues)
      conditions = conditions._replace(second=positions, continues=goes_on)

    def stage(positions: jax.Array, key_t: jax.Array, key_noise: jax.Array) -> StageDraws:
      t = self.process.draw_timesteps(key_t, (b,))
      noise = jax.random.normal(key_noise, (b, h, w, self.mix.num_frames * c))
      return StageDraws(positions, t, noise)

    first, second = stage(conditions.first, *keys[:2]), stage(conditions.second, *keys[2:])
    return partitioning.split_batch(Draws(first, second, conditions.continues))

  def first_inputs(self, frames: jax.Array, draws: Draws) -> Inputs:
    """The first window, from its own frames and U."""
    window, _ = self.windows(frames)
    x_0 = stack_frames(window)
    given = frames_at(window, draws.first.positions)
    u = empty_fragment((1, *x_0.shape[1:]))  # one for all samples
    return self._inputs(x_0, given, u, draws.first)

  def second_inputs(self, frames: jax.Array, estimate: jax.Array, draws: Draws) -> Inputs:
    """The second window, from the first one's estimate (b, h, w, F c); with one stage, from it."""
    first, window = self.windows(frames)
    if not self.two_stage:
      estimate = stack_frames(first)
    end = split_frames(estimate, self.mix.num_frames)[:, -self.mix.slots :]
    true = frames_at(window, draws.second.positions)
    given = jnp.where(draws.continues[:, None, None, None, None], end, true)
    return self._inputs(stack_frames(window), given, estimate, draws.second)

  def either_inputs(self, frames: jax.Array, draws: Draws, step: jax.Array | int) -> Inputs:
    """A window of each sample from true frames: the second of the odd ones of the run."""
    first, second = self.windows(frames)
    # With an even batch its odd rows; a batch of one trains both windows in turn.
    number = jnp.arange(len(frames)) + step % 2 * len(frames)
    later = (number % 2 == 1)[:, None, None, None]
    window = jnp.where(later[..., None], second, first)
    last = jnp.where(later, stack_frames(first), empty_fragment((1, 1, 1, 1)))
    given = frames_at(window, draws.first.positions)
    return self._inputs(stack_frames(window), given, last, draws.first)

  def _inputs(self, x_0: jax.Array, given: jax.Array, last: jax.Array, draws: StageDraws) -> Inputs:
    condition = local_condition(given, draws.positions, self.mix.num_frames)
    return Inputs(x_0, condition, last, draws.t, draws.noise)

  def loss(self, params: Any, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """Eq. 9, the mean over samples and all frames, and the estimate of x_0 (Eq. 7).

    The estimate (b, h, w, F c) sends no gradient back.
    """
    x_t = self.process.q_sample(inputs.x_0, inputs.t, inputs.noise)
    prediction = self.model.apply(params, x_t, inputs.t, inputs.condition, inputs.last_fragment)
    estimate = jax.lax.stop_gradient(self.process.to_x0(x_t, inputs.t, prediction))
    if self.saturate:
      target = self.process.target(inputs.x_0, inputs.t, inputs.noise)
      prediction = saturated(prediction, target, estimate, inputs.x_0)
    loss = self.process.loss(prediction, inputs.x_0, inputs.t, inputs.noise).mean()
    return loss, jnp.clip(estimate, -1.0, 1.0) if self.clip_estimate else estimate

  def gradients(self, params: Any, inputs: Inputs) -> tuple[Any, jax.Array, jax.Array]:
    """(gradients, loss, estimate) of one stage."""
    graph = jax.value_and_grad(self.loss, has_aux=True)
    (loss, estimate), gradients = graph(partitioning.gather(params), inputs)
    return gradients, loss, estimate

  def iterate(
    self,
    train: TrainState,
    frames: jax.Array,
    draws: Draws,
    optimizer: optax.GradientTransformation,
    ema: Ema,
  ) -> tuple[TrainState, Metrics]:
    """One iteration: both stages, their optimiser steps, the average; `step` counts it once.

    Args:
      train: the state; its params are of `model`.
      frames: (b, f, h, w, c) float in [-1, 1].
      draws: from `draw`.
      optimizer: of `params`.
      ema: of `params`.
    """
    if not self._both_windows:
      inputs = self.either_inputs(frames, draws, train.step)
      gradients, loss, _ = self.gradients(train.params, inputs)
      metrics = {"loss": loss, **_largest_norms(gradients)}
      return state.apply_gradients(train, gradients, optimizer, ema), metrics

    first, loss_1, estimate = self.gradients(train.params, self.first_inputs(frames, draws))
    inputs = self.second_inputs(frames, estimate, draws)
    if self.updates == "two":
      train = state.update_params(train, first, optimizer)
      second, loss_2, _ = self.gradients(train.params, inputs)
      train = state.update_params(train, second, optimizer)
    else:
      second, loss_2, _ = self.gradients(train.params, inputs)
      mean = jax.tree.map(lambda a, b: 0.5 * (a + b), first, second)
      train = state.update_params(train, mean, optimizer)
    metrics = {**_of_both(loss_1, loss_2), **_largest_norms(first, second)}
    return state.count_step(train, ema), metrics

  def losses(self, params: Any, frames: jax.Array, key: jax.Array) -> Metrics:
    """Both windows' losses on frames (b, f, h, w, c), as `draw` has them; nothing is trained."""
    draws = self.draw(key, frames)
    first = self.first_inputs(frames, draws)

    def window(estimate: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
      second = self.second_inputs(frames, estimate, draws)
      inputs = jax.tree.map(lambda a, b: jnp.where(number == 0, a, b), first, second)
      loss, estimate = self.loss(params, inputs)
      return estimate, loss

    # A scan, so that the networks are compiled once.
    return _of_both(*jax.lax.scan(window, jnp.zeros_like(first.x_0), jnp.arange(2))[1])

  def train_step(
    self,
    train: TrainState,
    frames: jax.Array,
    optimizer: optax.GradientTransformation,
    ema: Ema,
  ) -> tuple[TrainState, Metrics]:
    """`iterate` with the draws of this step: fold_in(key, step)."""
    draws = self.draw(jax.random.fold_in(train.key, train.step), frames)
    return self.iterate(train, frames, draws, optimizer, ema)


def _of_both(first: jax.Array, second: jax.Array) -> Metrics:
  return {"loss": 0.5 * (first + second), "loss_first": first, "loss_second": second}


def saturated(
  prediction: jax.Array, target: jax.Array, estimate: jax.Array, x_0: jax.Array
) -> jax.Array:
  """The prediction, made right where its estimate lies beyond an end at which x_0 is.

  All are shaped alike. See `Objective.saturate`.
  """
  return jnp.where(hidden_by_clipping(estimate, x_0), target, prediction)


def _largest_norms(*gradients: Any) -> Metrics:
  """Over stages: the norm of all gradients and of each network's; whether it learns shows there."""

  def largest(trees: Sequence[Any]) -> jax.Array:
    return jnp.stack([optax.tree.norm(tree) for tree in trees]).max()

  networks = gradients[0]["params"]
  each = {f"gradient_norm_{n}": largest([of["params"][n] for of in gradients]) for n in networks}
  return {"gradient_norm": largest(gradients), **each}
