"""Drawn trajectories measured chunk by chunk: of a video a few numbers are kept, not its frames.

A protocol of 256 videos with 100 trajectories each draws for hours, and its frames fill 9 to 38 GB.
What was measured of a chunk is on disk before the next one is drawn, so that an evaluation that is
killed goes on where it was.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from videodiff_jax import whole_files
from videodiff_jax.lgcvd.pipeline import Chunks
from videodiff_jax.metrics import prediction
from videodiff_jax.metrics.digit_reader import DigitReader, since_it_came_back
from videodiff_jax.metrics.protocols import Protocol

SHOWN = 4  # videos whose first trajectory is kept whole, to look at

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Judge:
  """Measures trajectories of given videos, as a protocol says.

  Attributes:
    protocol: says how.
    real: (n, f, h, w, c) uint8, the true videos.
    lpips_params: of `lpips.load_params`; None leaves LPIPS out.
    with_motion: adds 'position_error', see `prediction.frame_scores`.
    features: of clips (m, f, h, w, c), for FVD; None leaves it out.
    size: trajectories of a whole chunk.
    reader: of digits; None reads none.
    labels: (n,), the videos' classes, where digits are read.
  """

  protocol: Protocol
  real: np.ndarray
  lpips_params: dict[str, Any] | None
  with_motion: bool
  features: Callable[[np.ndarray], np.ndarray] | None
  size: int
  reader: DigitReader | None = None
  labels: np.ndarray | None = None

  def __call__(self, which: np.ndarray, videos: np.ndarray, before: np.ndarray | None) -> Arrays:
    """What is kept of a chunk.

    Args:
      which: (b, 2), of each trajectory its video and its number there.
      videos: (b, f, h, w, c) uint8.
      before: (1, f, h, w, c) uint8, the last trajectory of the chunk before; None in the first.

    Returns:
      'which'; 'frames/NAME' (b, f - first_scored) and 'scores/NAME' (b,), of
      `prediction.frame_scores` and `.trajectory_scores`, and of digits that are read
      'digit_right', 1 in a frame that reads as the true digit (its score is of the frames in which
      the true video shows a digit: a drawn one without is wrong), 'digit_right_last' of the last
      frame, 'digit_right_back' of those since it came back where each video's digit is hidden for
      a while, and 'digit_agreement', see `digit_reader.Readings`; 'apart' and 'error'
      (b, f - first_scored), `prediction.square_difference` to the trajectory before it and to the
      true video; 'features' (m, d) of the m trajectories that count in FVD; 'shown', the videos to
      look at; 'last', what is `before` of the next chunk.
    """
    true, first = self.real[which[:, 0]], which[:, 1] == 0
    frames = prediction.frame_scores(
      videos[:, None], true, self.protocol, self.lpips_params, self.with_motion
    )
    if self.reader is not None:
      readings = self.reader.read(videos[:, self.protocol.first_scored :])
      right = readings.digits == self.labels[which[:, 0], None]
      frames["digit_right"] = right[:, None].astype(np.float64)
    scores = prediction.trajectory_scores(frames, videos[:, None], true, self.protocol)
    if self.reader is not None:
      shown = self.reader.sees(true[:, self.protocol.first_scored :])
      of_shown = (right & shown).sum(axis=1) / np.maximum(shown.sum(axis=1), 1)
      scores["digit_right"] = of_shown[:, None]
      scores["digit_right_last"] = frames["digit_right"][..., -1]
      if self._back.any(axis=1).all():
        back = self._back[which[:, 0]]
        scores["digit_right_back"] = ((right & back).sum(axis=1) / back.sum(axis=1))[:, None]
      scores["digit_agreement"] = readings.figures()["agreement"][:, None]
    kept = {f"frames/{name}": values[:, 0] for name, values in frames.items()}
    kept |= {f"scores/{name}": values[:, 0] for name, values in scores.items()}
    if self.features is not None:
      counted = first | (self.protocol.fvd_trajectories != "first")
      if counted.any():
        kept["features"] = self._features(videos[counted], true[counted])
    previous = np.concatenate([videos[:1] if before is None else before, videos[:-1]])
    begin = self.protocol.first_scored
    kept["apart"] = prediction.square_difference(videos[:, begin:], previous[:, begin:])
    kept["error"] = prediction.square_difference(videos[:, begin:], true[:, begin:])
    shown = videos[first & (which[:, 0] < SHOWN)]
    return kept | {"which": which, "shown": shown, "last": videos[-1:]}

  @functools.cached_property
  def _back(self) -> np.ndarray:
    """(n, f - first_scored), see `since_it_came_back`."""
    return since_it_came_back(self.real[:, self.protocol.first_scored :])

  def _features(self, videos: np.ndarray, true: np.ndarray) -> np.ndarray:
    clips = prediction.compared(videos, true, self.protocol)
    # As many clips a chunk, or the detector would be compiled again for the last one.
    each = self.protocol.trajectories if self.protocol.fvd_trajectories == "first" else 1
    most = -(-self.size // each)
    padded = np.concatenate([clips, np.repeat(clips[-1:], max(most - len(clips), 0), axis=0)])
    return self.features(padded)[: len(clips)]


class Kept:
  """The chunks that an unfinished evaluation has measured so far, a file each."""

  def __init__(self, folder: pathlib.Path, name: str, identity: Mapping[str, Any]):
    """`identity` is all that the numbers depend on: of another one nothing is taken over."""
    text = json.dumps(identity, sort_keys=True)
    self.folder = folder / f".{name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"

  def read(self) -> Iterator[Arrays]:
    """What is there, from the first chunk to where one is missing or damaged."""
    begin = 0
    while (file := self._file(begin)).is_file():
      try:
        with np.load(file) as saved:
          chunk = dict(saved)
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return
      yield chunk
      begin += len(chunk["which"])

  def write(self, begin: int, chunk: Arrays) -> None:
    """Keeps a chunk whose first trajectory is the `begin`th; whole or not at all."""
    file = self._file(begin)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_files.written(file) as half:
      np.savez(half, **chunk)

  def remove(self) -> None:
    """Once the evaluation is whole."""
    shutil.rmtree(self.folder, ignore_errors=True)

  def _file(self, begin: int) -> pathlib.Path:
    return self.folder / f"{begin:08d}.npz"


@dataclasses.dataclass(frozen=True)
class Measured:
  """A whole set of n videos with N trajectories each.

  Attributes:
    frames: name -> (n, N, f - first_scored), of `prediction.frame_scores`.
    scores: name -> (n, N), of `prediction.trajectory_scores`.
    apart: (n, N - 1, f - first_scored), `prediction.square_difference` of a video's successive
      trajectories.
    error: (n, N, f - first_scored), the same of each and the true video.
    features: (T, n, d), of the T trajectories that count in FVD; None where there is none.
    shown: (m, f, h, w, c) uint8, the first trajectory of the first m videos.
  """

  frames: prediction.Scores
  scores: prediction.Scores
  apart: np.ndarray
  error: np.ndarray
  features: np.ndarray | None
  shown: np.ndarray


def measure(draw: Callable[[int], Chunks], judge: Judge, kept: Kept | None = None) -> Measured:
  """Measures every chunk, each once.

  Args:
    draw: from how many trajectories on -> chunks of the rest, as `Pipeline.predict_chunks`.
    judge: of them.
    kept: where chunks are kept, and those of an earlier, unfinished run are found.
  """
  chunks, last = [], None
  for chunk in kept.read() if kept else ():
    last = chunk.pop("last")  # of all chunks together they would fill the memory
    chunks.append(chunk)
  begin = sum(len(chunk["which"]) for chunk in chunks)
  if begin:
    logging.info("%d trajectories were measured before (%s): going on.", begin, kept.folder)
  for which, videos in draw(begin):
    chunk = judge(which, videos, last)
    if kept:
      kept.write(begin, chunk)
    last = chunk.pop("last")
    chunks.append(chunk)
    begin += len(which)
  return _whole(chunks, len(judge.real))


def one_of_each(
  judge: Judge, predict: Callable[[np.ndarray], np.ndarray], begin: int = 0
) -> Chunks:
  """Whole videos (b, f, h, w, c) that `predict` makes of the true ones: one of each."""
  for at in range(begin, len(judge.real), judge.size):
    true = judge.real[at : at + judge.size]
    numbers = np.arange(at, at + len(true))
    yield np.stack([numbers, np.zeros_like(numbers)], axis=1), predict(true)


def _whole(chunks: Sequence[Arrays], num_videos: int) -> Measured:
  names = dict.fromkeys(name for chunk in chunks for name in chunk)
  found = {name: np.concatenate([c[name] for c in chunks if name in c]) for name in names}

  def group(prefix: str) -> prediction.Scores:
    return {
      name.removeprefix(prefix): values.reshape(num_videos, -1, *values.shape[1:])
      for name, values in found.items()
      if name.startswith(prefix)
    }

  features = found.get("features")
  if features is not None:
    features = features.reshape(num_videos, -1, features.shape[-1]).swapaxes(0, 1)
  # No trajectory is before a video's first.
  apart, error = (found[n].reshape(num_videos, -1, found[n].shape[-1]) for n in ("apart", "error"))
  shown = found["shown"]
  return Measured(group("frames/"), group("scores/"), apart[:, 1:], error, features, shown)
