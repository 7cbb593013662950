"""--nearest of --mode=sample: the training clip nearest to each drawn one, in nearest.png."""

import dataclasses
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments.measures import nearest
from experiments.setup import frame_stores
from experiments.setup.errors import UserError
from videodiff_jax.inputs.clips import Places

PICTURE = "nearest.png"
_MOST_BYTES = 2**29  # of drawn clips as float64; there is a pass over the training clips for each


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """What is found for n drawn clips.

  Attributes:
    rows: label -> clip uint8 (f, h, w, c), the rows of the strip.
    written: entry of settings.json: how many clips were searched, and for each drawn clip its
      distance in levels of 255 and the video and first stored frame of the nearest one.
  """

  rows: dict[str, np.ndarray]
  written: dict[str, Any]


def training_clips(config: ml_collections.ConfigDict, **settings: Any) -> Places:
  """Chooses the training clips to search, before anything is drawn.

  Args:
    config: configuration of the run.
    **settings: settings of the clips that replace the configuration's.

  Raises:
    UserError: the run's training data is not on this machine, or has no video as long as a clip.
  """
  try:
    store = frame_stores.open_store(config, "train", in_memory=False)
    return nearest.one_of_each(store, frame_stores.clip_sampler(config, "clip", **settings))
  except (ValueError, ImportError) as error:
    raise UserError(f"--nearest needs the run's training clips: {error}") from error


def find(videos: np.ndarray, training: Places | None, most_rows: int) -> Neighbours | None:
  """Finds each drawn clip's nearest training clip; hosts share the search.

  Args:
    videos: uint8 (n, f, h, w, c), the drawn clips.
    training: from `training_clips`; None searches nothing and returns None.
    most_rows: drawn clips on the strip, the first ones.
  """
  if training is None:
    return None
  size = max(_MOST_BYTES // (8 * videos[0].nbytes), 1)
  parts = [nearest.of_each(videos[i : i + size], training) for i in range(0, len(videos), size)]
  chosen, distances = map(np.concatenate, zip(*parts))
  rows: dict[str, np.ndarray] = {}
  for i, clip in enumerate(training.read(chosen[:most_rows])):
    rows |= {f"sample {i}": videos[i], f"nearest {i}, {distances[i]:.1f} away": clip}
  logging.info(
    "The nearest of %d training clips are %.1f to %.1f levels of 255 away, %.1f on average.",
    len(training), distances.min(), distances.max(), distances.mean(),
  )  # fmt: skip
  names = [training.store.videos[video]["name"] for video in training.videos[chosen]]
  places = zip(distances, names, training.starts[chosen])
  nearest_of = [
    {"levels_of_255": round(float(away), 3), "video": name, "start": int(start)}
    for away, name, start in places
  ]
  return Neighbours(rows, {"searched": len(training), "nearest": nearest_of})
