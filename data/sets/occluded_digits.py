"""Occluded digits: one swings in a frame whose shutter closes once, for two frames."""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data.builder import Video
from data.sets.moving_digits import MovingDigits, MovingDigitsOptions, free_space

_PERIOD = 6  # frames of a swing
_SWING = 2 / 3  # amplitude, as a share of what the frame has room for
_DARK = (6, 7)  # frames for which the shutter is closed
# Five of every six training videos have two fragments of 8 frames that overlap by 2.
_SHORT, _OF = 5, 6
_SHORT_FRAMES = 14


@dataclasses.dataclass(frozen=True)
class OccludedDigitsOptions(MovingDigitsOptions):
  """Options of `occluded_digits`; others as in `MovingDigitsOptions`.

  Attributes:
    num_frames: frames of a test video: 28 can be predicted from 2.
  """

  num_frames: int = 30


class OccludedDigits(MovingDigits):
  """Digits that LGC-VD's two local frames do not determine, for tests of the sequence encoder.

  A digit swings from side to side in a row of its own. In the seventh and the eighth frame a shutter is closed: they
  are black. For fragments of 8 frames that overlap by 2 and start with the video, these are the
  local frames of the second. They tell neither which digit will appear nor in which row, and the
  fragment before shows both. What the second fragment draws, all others go on from. The row is what
  an encoder learns first; where all digits had the same one, it had learned nothing after 1,000
  iterations.

  Test videos are long. Five of six training videos have 14 frames, so that their second fragment is
  such a one: where fewer are, a small encoder learns nothing of use. From the others, whose clips
  begin anywhere, the networks learn how digits go on that are seen.

  `FrameStore.extra` gives `centres`, also of the digit behind the shutter, and `visible` (f,): 0 or
  1.
  """

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES: ClassVar = {
    "2.0.0": "A shutter hides digits once; before, they left the frame. More videos are short."
  }
  OPTIONS = OccludedDigitsOptions

  def path(self, rng: np.random.Generator) -> np.ndarray:
    free = free_space(self.options.size)
    phase = 2 * np.pi * np.arange(self.options.num_frames) / _PERIOD
    columns = free / 2 * (1 + _SWING * np.sin(phase))
    return np.stack([columns, np.full_like(columns, rng.uniform(0, free))], -1)

  def least_frames(self, name: str) -> int:
    split, index = name.split("/")
    short = split == "train" and int(index) % _OF < _SHORT
    return min(_SHORT_FRAMES, self.options.num_frames) if short else self.options.num_frames

  def load(self, name: str) -> Video:
    video = super().load(name)
    kept = self.least_frames(name)
    visible = ~np.isin(np.arange(kept), _DARK)
    frames = np.asarray(video.frames)[:kept] * visible[:, None, None, None].astype(np.uint8)
    extra = {
      **video.extra,
      "centres": video.extra["centres"][:kept],
      "visible": visible.astype(float).tolist(),
    }
    return dataclasses.replace(video, frames=frames, extra=extra)
