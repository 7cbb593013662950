"""What is kept of a set of clips beside I3D's features: how sharp they are, what they read as."""

import numpy as np

from videodiff_jax.metrics import images
from videodiff_jax.metrics.digit_reader import DigitReader


class Looks:
  """Of a set whose clips come in chunks.

  Attributes:
    edges: `images.gradient_energy` of each clip, the mean over its frames.
    readings: of each chunk what `digit_reader.Readings.figures` says; empty without a reader.
    first: the first clips (m, f, h, w, c) uint8.
  """

  def __init__(self, reader: DigitReader | None, most: int):
    """Keeps the first `most` clips."""
    self._reader, self._most = reader, most
    self.edges: list[float] = []
    self.readings: list[dict[str, np.ndarray]] = []
    self.first: np.ndarray | None = None

  def add(self, videos: np.ndarray, labels: np.ndarray | None) -> None:
    """Takes a chunk, uint8 (n, f, h, w, c), and the classes (n,) that it should be of, or None."""
    self.edges.extend(images.gradient_energy(videos).mean(axis=-1))
    if self._reader is not None:
      self.readings.append(self._reader.read(videos).figures(labels))
    before = videos[:0] if self.first is None else self.first
    self.first = np.concatenate([before, videos[: self._most - len(before)]])
