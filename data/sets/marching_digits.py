"""Moving digits that march straight in one of eight directions, with a constant step per frame."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.sets.moving_digits import MovingDigits, free_space

_STEPS = 64  # a digit's step is the frame's side over this, along x, y or both


class MarchingDigits(MovingDigits):
  """`moving_digits` in which two frames determine all others, for tests of prediction.

  Each digit moves half a pixel per frame (at 32 px) in one of eight directions, and starts on the
  grid of such steps at a place from which it never reaches the border.
  `FrameStore.extra` gives `centres`.
  """

  # A direction is the angle of 45 degrees times its number, from x to y, where y is down.
  DIRECTIONS: ClassVar[Sequence[int]] = range(8)

  def __init__(self, **arguments: Any):
    super().__init__(**arguments)
    longest = 1 + round(free_space(_STEPS))
    if self.options.num_frames > longest:
      raise ValueError(
        f"num_frames is {self.options.num_frames}; marching digits leave the frame after {longest}."
      )

  def path(self, rng: np.random.Generator) -> np.ndarray:
    angle = self.DIRECTIONS[int(rng.integers(len(self.DIRECTIONS)))] * np.pi / 4
    step = np.rint([np.cos(angle), np.sin(angle)]).astype(int)
    moved = np.arange(self.options.num_frames)[:, None] * step
    lowest, highest = -moved.min(axis=0), round(free_space(_STEPS)) - moved.max(axis=0)
    return (rng.integers(lowest, highest, endpoint=True) + moved) * self.options.size / _STEPS


class FallingDigits(MarchingDigits):
  """`marching_digits` that only go down, straight or aslant, so that time has a direction.

  Where all directions are equally likely, two frames in reversed order are as likely as in theirs,
  and no discriminator of ordered pairs (GLOBER Eq. 10) can tell them.
  """

  DIRECTIONS = (1, 2, 3)
