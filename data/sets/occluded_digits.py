"""Occluded digits: one swings in a frame whose shutter closes for two of every six frames."""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data.builder import Video
from data.sets.moving_digits import MovingDigits, MovingDigitsOptions, free_space

_PERIOD = 6  # frames of a swing, and from one closing of the shutter to the next
_DARK = 2  # frames for which the shutter is closed
_SWING = 2 / 3  # amplitude, as a share of what the frame has room for
# Training videos have two fragments of 8 frames that overlap by 2.
_TRAINING_FRAMES = 14


@dataclasses.dataclass(frozen=True)
class OccludedDigitsOptions(MovingDigitsOptions):
  """Options of `occluded_digits`; others as in `MovingDigitsOptions`.

  Attributes:
    num_frames: frames of a test video: 28 can be predicted from 2.
  """

  num_frames: int = 30


class OccludedDigits(MovingDigits):
  """Digits that LGC-VD's two local frames do not determine, for tests of the sequence encoder.

  A digit swings from side to side in a row of its own. From the seventh frame on a shutter is
  closed for two frames of every six: they are black. For fragments of 8 frames that overlap by 2
  and start with the video, these are the local frames of all but the first. They tell neither which
  digit will appear nor in which row, and the fragment before shows both.

  Test videos are long. Training videos have 14 frames, so that each one's second fragment is such a
  one: in 1,000 iterations and more a small encoder learned nothing where a sixth of the videos were
  long, nor where all digits had one row.
  Held-out losses are of clips that begin anywhere, also behind the shutter, and so are larger.

  `FrameStore.extra` gives `centres`, also of the digit behind the shutter, and `visible` (f,): 0 or
  1.
  """

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES: ClassVar = {
    "2.0.0": "A shutter hides digits; before, they left the frame. Training videos have 14 frames."
  }
  OPTIONS = OccludedDigitsOptions

  def path(self, rng: np.random.Generator) -> np.ndarray:
    free = free_space(self.options.size)
    phase = 2 * np.pi * np.arange(self.options.num_frames) / _PERIOD
    columns = free / 2 * (1 + _SWING * np.sin(phase))
    return np.stack([columns, np.full_like(columns, rng.uniform(0, free))], -1)

  def least_frames(self, name: str) -> int:
    long = name.startswith("test/")
    return self.options.num_frames if long else min(_TRAINING_FRAMES, self.options.num_frames)

  def load(self, name: str) -> Video:
    video = super().load(name)
    kept = self.least_frames(name)
    number = np.arange(kept)
    visible = (number < _PERIOD) | (number % _PERIOD >= _DARK)
    frames = np.asarray(video.frames)[:kept] * visible[:, None, None, None].astype(np.uint8)
    extra = {
      **video.extra,
      "centres": video.extra["centres"][:kept],
      "visible": visible.astype(float).tolist(),
    }
    return dataclasses.replace(video, frames=frames, extra=extra)
