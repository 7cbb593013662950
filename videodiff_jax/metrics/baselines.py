"""What a score is read against: degraded copies of real clips, and trivial predictions of them.

Videos are uint8 (..., f, h, w, c), and results have the argument's shape and dtype.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def shuffled_frames(video: np.ndarray, seed: int) -> np.ndarray:
  """The frames of each clip in a random order of its own: right pictures, wrong motion."""
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


def nearest_neighbours(queries: np.ndarray, bank: np.ndarray, chunk: int = 256) -> np.ndarray:
  """The training clip nearest to each query in mean squared pixel distance.

  Args:
    queries: uint8 (n, f, h, w, c), such as generated clips.
    bank: uint8 (m, f, h, w, c), the training clips.
    chunk: Clips of the bank held as floats at a time.

  Returns:
    (n,) indices into `bank`, the first one of equals.
  """
  if queries.shape[1:] != bank.shape[1:] or not len(bank):
    raise ValueError(
      f"Queries and bank must hold clips of one shape, got {queries.shape} and {bank.shape}."
    )
  flat = queries.reshape(len(queries), -1).astype(np.float64)
  distances = []
  for start in range(0, len(bank), chunk):
    part = bank[start : start + chunk].reshape(-1, flat.shape[1]).astype(np.float64)
    # |q - b|^2 without |q|^2, which is the same for all; sums of 8-bit products are exact.
    distances.append(np.einsum("md,md->m", part, part) - 2 * flat @ part.T)
  return np.concatenate(distances, axis=1).argmin(axis=1)


def _frames(video: np.ndarray, indices: np.ndarray) -> np.ndarray:
  return np.take(video, indices, axis=-4)


def _sorted_keys(video: np.ndarray, indices: Sequence[int]) -> np.ndarray:
  keys = np.unique(indices)
  if not len(keys) or keys[0] < 0 or keys[-1] >= video.shape[-4]:
    raise ValueError(f"Keyframe indices must lie in 0..{video.shape[-4] - 1}, got {list(indices)}.")
  return keys


def _to_uint8(x: np.ndarray) -> np.ndarray:
  return np.rint(x).clip(0, 255).astype(np.uint8)
