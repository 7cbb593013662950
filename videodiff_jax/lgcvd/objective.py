"""The two-stage training of Sec. 3.3 on the loss of Eq. 9, with the ablations of Table 5.

A training sample is two windows that overlap by k frames, the number of slots. The first stage
denoises the first window, conditioned by true frames and the tensor U. Its one-step estimate of
x_0 (Eq. 7) stands for the sampled fragment: it conditions the second window in the second stage.
Table 5's '- two-stage' trains the same windows conditioned by true frames.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from videodiff_jax.choices import check_choice
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.saturation import saturated
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
from videodiff_jax.models.outputs import output
from videodiff_jax.training import partitioning, state
from videodiff_jax.training.stage import Metrics
from videodiff_jax.training.state import Ema, TrainState

UPDATES = ("two", "one")
SECOND_STAGES = ("paper", "release")
ONE_STAGES = ("both", "halves")


class StageDraws(NamedTuple):
  """The random values of one stage: positions (b, k), timesteps (b,), noise (b, h, w, F c)."""

  positions: jax.Array
  t: jax.Array
  noise: jax.Array


class Draws(NamedTuple):
  """The random values of one iteration; `continues` (b,) as in `conditioning.Conditions`."""

  first: StageDraws
  second: StageDraws
  continues: jax.Array


class Inputs(NamedTuple):
  """The inputs of one stage: x_0 (b, h, w, F c), its condition and the last fragment.

  The last fragment is (b, h, w, F c), or (1, h, w, F c) where it is U for every sample.
  """

  x_0: jax.Array
  condition: jax.Array
  last_fragment: jax.Array
  t: jax.Array
  noise: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective:
  """LGC-VD's training objective (Eq. 9) and its settings.

  Attributes:
    model: both networks; without an encoder it is Table 5's 'sequence encoder' off.
    process: the diffusion process of fragments; its prediction type and norm define the loss.
    mix: the tasks, with F and k.
    two_stage: if False, true frames condition both windows, and the true first window is the
      second one's last fragment.
    second_stage: which frames condition the second window. 'paper' (Sec. 3.3): the last k of the
      first stage's estimate, whatever the first stage's task was. 'release': the same where the
      task is prediction; in the other tasks true frames, or none.
    one_stage: used where two_stage is False. 'both' trains both windows of every sample, with as
      many updates and fragments as two-stage training. 'halves' trains one window of each sample
      in one update: the first window of even samples and the second of odd ones, counted over the
      whole run.
    updates: 'two' makes an optimiser step after each window, so that the second window sees the
      updated weights (as released); 'one' averages both windows' gradients.
    clip_estimate: clips the estimate to [-1, 1], as samples are. The release does not clip. It is
      needed with epsilon prediction, whose estimate at the last timestep is the network's error
      times 6e4.
    saturate: if True, predictions beyond [-1, 1] are not penalised at saturated pixels, since
      samples are clipped anyway. This avoids haze on black. Not in the paper.
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
    check_choice("updates", self.updates, UPDATES)
    check_choice("second_stage", self.second_stage, SECOND_STAGES)
    check_choice("one_stage", self.one_stage, ONE_STAGES)

  @property
  def num_updates(self) -> int:
    """Optimiser steps per iteration, 1 or 2."""
    return 2 if self._both_windows and self.updates == "two" else 1

  @property
  def _both_windows(self) -> bool:
    """Whether every sample trains both of its windows."""
    return self.two_stage or self.one_stage == "both"

  def trains(self, positions: Sequence[int]) -> bool:
    """Tells whether training ever gives frames at these k positions (-1: an empty slot)."""
    if self.mix.draws(positions):
      return True
    goes_on = tuple(positions) == self._prediction
    always = self.second_stage == "paper" or bool(self.mix.shares.get("live_photo"))
    return self._both_windows and always and goes_on

  @property
  def _prediction(self) -> tuple[int, ...]:
    return task_positions("prediction", self.mix.num_frames, self.mix.slots)

  def windows(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cuts frames (b, f, h, w, c), f >= 2 F - k, into two windows of F frames that share k."""
    length, shift = self.mix.num_frames, self.mix.num_frames - self.mix.slots
    if frames.shape[1] < shift + length:
      raise ValueError(
        f"Two windows of {length} frames that share {self.mix.slots} need {shift + length} "
        f"frames; the data gives {frames.shape[1]}."
      )
    return frames[:, :length], frames[:, shift : shift + length]

  def draw(self, key: jax.Array, frames: jax.Array) -> Draws:
    """Draws everything that is random in an iteration on frames (b, f, h, w, c)."""
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
    """Returns the first window's inputs, conditioned by its own frames and U."""
    window, _ = self.windows(frames)
    x_0 = stack_frames(window)
    given = frames_at(window, draws.first.positions)
    u = empty_fragment((1, *x_0.shape[1:]))  # shared by all samples
    return self._inputs(x_0, given, u, draws.first)

  def second_inputs(self, frames: jax.Array, estimate: jax.Array, draws: Draws) -> Inputs:
    """Returns the second window's inputs, conditioned by the first's estimate (b, h, w, F c).

    Without `two_stage` the true first window takes the estimate's place.
    """
    first, window = self.windows(frames)
    if not self.two_stage:
      estimate = stack_frames(first)
    end = split_frames(estimate, self.mix.num_frames)[:, -self.mix.slots :]
    true = frames_at(window, draws.second.positions)
    given = jnp.where(draws.continues[:, None, None, None, None], end, true)
    return self._inputs(stack_frames(window), given, estimate, draws.second)

  def either_inputs(self, frames: jax.Array, draws: Draws, step: jax.Array | int) -> Inputs:
    """Returns one window of each sample from true frames: odd samples of the run the second."""
    first, second = self.windows(frames)
    # In an even batch these are the odd rows; a batch of one alternates between the windows.
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
    """Returns the loss (Eq. 9), a mean over samples and frames, and the estimate of x_0 (Eq. 7).

    No gradient flows through the estimate (b, h, w, F c).
    """
    x_t = self.process.q_sample(inputs.x_0, inputs.t, inputs.noise)
    prediction = output(self.model, params, x_t, inputs.t, inputs.condition, inputs.last_fragment)
    estimate = jax.lax.stop_gradient(self.process.to_x0(x_t, inputs.t, prediction))
    if self.saturate:
      target = self.process.target(inputs.x_0, inputs.t, inputs.noise)
      prediction = saturated(prediction, target, estimate, inputs.x_0)
    loss = self.process.loss(prediction, inputs.x_0, inputs.t, inputs.noise).mean()
    return loss, jnp.clip(estimate, -1.0, 1.0) if self.clip_estimate else estimate

  def gradients(self, params: Any, inputs: Inputs) -> tuple[Any, jax.Array, jax.Array]:
    """Returns (gradients, loss, estimate) of one stage."""
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
    """Runs one iteration: both stages, their optimiser steps and the average.

    Args:
      train: the state, with parameters of `model`; its `step` rises by one.
      frames: (b, f, h, w, c) float in [-1, 1], f >= 2 F - k.
      draws: the random values, from `draw`.
      optimizer: updates the parameters.
      ema: updates their moving average.

    Returns:
      The new state, and the metrics: losses and gradient norms.
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
    """Returns both windows' losses on frames (b, f, h, w, c) with draws from `key`."""
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
    """Runs `iterate` with draws from this step's key, fold_in(key, step)."""
    draws = self.draw(jax.random.fold_in(train.key, train.step), frames)
    return self.iterate(train, frames, draws, optimizer, ema)


def _of_both(first: jax.Array, second: jax.Array) -> Metrics:
  return {"loss": 0.5 * (first + second), "loss_first": first, "loss_second": second}


def _largest_norms(*gradients: Any) -> Metrics:
  """Returns the largest norm over stages of all gradients and of each network's gradients.

  A network that does not learn shows in its own norm.
  """

  def largest(trees: Sequence[Any]) -> jax.Array:
    return jnp.stack([optax.tree.norm(tree) for tree in trees]).max()

  networks = gradients[0]["params"]
  each = {
    f"gradient_norm_{name}": largest([stage["params"][name] for stage in gradients])
    for name in networks
  }
  return {"gradient_norm": largest(gradients), **each}
