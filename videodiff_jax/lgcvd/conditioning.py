"""What conditions a fragment: frames with positional masks, tensor U, and the tasks (Sec. 3.2).

A fragment has F frames and is conditioned by k slots. A slot holds one frame and its position in
the fragment. An empty slot has position -1 and a black frame. Frames are float in [-1, 1].
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from videodiff_jax.choices import check_choice

EMPTY = -1  # the position of a slot without a frame
# The release has two values for the paper's tensor U: a missing frame is black, a fragment grey.
EMPTY_FRAME = -1.0
EMPTY_FRAGMENT = 0.0

TASKS = ("prediction", "live_photo", "generation", "interpolation", "infilling", "random")
DRAWN = ("infilling", "random")  # tasks whose positions are random
DRAWS = ("sample", "batch")


def stack_frames(frames: jax.Array) -> jax.Array:
  """Stacks frames (b, f, h, w, c) as channels (b, h, w, f c), the networks' form of a fragment."""
  return rearrange(frames, "b f h w c -> b h w (f c)")


def split_frames(fragment: jax.Array, num_frames: int) -> jax.Array:
  """Splits the channels (b, h, w, f c) into frames (b, f, h, w, c); undoes `stack_frames`."""
  return rearrange(fragment, "b h w (f c) -> b f h w c", f=num_frames)


def empty_fragment(shape: tuple[int, ...]) -> jax.Array:
  """Returns U, the sequence encoder's input where there is no last fragment."""
  return jnp.full(shape, EMPTY_FRAGMENT, jnp.float32)


def local_condition(frames: jax.Array, positions: jax.Array, num_frames: int) -> jax.Array:
  """Returns the local context y m: each slot's frame with its mask as one more channel.

  The mask of position j is (j + 1) / (F + 1) in [0, 1], constant over the pixels. It is then
  scaled to [-1, 1] as the frames are.

  Args:
    frames: (b, k, h, w, c) in [-1, 1]; the content of an empty slot is ignored.
    positions: (b, k) integers in -1..F-1.
    num_frames: F.

  Returns:
    (b, h, w, k (c + 1)).
  """
  at = positions[:, :, None, None, None]
  frames = jnp.where(at == EMPTY, EMPTY_FRAME, frames)
  masks = 2.0 * (at + 1.0) / (num_frames + 1.0) - 1.0
  masks = jnp.broadcast_to(masks, (*frames.shape[:-1], 1))
  return stack_frames(jnp.concatenate([frames, masks], axis=-1))


def frames_at(fragment: jax.Array, positions: jax.Array) -> jax.Array:
  """Takes frames (b, k, h, w, c) from (b, F, h, w, c) at positions (b, k); any frame at -1."""
  index = jnp.maximum(positions, 0)[:, :, None, None, None]
  return jnp.take_along_axis(fragment, index, axis=1)


def put_frames(fragment: jax.Array, frames: jax.Array, positions: jax.Array) -> jax.Array:
  """Puts frames (b, k, h, w, c) at positions (b, k) of a fragment (b, F, h, w, c); -1: nowhere."""
  places = jnp.arange(fragment.shape[1])
  for slot in range(frames.shape[1]):
    here = positions[:, slot, None] == places[None]
    fragment = jnp.where(here[:, :, None, None, None], frames[:, slot, None], fragment)
  return fragment


def given_positions(
  past: int, future: int, num_frames: int, slots: int, gap: int | None = None
) -> tuple[int, ...]:
  """Returns the slots' positions for `past` frames, `gap` unknown frames and `future` frames.

  Args:
    past: number of frames given at the fragment's start.
    future: number of frames given after the gap.
    num_frames: F.
    slots: k; unused slots are empty.
    gap: number of unknown frames between them. None puts the future at the fragment's end.

  Raises:
    ValueError: there are more frames than slots, or than the fragment holds.
  """
  if gap is None:
    gap = num_frames - past - future
  if past + future > slots:
    raise ValueError(
      f"{past} past and {future} future frames do not fit the {slots} slots this model was "
      "trained with: give fewer."
    )
  if gap < 0 or past + gap + future > num_frames:
    raise ValueError(
      f"{past} past, {gap} unknown and {future} future frames do not fit one fragment of "
      f"{num_frames}: the longest gap is {num_frames - past - future}."
    )
  given = (*range(past), *range(past + gap, past + gap + future))
  return given + (EMPTY,) * (slots - len(given))


