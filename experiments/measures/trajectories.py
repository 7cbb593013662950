"""Measures drawn trajectories chunk by chunk; a few numbers of each video are kept, not its frames.

A protocol of 256 videos with 100 trajectories each draws for hours, and its frames fill 9 to 38 GB.
The measurements of a chunk are on disk before the next one is drawn, so that a killed evaluation
goes on where it stopped.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from videodiff_jax import shares, storage, whole_files
from videodiff_jax.lgcvd.pipeline import Chunks
from videodiff_jax.metrics import prediction
from videodiff_jax.metrics.digit_reader import DigitReader, since_it_came_back
from videodiff_jax.metrics.protocols import PredictionProtocol
from videodiff_jax.training import hosts

SHOWN = 4  # videos whose first trajectory is kept whole, for the pictures

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Judge:
  """Measures trajectories of given videos, as a protocol says.

  Attributes:
    protocol: protocol to measure by.
    real: (n, f, h, w, c) uint8, the true videos.
    lpips_params: parameters from `lpips.load_params`; None leaves LPIPS out.
    with_motion: adds 'position_error', see `prediction.frame_scores`.
    features: computes features of clips (m, f, h, w, c) for FVD; None leaves FVD out.
    size: trajectories in a whole chunk.
    reader: reader of digits; None reads none.
    labels: (n,) classes of the videos, if digits are read.
  """

  protocol: PredictionProtocol
  real: np.ndarray
  lpips_params: dict[str, Any] | None
  with_motion: bool
  features: Callable[[np.ndarray], np.ndarray] | None
  size: int
  reader: DigitReader | None = None
  labels: np.ndarray | None = None

  def __call__(self, which: np.ndarray, videos: np.ndarray, before: np.ndarray | None) -> Arrays:
    """Measures a chunk.

    Args:
      which: (b, 2), the video of each trajectory and its number there.
      videos: (b, f, h, w, c) uint8.
      before: (1, f, h, w, c) uint8, last trajectory of the chunk before; None in the first chunk.

    Returns:
      A dict of these entries:
      'which': as given.
      'frames/NAME' (b, f - first_scored) and 'scores/NAME' (b,): `prediction.frame_scores` and
        `.trajectory_scores`. If digits are read, these include 'digit_right', 1 in a frame that
        reads as the true digit. Its score covers the frames in which the true video shows a digit;
        a drawn frame without one is wrong there. 'digit_right_last' is of the last frame;
        'digit_right_back' is of the frames since the digit came back, if each video hides its digit
        for a while; 'digit_right_clip' and 'digit_agreement' are 'clip_right' and 'agreement' of
        `digit_reader.Readings.figures`.
      'apart' and 'error' (b, f - first_scored): `prediction.square_difference` to the trajectory
        before it and to the true video.
      'features' (m, d): features of the m trajectories that count in FVD.
      'shown': videos for the pictures.
      'last': `before` of the next chunk.
    """
    true, first = self.real[which[:, 0]], which[:, 1] == 0
    frames = prediction.frame_scores(
      videos[:, None], true, self.protocol, self.lpips_params, self.with_motion
    )
    if self.reader is not None:
      readings = self.reader.read(videos[:, self.protocol.first_scored :])
      assert self.labels is not None  # stands with the reader
      labels = self.labels[which[:, 0]]
      right, of_clips = readings.digits == labels[:, None], readings.figures(labels)
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
      scores["digit_right_clip"] = of_clips["clip_right"][:, None]
      scores["digit_agreement"] = of_clips["agreement"][:, None]
    kept = {f"frames/{name}": values[:, 0] for name, values in frames.items()}
    kept |= {f"scores/{name}": values[:, 0] for name, values in scores.items()}
    if self.features is not None:
      counted = first | (self.protocol.fvd_trajectories != "first")
      if counted.any():
        kept["features"] = self._features(self.features, videos[counted], true[counted])
    previous = np.concatenate([videos[:1] if before is None else before, videos[:-1]])
    begin = self.protocol.first_scored
    kept["apart"] = prediction.square_difference(videos[:, begin:], previous[:, begin:])
    kept["error"] = prediction.square_difference(videos[:, begin:], true[:, begin:])
    shown = videos[first & (which[:, 0] < SHOWN)]
    return kept | {"which": which, "shown": shown, "last": videos[-1:]}

  @functools.cached_property
  def _back(self) -> np.ndarray:
    """Returns `since_it_came_back` of the scored frames, (n, f - first_scored)."""
    return since_it_came_back(self.real[:, self.protocol.first_scored :])

  def _features(
    self, features: Callable[[np.ndarray], np.ndarray], videos: np.ndarray, true: np.ndarray
  ) -> np.ndarray:
    clips = prediction.compared(videos, true, self.protocol)
    # Every chunk has the same number of clips, so that the detector is compiled once.
    each = self.protocol.trajectories if self.protocol.fvd_trajectories == "first" else 1
    most = -(-self.size // each)
    padded = np.concatenate([clips, np.repeat(clips[-1:], max(most - len(clips), 0), axis=0)])
    return features(padded)[: len(clips)]


class Kept:
  """The chunks that an unfinished evaluation has measured so far, each in a file."""

  def __init__(self, folder: pathlib.Path, name: str, identity: Mapping[str, Any]):
    """`identity` holds all that the numbers depend on; chunks with another identity are ignored."""
    text = json.dumps(identity, sort_keys=True)
    self.folder = folder / f".{name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"

  def read(self) -> Iterator[Arrays]:
    """Yields the chunks from the first one up to a missing or damaged one."""
    begin = 0
    while (file := self._file(begin)).is_file():
      try:
        with file.open("rb") as opened, np.load(opened) as saved:
          chunk = dict(saved)
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return
      yield chunk
      begin += len(chunk["which"])

  def write(self, begin: int, chunk: Arrays) -> None:
    """Writes a chunk whose first trajectory is the `begin`th; atomically."""
    file = self._file(begin)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_files.written(file) as half:
      arrays: dict[str, Any] = dict(chunk)  # savez has settings of its own beside the arrays
      np.savez(half, **arrays)

  def remove(self) -> None:
    """Removes the chunks, once the evaluation is complete; called on the first host."""
    with contextlib.suppress(OSError):
      storage.rmtree(self.folder)

  def _file(self, begin: int) -> pathlib.Path:
    return self.folder / f"{begin:08d}.npz"


@dataclasses.dataclass(frozen=True)
class Measured:
  """The measurements of a whole set of n videos with N trajectories each.

  Attributes:
    frames: name -> (n, N, f - first_scored), `prediction.frame_scores`.
    scores: name -> (n, N), `prediction.trajectory_scores`.
    apart: (n, N - 1, f - first_scored), `prediction.square_difference` of a video's successive
      trajectories.
    error: (n, N, f - first_scored), the same between each trajectory and the true video.
    features: (T, n, d), features of the T trajectories that count in FVD; None without FVD.
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
    draw: number of trajectories to skip -> chunks of the rest, as `Pipeline.predict_chunks`.
    judge: measures the chunks.
    kept: store of measured chunks, including those of an earlier, unfinished run; None keeps none.
  """
  chunks, last, begin = [], None, 0
  # The first host says what is kept, so that all draw the same chunks.
  until = hosts.decide(lambda: sum(1 for _ in kept.read())) if kept else 0
  for chunk in itertools.islice(kept.read(), until) if kept else ():
    last = chunk.pop("last")  # kept for all chunks, they would fill the memory
    chunks.append(chunk)
    begin += len(chunk["which"])
  if kept is not None and begin:
    logging.info("Resuming after %d measured trajectories (%s).", begin, kept.folder)
  share = dataclasses.replace(judge, size=-(-judge.size // shares.parts()))
  for which, videos in draw(begin):
    chunk = _judged(share, which, videos, last)
    if kept:
      hosts.decide(functools.partial(kept.write, begin, chunk))
    last = chunk.pop("last")
    chunks.append(chunk)
    begin += len(which)
  return _whole(chunks, len(judge.real))


def _judged(judge: Judge, which: np.ndarray, videos: np.ndarray, last: np.ndarray | None) -> Arrays:
  """Measures a chunk, of which each host measures its share; the judge is for shares."""

  def measured(rows: slice) -> Arrays:
    before = videos[rows.start - 1 : rows.start] if rows.start else last
    return judge(which[rows], videos[rows], before)

  parts = shares.split(measured, len(which))
  names = dict.fromkeys(name for part in parts for name in part)
  found = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
  return found | {"last": parts[-1]["last"]}


def one_of_each(
  judge: Judge, predict: Callable[[np.ndarray], np.ndarray], begin: int = 0
) -> Chunks:
  """Yields whole videos (b, f, h, w, c) that `predict` makes of the true ones, one of each."""
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
  # A video's first trajectory has none before it.
  apart, error = (found[n].reshape(num_videos, -1, found[n].shape[-1]) for n in ("apart", "error"))
  shown = found["shown"]
  return Measured(group("frames/"), group("scores/"), apart[:, 1:], error, features, shown)
