"""Occluded digits: one crosses the frame, is hidden for several frames, and comes back."""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data.builder import Video
from data.sets.moving_digits import MovingDigits, MovingDigitsOptions, free_space

# In pixels of a frame of 32, of which the digit takes 14.
_STEP = 6.0  # a frame, to the right
_WORLD = 72.0  # from the frame's left side to where the digit enters it again: 12 steps
_LATEST_START = 12.0  # so that the first two frames show the whole digit
# Three of every five training videos end after two fragments of 8 frames that overlap by 2.
_SHORT, _OF = 3, 5
_SHORT_FRAMES = 14


@dataclasses.dataclass(frozen=True)
class OccludedDigitsOptions(MovingDigitsOptions):
  """Options of `occluded_digits`; others as in `MovingDigitsOptions`.

  Attributes:
    num_frames: frames of a long video: 28 can be predicted from 2.
  """

  num_frames: int = 30


class OccludedDigits(MovingDigits):
  """Digits that LGC-VD's two local frames do not determine, for tests of the sequence encoder.

  A digit moves to the right, leaves the frame, and enters it from the left, with a period of 12
  frames. Each time it is wholly hidden for 5 to 7 frames. Two hidden frames show neither which
  digit will appear, nor in which row, nor when; 6 frames before them, the digit is seen. For
  fragments of 8 frames that overlap by 2 and start with the video, the local frames of every second
  fragment are hidden ones (the second, the fourth, ...), and the fragment before shows the whole
  digit. For fragments with a random start this holds for more than a third, from which a small
  encoder learned nothing of use. So three of five training videos have 14 frames, of which the
  second fragment is such a one; the others are long, as all test videos are.

  `FrameStore.extra` gives `centres`, outside of the frame where the digit is, and `visible` (f,),
  the share of the digit's light inside of it: 0 where it is hidden, 1 where it is whole.
  """

  VERSION = tfds.core.Version("1.1.0")
  RELEASE_NOTES: ClassVar = {"1.1.0": "Three of five training videos have 14 frames."}
  OPTIONS = OccludedDigitsOptions

  def path(self, rng: np.random.Generator) -> np.ndarray:
    size, digit = self.options.size, self.options.size - free_space(self.options.size)
    scale = size / 32
    start = rng.uniform(0, _LATEST_START) * scale
    row = rng.uniform(0, free_space(size))
    moved = start + _STEP * scale * np.arange(self.options.num_frames)
    columns = (moved + digit) % (_WORLD * scale) - digit
    return np.stack([columns, np.full_like(columns, row)], -1)

  def least_frames(self, name: str) -> int:
    split, index = name.split("/")
    short = split == "train" and int(index) % _OF < _SHORT
    return min(_SHORT_FRAMES, self.options.num_frames) if short else self.options.num_frames

  def load(self, name: str) -> Video:
    video = super().load(name)
    frames = np.asarray(video.frames)
    light = np.sum(frames, axis=(1, 2, 3), dtype=np.float64)
    visible = np.minimum(light / light[0], 1).round(3)  # the first frame shows all of it
    shown = slice(self.least_frames(name))
    extra = {
      **video.extra,
      "centres": video.extra["centres"][shown],
      "visible": visible.tolist()[shown],
    }
    return dataclasses.replace(video, frames=frames[shown], extra=extra)