def task_positions(task: str, num_frames: int, slots: int) -> tuple[int, ...]:
  """Returns the positions (k,) of a task that always gives the same frames.

  'prediction' gives the first k frames, 'live_photo' only the first (p = 1), 'generation' none.
  'interpolation' gives frames at both ends; where k is odd, the past has one frame more.

  Raises:
    ValueError: the task is unknown, or its positions are random.
  """
  given = {
    "prediction": (slots, 0),
    "live_photo": (1, 0),
    "generation": (0, 0),
    "interpolation": (slots - slots // 2, slots // 2),
  }
  check_choice("task with fixed frames", task, given)
  return given_positions(*given[task], num_frames, slots)


class Conditions(NamedTuple):
  """Which frames condition each sample of a batch in both stages of training.

  Attributes:
    first: (b, k) positions in the first window.
    second: (b, k) positions in the second window.
    continues: (b,) bool: whether the second window's frames are the end of the first window's
      estimate; otherwise they are true frames.
  """

  first: jax.Array
  second: jax.Array
  continues: jax.Array


@dataclasses.dataclass(frozen=True)
class TaskMix:
  """The training tasks and how often each is drawn.

  For each window, 'infilling' draws k distinct positions from -1..F-1, so at most one slot is
  empty. 'random', the release's variant, never draws the last frame.

  Attributes:
    shares: task -> probability.
    num_frames: F.
    slots: k.
    per: 'sample' draws a task for each sample, 'batch' (as released) one for the whole batch.
  """

  shares: Mapping[str, float]
  num_frames: int = 8
  slots: int = 2
  per: str = "sample"

  def __post_init__(self) -> None:
    for task in self.shares:
      check_choice("task", task, TASKS)
    if not math.isclose(sum(self.shares.values()), 1.0) or min(self.shares.values()) < 0:
      raise ValueError(f"The tasks' shares must be positive and sum to 1, not {self.shares}.")
    check_choice("drawing", self.per, DRAWS)
    if not 0 < self.slots < self.num_frames:
      raise ValueError(f"{self.slots} slots do not leave frames of {self.num_frames} to draw.")

  def draws(self, positions: Sequence[int]) -> bool:
    """Tells whether some task gives frames at exactly these k positions, slot by slot."""
    positions = tuple(positions)
    for task, share in self.shares.items():
      if not share:
        continue
      if task in DRAWN:
        distinct = len(set(positions)) == len(positions)
        if distinct and not (task == "random" and self.num_frames - 1 in positions):
          return True
      elif positions == task_positions(task, self.num_frames, self.slots):
        return True
    return False

  def draw(self, key: jax.Array, batch_size: int) -> Conditions:
    """Draws a task and its positions for each sample of a batch."""
    key_task, key_first, key_second = jax.random.split(key, 3)
    count = batch_size if self.per == "sample" else 1
    tasks = tuple(self.shares)
    shares = jnp.array(list(self.shares.values()))
    task = jax.random.choice(key_task, len(tasks), (count,), p=shares)

    def positions(key: jax.Array, fixed: list[tuple[int, ...] | None]) -> jax.Array:
      order = jax.random.uniform(key, (count, self.num_frames + 1))  # one column for each position
      released = order.at[:, -1].set(jnp.inf)
      drawn = {"infilling": order, "random": released}
      rows = [
        jnp.argsort(drawn[name])[:, : self.slots] + EMPTY
        if row is None
        else jnp.broadcast_to(jnp.array(row), (count, self.slots))
        for name, row in zip(tasks, fixed)
      ]
      return jnp.stack(rows)[task, jnp.arange(count)]

    def fixed(name: str) -> tuple[int, ...] | None:
      if name in DRAWN:
        return None
      return task_positions(name, self.num_frames, self.slots)

    goes_on = np.array([name in ("prediction", "live_photo") for name in tasks])
    # A live photo begins with one frame; its second window continues from k frames.
    later = ["prediction" if name == "live_photo" else name for name in tasks]
    conditions = Conditions(
      positions(key_first, [fixed(name) for name in tasks]),
      positions(key_second, [fixed(name) for name in later]),
      jnp.asarray(goes_on)[task],
    )
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, *x.shape[1:])), conditions)
