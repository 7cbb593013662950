"""Finds the training clips nearest to drawn clips, to show whether a model memorised its data."""

from collections.abc import Mapping

import numpy as np

from videodiff_jax import shares
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import baselines, resampling

BANK = 2000  # training clips that are searched, at most
_MOST_BYTES = 2**21  # bytes of the clips searched for; memory holds them as float64
_SEED = 0


def one_of_each(store: FrameStore, sampler: clips.ClipSampler, most: int = BANK) -> clips.Places:
  """Picks a clip from each of up to `most` videos; raises ValueError if none is long enough."""
  usable = int(np.count_nonzero(clips.count_starts(store, sampler)))
  if not usable:
    raise ValueError(
      f"No video of the {store.split} split has the {sampler.span} frames of a clip: give a store "
      "of longer videos."
    )
  return clips.evaluation_places(store, sampler, min(most, usable), _SEED)


def searched(clip_bytes: int, least: int) -> int:
  """Returns for how many clips of a set to search: `least`, or more if clips are small."""
  return max(least, _MOST_BYTES // clip_bytes)


def search(
  sets: Mapping[str, np.ndarray], places: clips.Places
) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, list[float]]]:
  """Finds the training clips nearest to those of each set.

  Args:
    sets: name -> uint8 (n, f, h, w, c).
    places: training clips, from `one_of_each`.

  Returns:
    For each set: the nearest clips, of the set's shape; their distance in levels of 255, the mean
    over clips of `baselines.nearest_neighbours`; and its interval.
  """
  near: dict[str, np.ndarray] = {}
  scores: dict[str, float] = {}
  spread: dict[str, list[float]] = {}
  for name, queries in sets.items():
    chosen, distances = of_each(queries, places)
    near[name] = places.read(chosen)
    mean, ends = resampling.of_means({name: distances}, _SEED)
    scores |= mean
    spread |= ends
  return near, scores, spread


def of_each(queries: np.ndarray, places: clips.Places) -> tuple[np.ndarray, np.ndarray]:
  """Returns `baselines.nearest_neighbours` of the queries in `places`; hosts share the clips."""

  def search_share(rows: slice) -> list[np.ndarray]:
    each = (places.read([i])[0] for i in range(rows.start, rows.stop))
    chosen, distances = baselines.nearest_neighbours(queries, each)
    return [rows.start + chosen, distances]

  chosen, distances = map(np.stack, zip(*shares.split(search_share, len(places))))
  best = np.argmin(distances, axis=0)[None]  # the first of equally near ones, as in a share
  return np.take_along_axis(chosen, best, 0)[0], np.take_along_axis(distances, best, 0)[0]
