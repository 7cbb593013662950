"""What guides a fragment: frames with positional masks, tensor U, and the tasks (Sec. 3.2).

A fragment has F frames and is conditioned by k slots. A slot holds one frame and its position in
the fragment, or nothing: position -1, a black frame. Frames are float in [-1, 1].
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

EMPTY = -1  # the position of a slot without a frame
# The paper's tensor U is two in the release: a missing frame is black, a missing fragment grey.
EMPTY_FRAME = -1.0
EMPTY_FRAGMENT = 0.0

TASKS = ("prediction", "live_photo", "generation", "interpolation", "infilling", "random")
DRAWN = ("infilling", "random")  # tasks whose positions are drawn
DRAWS = ("sample", "batch")


def stack_frames(frames: jax.Array) -> jax.Array:
  """(b, f, h, w, c) -> (b, h, w, f c), frame by frame: how the networks see a fragment."""
  return rearrange(frames, "b f h w c -> b h w (f c)")


def split_frames(fragment: jax.Array, num_frames: int) -> jax.Array:
  """(b, h, w, f c) -> (b, f, h, w, c)."""
  return rearrange(fragment, "b h w (f c) -> b f h w c", f=num_frames)


def empty_fragment(shape: tuple[int, ...]) -> jax.Array:
  """The sequence encoder's input where there is no last fragment: U."""
  return jnp.full(shape, EMPTY_FRAGMENT, jnp.float32)


def local_condition(frames: jax.Array, positions: jax.Array, num_frames: int) -> jax.Array:
  """The local context y m: each slot's frame and, as one more channel, its mask.

  The mask of position j is (j + 1) / (F + 1) in [0, 1], constant over the pixels, and goes to
  [-1, 1] as the frames do.

  Args:
    frames: (b, k, h, w, c); what an empty slot holds is not looked at.
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
  """Frames (b, k, h, w, c) of (b, F, h, w, c) at positions (b, k); any frame where it is -1."""
  index = jnp.maximum(positions, 0)[:, :, None, None, None]
  return jnp.take_along_axis(fragment, index, axis=1)


def put_frames(fragment: jax.Array, frames: jax.Array, positions: jax.Array) -> jax.Array:
  """The fragment (b, F, h, w, c) with (b, k, h, w, c) in place at their positions (b, k)."""
  places = jnp.arange(fragment.shape[1])
  for slot in range(frames.shape[1]):
    here = positions[:, slot, None] == places
    fragment = jnp.where(here[:, :, None, None, None], frames[:, slot, None], fragment)
  return fragment


def given_positions(
  past: int, future: int, num_frames: int, slots: int, gap: int | None = None
) -> tuple[int, ...]:
  """Positions of the slots for `past` frames, `gap` unknown ones and `future` frames.

  Args:
    past: frames given at the fragment's start.
    future: frames given after the gap.
    num_frames: F.
    slots: k; those left over are empty.
    gap: unknown frames between; None fills the fragment, so that the future is its end.

  Raises:
    ValueError: more frames than slots, or than the fragment holds.
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
  """Positions of a task whose frames are always the same ones.

  'prediction' has the first k frames, 'live_photo' the first alone (p = 1), 'generation' none,
  'interpolation' frames of both ends, the past's one more where k is odd.

  Raises:
    ValueError: an unknown task, or one whose positions are drawn.
  """
  given = {
    "prediction": (slots, 0),
    "live_photo": (1, 0),
    "generation": (0, 0),
    "interpolation": (slots - slots // 2, slots // 2),
  }
  if task not in given:
    raise ValueError(f"No fixed frames for task {task!r}. Choose one of: {', '.join(given)}.")
  return given_positions(*given[task], num_frames, slots)


class Conditions(NamedTuple):
  """Which frames condition each sample of a batch in both stages of training.

  Attributes:
    first: (b, k) positions in the first window.
    second: (b, k) positions in the second window.
    continues: (b,) whether the second window's frames are the end of the first's estimate; else
      they are true ones.
  """

  first: jax.Array
  second: jax.Array
  continues: jax.Array


@dataclasses.dataclass(frozen=True)
class TaskMix:
  """The tasks of training and how often each is drawn.

  'infilling' draws k distinct positions of -1..F-1, so that one slot at most is empty, anew for
  each window; 'random', the release's, never the last frame.

  Attributes:
    shares: task -> probability.
    num_frames: F.
    slots: k.
    per: 'sample' draws for each sample, 'batch' (as released) once for all.
  """

  shares: Mapping[str, float]
  num_frames: int = 8
  slots: int = 2
  per: str = "sample"

  def __post_init__(self) -> None:
    if unknown := sorted(set(self.shares) - set(TASKS)):
      raise ValueError(f"Unknown tasks {unknown}. Choose from: {', '.join(TASKS)}.")
    if not math.isclose(sum(self.shares.values()), 1.0) or min(self.shares.values()) < 0:
      raise ValueError(f"The tasks' shares must be positive and sum to 1, not {self.shares}.")
    if self.per not in DRAWS:
      raise ValueError(f"Unknown drawing {self.per!r}. Choose one of: {', '.join(DRAWS)}.")
    if not 0 < self.slots < self.num_frames:
      raise ValueError(f"{self.slots} slots do not leave frames of {self.num_frames} to draw.")

  def draws(self, positions: Sequence[int]) -> bool:
    """Whether a task gives frames at these k positions in these slots."""
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
    """Tasks and positions of a batch."""
    key_task, key_first, key_second = jax.random.split(key, 3)
    count = batch_size if self.per == "sample" else 1
    tasks = tuple(self.shares)
    shares = jnp.array(list(self.shares.values()))
    task = jax.random.choice(key_task, len(tasks), (count,), p=shares)

    def positions(key: jax.Array, fixed: list[tuple[int, ...] | None]) -> jax.Array:
      order = jax.random.uniform(key, (count, self.num_frames + 1))  # a column a position
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
    # What begins from one frame goes on from as many as there are slots.
    later = ["prediction" if name == "live_photo" else name for name in tasks]
    conditions = Conditions(
      positions(key_first, [fixed(name) for name in tasks]),
      positions(key_second, [fixed(name) for name in later]),
      jnp.asarray(goes_on)[task],
    )
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, *x.shape[1:])), conditions)
