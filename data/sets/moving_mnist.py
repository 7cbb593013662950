"""Moving MNIST: two digits bounce about a frame of 64 x 64, as published work makes it.

Two sets go by that name. `moving_mnist` is the first (Srivastava et al. 2015, arXiv:1502.04681),
on which 10 frames are predicted from 10. `stochastic_mnist` is SM-MNIST (Denton and Fergus 2018,
arXiv:1802.07687), on which MCVD and others predict 10 from 5: there, chance decides at every wall.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from PIL import Image

from data.builder import Options, Video, VideoBuilder
from data.sets.moving_digits import centre_of_mass, digits

_SIZE = 64
_DIGITS = 2  # in a video


@dataclasses.dataclass(frozen=True)
class MovingMnistOptions(Options):
  """Options of `moving_mnist` and `stochastic_mnist`; others as in `Options`.

  Attributes:
    size: 64, the only one that published work knows.
    num_frames: frames of every video; the published sets have 20 and 15 to 30.
    num_videos: one in ten is for testing, of other digits than those of training.
    seed: every video for training is a pure function of (seed, its index). Those for testing are
      always the same.
  """

  size: int = _SIZE
  num_frames: int = 20
  num_videos: int = 8000
  seed: int = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.size != _SIZE:
      raise ValueError(f"size is {self.size}; Moving MNIST has frames of {_SIZE} x {_SIZE}.")
    if self.num_videos < 2:
      raise ValueError(f"num_videos is {self.num_videos}; two splits need at least 2.")


class MovingMnist(VideoBuilder):
  """Two MNIST digits of 28 pixels, each 3.6 pixels a frame in a direction of its own.

  A digit that would leave the frame stops at the side for that frame and turns round. Places are
  rounded down to whole pixels; where digits overlap, the brighter pixel is seen. The digits are
  5,000 of MNIST's 70,000, those of `moving_digits`: 4,500 for training, where published work has
  60,000, and 500 for testing. `FrameStore.extra` gives `digits` (2,), their classes, and `centres`
  (f, 2, 2), x and y of each digit's centre of mass from the centre of the top left pixel.
  """

  OPTIONS = MovingMnistOptions
  CHANNELS = 1
  VIDEOS_PER_PART = 250
  SIDE = 28  # of a digit

  options: MovingMnistOptions

  def candidates(self) -> Mapping[str, int]:
    test = max(1, self.options.num_videos // 10)
    counts = {"train": self.options.num_videos - test, "test": test}
    return {f"{split}/{i:06d}": 0 for split, n in counts.items() for i in range(n)}

  def load(self, name: str) -> Video:
    split, index = name.split("/")
    seeds = (0, 1) if split == "test" else (self.options.seed, 0)
    rng = np.random.default_rng([*seeds, int(index)])
    images, labels = digits(split)
    canvas = np.zeros((self.options.num_frames, _SIZE, _SIZE), np.int32)
    classes, centres = [], []
    for chosen in rng.integers(len(images), size=_DIGITS):
      digit = _resized(images[chosen], self.SIDE)
      corners = self.path(rng)
      for frame, (x, y) in zip(canvas, corners):
        place = frame[y : y + self.SIDE, x : x + self.SIDE]
        place[:] = self.overlap(place, digit)
      classes.append(int(labels[chosen]))
      centres.append(corners + centre_of_mass(digit))
    frames = np.minimum(canvas, 255).astype(np.uint8)[..., None]
    truth = np.stack(centres, axis=1).round(3).tolist()
    return Video(frames, extra={"digits": classes, "centres": truth})

  def path(self, rng: np.random.Generator) -> np.ndarray:
    """Top left corners (f, 2) of one digit, x and y, whole pixels."""
    free, step = _SIZE - self.SIDE, 0.1
    place, angle = rng.uniform(size=2), rng.uniform(0, 2 * np.pi)
    velocity = step * np.array([np.cos(angle), np.sin(angle)])
    corners = np.empty((self.options.num_frames, 2), int)
    for t in range(self.options.num_frames):
      place = place + velocity
      velocity = np.where((place <= 0) | (place >= 1), -velocity, velocity)
      place = place.clip(0, 1)
      corners[t] = free * place
    return corners

  def overlap(self, below: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """What is seen where a digit is drawn on what is there."""
    return np.maximum(below, digit)


class StochasticMnist(MovingMnist):
  """SM-MNIST: digits of 32 pixels that go on from a side of the frame as chance decides.

  A digit moves by -4 to 4 whole pixels a frame along each axis; at a side it goes back inwards by
  1 to 4, and along the side by -4 to 4, both sampled again. Where digits overlap, their light adds
  up. Digits and `FrameStore.extra` are as of `moving_mnist`.
  """

  SIDE = 32

  def path(self, rng: np.random.Generator) -> np.ndarray:
    free = _SIZE - self.SIDE
    corner, velocity = rng.integers(free, size=2), rng.integers(-4, 5, size=2)
    corners = np.empty((self.options.num_frames, 2), int)
    for t in range(self.options.num_frames):
      for axis in (1, 0):  # y is looked at first, as published
        if outside := int(corner[axis] >= free) - int(corner[axis] < 0):
          corner[axis] = 0 if outside < 0 else free - 1
          velocity = rng.integers(-4, 5, size=2)
          velocity[axis] = -outside * rng.integers(1, 5)
      corners[t] = corner
      corner = corner + velocity
    return corners

  def overlap(self, below: np.ndarray, digit: np.ndarray) -> np.ndarray:
    return below + digit


def _resized(digit: np.ndarray, side: int) -> np.ndarray:
  """uint8 (28, 28) -> (side, side), bilinear."""
  if side == len(digit):
    return digit
  return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR))
