"""A store's digits read, for score files: see videodiff_jax/metrics/digit_reader.py."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.setup.errors import UserError
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import digit_reader, resampling

_FRAMES = 4500  # one of as many training videos: fitted in seconds
_SEED = 0
_UNREAD = "Or leave digits unread: --config.evaluate.digits=False."


def reader(store: FrameStore) -> digit_reader.DigitReader:
  """Fitted to a training split: a frame of each of up to 4,500 videos.

  Raises:
    UserError: config.evaluate.digits is on for a store without labels, or scikit-learn is missing.
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
  """Raises UserError for labels that no reader could learn, or without scikit-learn."""
  try:
    digit_reader.check_installed()
  except ModuleNotFoundError as error:
    raise UserError(f"{error} {_UNREAD}") from error
  if len({video["label"] for video in store.videos}) < 2:
    raise UserError(
      "config.evaluate.digits reads digits by the store's labels, of which it needs two or more: "
      "prepare a store with classes, or leave digits unread: --config.evaluate.digits=False."
    )


def labels_of(store: FrameStore, videos: np.ndarray) -> np.ndarray:
  """(n,) classes of videos."""
  return np.array([store.videos[video]["label"] for video in videos])


def summary(
  parts: Mapping[str, Sequence[Mapping[str, np.ndarray]]], seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
  """Means over the clips of each set, and their intervals.

  Args:
    parts: by set: of each part of it what `digit_reader.Readings.figures` says.
    seed: as of `resampling.intervals`.
  """
  scores, spread = {}, {}
  for name, rows in parts.items():
    each = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}  # (n,)
    scores[name], spread[name] = resampling.of_means(each, seed)
  return scores, spread
