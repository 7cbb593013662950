"""Reads the digit in a clip's frames: is it the right one, and the same in all frames?

A reader is a support vector machine on histograms of gradient directions (Dalal and Triggs 2005)
around the digit's centroid. It is fitted in seconds on frames of the training split, so that it
suits the clips' size and need not be stored. On frames of unseen digits it is right 98 times in
100 (tests/metrics/digit_reader_test.py).
"""

import dataclasses
import importlib.util
from typing import Any

import chex
import numpy as np

from videodiff_jax.metrics import motion

_SIDE = 16  # pixels; side of a digit's crop, which is half a frame
_DIRECTIONS = 8
_CELL = 4  # pixels; side of a cell of the crop; a cell begins at every second pixel
_PENALTY = 5.0
# A frame with less than this fraction of training frames' mean light has no digit to read: the
# digit is hidden, or outside the frame.
_VISIBLE = 0.25
# Fractions of the most light in any frame of a clip.
_GONE, _WHOLE = 0.05, 0.9


@dataclasses.dataclass(frozen=True)
class Readings:
  """The digits read in the frames of n clips.

  Attributes:
    digits: int (n, f), the class read in each frame; -1 in a frame without a digit.
    clips: int (n,), the class read in most frames of a clip; -1 where no frame has a digit.
  """

  digits: np.ndarray
  clips: np.ndarray

  def figures(self, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Computes the figures of each clip; their means over clips are reported.

    Args:
      labels: (n,) the right classes; None leaves 'frames_right' and 'clip_right' out.

    Returns:
      name -> (n,) float64: 'visible', the fraction of frames that show a digit; and of these
      frames, 'agreement', the fraction with the clip's most frequent class, and 'frames_right', the
      fraction with the label. 'clip_right' is 1 if the most frequent class is the label, else 0. A
      clip without a digit is 0 in all.
    """
    seen = self.digits >= 0
    count = seen.sum(axis=1)
    agree = ((self.digits == self.clips[:, None]) & seen).sum(axis=1)
    shares = {"visible": seen.mean(axis=1), "agreement": agree / np.maximum(count, 1)}
    if labels is not None:
      right = ((self.digits == labels[:, None]) & seen).sum(axis=1)
      shares["frames_right"] = right / np.maximum(count, 1)
      shares["clip_right"] = (self.clips == labels).astype(np.float64)
    return shares


@dataclasses.dataclass(frozen=True)
class DigitReader:
  """A fitted reader, made by `fit`.

  Attributes:
    classifier: a fitted scikit-learn classifier of `_describe`'s vectors.
    least_light: summed brightness below which a frame has no digit.
  """

  classifier: Any
  least_light: float

  def sees(self, clips: np.ndarray) -> np.ndarray:
    """Tells (n, f) which frames of uint8 clips (n, f, h, w, c) have enough light for a digit."""
    light = _light(clips.reshape(-1, *clips.shape[2:]))
    return (light >= self.least_light).reshape(clips.shape[:2])

  def read(self, clips: np.ndarray) -> Readings:
    """Reads uint8 clips (n, f, h, w, c) of one bright digit each, with the fitted frames' size."""
    chex.assert_rank(clips, 5)
    frames = clips.reshape(-1, *clips.shape[2:])
    digits = np.full(len(frames), -1)
    seen = self.sees(clips).ravel()
    if seen.any():
      digits[seen] = self.classifier.predict(_describe(frames[seen]))
    of_clips = digits.reshape(clips.shape[:2])
    most = [np.bincount(row[row >= 0]).argmax() if (row >= 0).any() else -1 for row in of_clips]
    return Readings(of_clips, np.array(most))


def since_it_came_back(clips: np.ndarray) -> np.ndarray:
  """Finds the frames that show the digit whole again after it was out of sight.

  Args:
    clips: uint8 (n, f, h, w, c).

  Returns:
    bool (n, f): after the first nearly black frame, those frames with nearly as much light as the
    clip's brightest; none in a clip whose digit is always visible.
  """
  light = clips.sum(axis=(2, 3, 4), dtype=np.float64)
  light /= np.maximum(light.max(axis=1, keepdims=True), 1)
  return np.logical_or.accumulate(light < _GONE, axis=1) & (light > _WHOLE)


def check_installed() -> None:
  """Checks that scikit-learn is installed, without importing it.

  Raises:
    ModuleNotFoundError: it is not; the message says what to install.
  """
  if importlib.util.find_spec("sklearn") is None:
    raise ModuleNotFoundError(
      'Digits are read by scikit-learn, which is not installed: pip install -e ".[metrics]".'
    )


def fit(frames: np.ndarray, labels: np.ndarray) -> DigitReader:
  """Fits a reader of frames like these.

  Args:
    frames: uint8 (n, h, w, c), with one bright digit on black each.
    labels: int (n,), the digits' classes, 0 or more.

  Raises:
    ModuleNotFoundError: scikit-learn is missing.
    ValueError: there are fewer than two classes, or the frames' side is no multiple of 32.
  """
  chex.assert_rank(frames, 4)
  chex.assert_type([frames, labels], [np.uint8, int])
  chex.assert_shape(labels, (len(frames),))
  check_installed()
  from sklearn import svm

  if len(np.unique(labels)) < 2:
    raise ValueError("A digit reader needs frames of two classes or more.")
  light = _light(frames)
  least = _VISIBLE * float(light.mean())
  seen = light >= least
  classifier = svm.SVC(C=_PENALTY, gamma="scale")
  return DigitReader(classifier.fit(_describe(frames[seen]), labels[seen]), least)


def _light(frames: np.ndarray) -> np.ndarray:
  return frames.sum(axis=(1, 2, 3), dtype=np.float64)


def _describe(frames: np.ndarray) -> np.ndarray:
  """Describes uint8 frames (n, h, w, c) by edge strengths per place and direction, (n, 392)."""
  scale, rest = divmod(frames.shape[1], 2 * _SIDE)
  if rest or not scale:
    raise ValueError(f"Digits are read in frames of 32 pixels or a multiple, not {frames.shape}.")
  grey = frames.mean(axis=-1, keepdims=True) / 255
  centres = motion.centroid(frames[:, None])[:, 0]
  crops = [motion.crop(frame, at, _SIDE * scale) for frame, at in zip(grey, centres)]
  shrunk = np.stack(crops).reshape(len(frames), _SIDE, scale, _SIDE, scale).mean(axis=(2, 4))

  dy, dx = np.gradient(shrunk, axis=(1, 2))
  direction = np.arctan2(dy, dx) % (2 * np.pi) / (2 * np.pi) * _DIRECTIONS
  # Each pixel's edge is divided between the two nearest directions.
  distance = np.abs(direction[..., None] - np.arange(_DIRECTIONS))
  distance = np.minimum(distance, _DIRECTIONS - distance)
  maps = np.hypot(dy, dx)[..., None] * np.maximum(1 - distance, 0)
  cells = np.lib.stride_tricks.sliding_window_view(maps, (_CELL, _CELL), axis=(1, 2))
  sums = cells[:, ::2, ::2].sum(axis=(-2, -1)).reshape(len(frames), -1)
  return np.sqrt(sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-6))
