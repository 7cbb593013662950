"""Reads a store's digits for score files; see videodiff_jax/metrics/digit_reader.py."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.setup.errors import UserError
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import digit_reader, resampling

_FRAMES = 4500  # one frame of each training video; fits in seconds
_SEED = 0
_UNREAD = "Or do not read digits: --config.evaluate.digits=False."


def reader(store: FrameStore) -> digit_reader.DigitReader:
  """Fits a digit reader to a training split: a frame of each of up to 4,500 videos.

  Raises:
    UserError: the store has no labels, or scikit-learn is missing.
  """
  rng = np.random.default_rng(_SEED)
  chosen = rng.permutation(store.num_videos)[:_FRAMES]
  try:
    labels = labels_of(store, chosen)
    frames = [store.read(v, [rng.integers(store.videos[v]["frames"])])[0] for v in chosen]
    return digit_reader.fit(np.stack(frames), labels)
  except (ModuleNotFoundError, ValueError) as error:
    raise UserError(f"{error} {_UNREAD}") from error


def check(store: FrameStore) -> None:
  """Raises UserError if no reader can learn the store's labels, or scikit-learn is missing."""
  try:
    digit_reader.check_installed()
  except ModuleNotFoundError as error:
    raise UserError(f"{error} {_UNREAD}") from error
  if len({video["label"] for video in store.videos}) < 2:
    raise UserError(
      "config.evaluate.digits needs a store with two or more labels: prepare a store with classes, "
      "or do not read digits: --config.evaluate.digits=False."
    )


def labels_of(store: FrameStore, videos: np.ndarray) -> np.ndarray:
  """Returns the classes (n,) of videos."""
  return np.array([store.videos[video]["label"] for video in videos])


def summary(
  parts: Mapping[str, Sequence[Mapping[str, np.ndarray]]], seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
  """Computes means over the clips of each set, and their intervals.

  Args:
    parts: set -> `digit_reader.Readings.figures` of each of its parts.
    seed: seed of `resampling.intervals`.
  """
  scores, spread = {}, {}
  for name, rows in parts.items():
    each = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}  # (n,)
    scores[name], spread[name] = resampling.of_means(each, seed)
  return scores, spread
