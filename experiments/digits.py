"""The reader of a store's digits, for score files: see videodiff_jax/metrics/digit_reader.py."""

import numpy as np

from experiments.errors import UserError
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import digit_reader

_FRAMES = 4500  # one of as many training videos: fitted in seconds
_SEED = 0


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
    raise UserError(f"{error} Or leave digits unread: --config.evaluate.digits=False.") from error


def labels_of(store: FrameStore, videos: np.ndarray) -> np.ndarray:
  """(n,) classes of videos."""
  return np.array([store.videos[video]["label"] for video in videos])
