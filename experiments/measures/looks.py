"""Figures of a set of clips beside I3D's features: sharpness and digits read."""

from typing import Any

import numpy as np

from videodiff_jax import shares
from videodiff_jax.metrics import images
from videodiff_jax.metrics.digit_reader import DigitReader


class Looks:
  """Accumulates the figures of a set whose clips come in chunks.

  Attributes:
    edges: `images.gradient_energy` of each clip, averaged over its frames.
    readings: `digit_reader.Readings.figures` of each part; empty without a reader.
  """

  def __init__(self, reader: DigitReader | None, most: int):
    """Keeps the first `most` clips."""
    self._reader, self._most = reader, most
    self.edges: list[float] = []
    self.readings: list[dict[str, np.ndarray]] = []
    self._first: list[np.ndarray] = []

  def add(self, videos: np.ndarray, labels: np.ndarray | None) -> None:
    """Adds a chunk, uint8 (n, f, h, w, c), with the classes (n,) it should show, or None."""
    for edges, readings in shares.split(lambda rows: self._look(videos, labels, rows), len(videos)):
      self.edges.extend(edges)
      self.readings.extend(readings)
    self._first.append(videos[: self._most - sum(map(len, self._first))].copy())

  def _look(self, videos: np.ndarray, labels: np.ndarray | None, rows: slice) -> list[Any]:
    """Returns the edges and the list of readings of this host's share of a chunk."""
    edges = images.gradient_energy(videos[rows]).mean(axis=-1)
    if self._reader is None:
      return [edges, []]
    expected = None if labels is None else labels[rows]
    return [edges, [self._reader.read(videos[rows]).figures(expected)]]

  @property
  def first(self) -> np.ndarray:
    """The first clips (m, f, h, w, c) uint8 of all chunks."""
    return np.concatenate(self._first)
