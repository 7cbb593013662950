"""What a score is read against: degraded copies of real clips, and trivial predictions of them.

Videos are uint8 (..., f, h, w, c), and results have the argument's shape and dtype.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage


def shuffled_frames(video: np.ndarray, seed: int | np.random.Generator) -> np.ndarray:
  """The frames of each clip in a random order of its own: right pictures, wrong motion.

  Clips that come in several calls are shuffled as in one by a generator that all are given.
  """
  clips = video.reshape(-1, *video.shape[-4:])
  rng = np.random.default_rng(seed)
  return np.stack([rng.permutation(clip) for clip in clips]).reshape(video.shape)


def frozen_first_frame(video: np.ndarray) -> np.ndarray:
  """Every frame is the clip's first: right pictures, no motion."""
  return _frames(video, np.zeros(video.shape[-4], int))


def blurred(video: np.ndarray, sigma: float = 1.0) -> np.ndarray:
  """Each frame under a Gaussian of `sigma` pixels: right motion, soft pictures."""
  sigmas = (0,) * (video.ndim - 3) + (sigma, sigma, 0)
  return _to_uint8(ndimage.gaussian_filter(video.astype(np.float32), sigmas))


def black(video: np.ndarray) -> np.ndarray:
  """Nothing at all: what PSNR gives away on dark data."""
  return np.zeros_like(video)


def mean_frame(video: np.ndarray) -> np.ndarray:
  """Every frame is the clip's mean over time: of constant pictures the one of best PSNR."""
  mean = _to_uint8(video.mean(axis=-4, keepdims=True))
  return np.broadcast_to(mean, video.shape).copy()


def nearest_keyframe(video: np.ndarray, keyframe_indices: Sequence[int]) -> np.ndarray:
  """Every frame is a copy of the true keyframe nearest in time, the earlier one of two."""
  keys = _sorted_keys(video, keyframe_indices)
  distance = np.abs(np.arange(video.shape[-4])[:, None] - keys)
  return _frames(video, keys[distance.argmin(axis=1)])


def crossfaded_keyframes(video: np.ndarray, keyframe_indices: Sequence[int]) -> np.ndarray:
  """Every frame is a linear blend in time of the true keyframes around it."""
  keys = _sorted_keys(video, keyframe_indices)
  index = np.arange(video.shape[-4])
  left = keys[np.searchsorted(keys, index, "right").clip(1) - 1]
  right = keys[np.searchsorted(keys, index).clip(max=len(keys) - 1)]
  weight = np.where(right > left, (index - left) / np.maximum(right - left, 1), 0.0)
  weight = weight[:, None, None, None]
  return _to_uint8((1 - weight) * _frames(video, left) + weight * _frames(video, right))


def nearest_neighbours(
  queries: np.ndarray, bank: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  """The training clip nearest to each query in mean squared pixel distance.

  Args:
    queries: uint8 (n, f, h, w, c), such as generated clips.
    bank: m training clips, uint8 (f, h, w, c) each; held one at a time.

  Returns:
    (n,) indices into `bank`, the first one of equals; (n,) float64, how far these are: the root of
    the mean squared difference, in levels of 255.
  """
  flat = queries.reshape(len(queries), -1).astype(np.float64)
  distances = []
  for clip in bank:
    if clip.shape != queries.shape[1:]:
      raise ValueError(
        f"Queries and bank must hold clips of one shape, got {queries.shape[1:]} and {clip.shape}."
      )
    # |q - b|^2 without |q|^2, which is the same for all; sums of 8-bit products are exact.
    one = clip.ravel().astype(np.float64)
    distances.append(one @ one - 2 * flat @ one)
  if not distances:
    raise ValueError("There is no training clip to search.")
  squares = np.min(distances, axis=0) + np.square(flat).sum(axis=1)
  return np.argmin(distances, axis=0), np.sqrt(squares / flat.shape[1])


def _frames(video: np.ndarray, indices: np.ndarray) -> np.ndarray:
  return np.take(video, indices, axis=-4)


def _sorted_keys(video: np.ndarray, indices: Sequence[int]) -> np.ndarray:
  keys = np.unique(indices)
  if not len(keys) or keys[0] < 0 or keys[-1] >= video.shape[-4]:
    raise ValueError(f"Keyframe indices must lie in 0..{video.shape[-4] - 1}, got {list(indices)}.")
  return keys


def _to_uint8(x: np.ndarray) -> np.ndarray:
  return np.rint(x).clip(0, 255).astype(np.uint8)
