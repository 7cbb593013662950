"""Moving digits that march: straight on, in one of eight directions, a constant step a frame."""

from typing import Any

import numpy as np

from data.sets.moving_digits import MovingDigits, free_space

_STEPS = 64  # a digit's step is the frame's side over this, along x, y or both


class MarchingDigits(MovingDigits):
  """`moving_digits` of which two frames settle all others: to try prediction on.

  A digit steps half of one of 32 pixels a frame to the right, down, left, up or between two of
  these, from a place of the grid of such steps from where it meets no side of the frame.
  `FrameStore.extra` gives `centres`.
  """

  def __init__(self, **arguments: Any):
    super().__init__(**arguments)
    longest = 1 + round(free_space(_STEPS))
    if self.options.num_frames > longest:
      raise ValueError(
        f"num_frames is {self.options.num_frames}; marching digits leave the frame after {longest}."
      )

  def path(self, rng: np.random.Generator) -> np.ndarray:
    angle = rng.integers(8) * np.pi / 4
    step = np.rint([np.cos(angle), np.sin(angle)]).astype(int)
    moved = np.arange(self.options.num_frames)[:, None] * step
    lowest, highest = -moved.min(axis=0), round(free_space(_STEPS)) - moved.max(axis=0)
    return (rng.integers(lowest, highest, endpoint=True) + moved) * self.options.size / _STEPS
