"""Moving digits with captions; each digit moves straight, and its caption describes the motion."""

from typing import Any

import numpy as np

from data.sets.moving_digits import MovingDigits, free_space

# The direction of 45 degrees times the index, from x to y: y is down.
DIRECTIONS = (
  "to the right", "down and to the right", "down", "down and to the left",
  "to the left", "up and to the left", "up", "up and to the right",
)  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SLOWEST = 0.4  # of the fastest
_PACES = (", slowly", "", ", fast")  # thirds of the speeds between


class CaptionedDigits(MovingDigits):
  """`moving_digits` that never reach the border, with captions made from their motion.

  Directions are uniform; speeds are up to what the frame has room for. `FrameStore.extra` gives
  `caption`, as "a three moves down and to the left, fast", true of every clip of the video, and
  `centres`.
  """

  def __init__(self, **arguments: Any):
    super().__init__(**arguments)
    if self.options.num_frames < 2:
      raise ValueError("Captions describe motion, so num_frames must be 2 or more.")

  def path(self, rng: np.random.Generator) -> np.ndarray:
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(_SLOWEST, 1) * self._fastest()
    steps = np.arange(self.options.num_frames)[:, None]
    moved = speed * steps * np.array([np.cos(angle), np.sin(angle)])
    lowest, highest = -moved.min(axis=0), free_space(self.options.size) - moved.max(axis=0)
    return rng.uniform(lowest, highest) + moved

  def describe(self, label: str, corners: np.ndarray) -> dict[str, str]:
    step = corners[1] - corners[0]
    speed = np.linalg.norm(step) / self._fastest()
    pace = int(np.clip((speed - _SLOWEST) / (1 - _SLOWEST) * len(_PACES), 0, len(_PACES) - 1))
    return {"caption": caption(int(label), int(direction(step)), _PACES[pace])}

  def _fastest(self) -> float:
    """Returns the speed in pixels per frame at which a digit crosses the frame in one video."""
    return 0.95 * free_space(self.options.size) / (self.options.num_frames - 1)


def caption(digit: int, towards: int, pace: str = "") -> str:
  """Describes a clip of one digit; `towards` is an index of `DIRECTIONS`."""
  article = "an" if digit == 8 else "a"
  return f"{article} {_NUMBERS[digit]} moves {DIRECTIONS[towards]}{pace}"


def direction(step: np.ndarray) -> np.ndarray:
  """Maps steps (..., 2), x and y, to the index (...) of the nearest of `DIRECTIONS`."""
  angle = np.arctan2(step[..., 1], step[..., 0])
  return np.rint(angle / (np.pi / 4)).astype(int) % len(DIRECTIONS)
