"""Baselines for reading a score: degraded copies of real clips, and trivial predictions.

Videos are uint8 (..., f, h, w, c), and results have the argument's shape and dtype.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage


def shuffled_frames(video: np.ndarray, seed: int | np.random.Generator) -> np.ndarray:
  """Shuffles the frames of each clip separately: right pictures, wrong motion.

  If one generator is passed to several calls, they shuffle as one call would.
  """
  clips = video.reshape(-1, *video.shape[-4:])
  rng = np.random.default_rng(seed)
  return np.stack([rng.permutation(clip) for clip in clips]).reshape(video.shape)


def frozen_first_frame(video: np.ndarray) -> np.ndarray:
  """Repeats the clip's first frame: right pictures, no motion."""
  return _frames(video, np.zeros(video.shape[-4], int))


def blurred(video: np.ndarray, sigma: float = 1.0) -> np.ndarray:
  """Blurs each frame by a Gaussian of `sigma` pixels: right motion, soft pictures."""
  sigmas = (0,) * (video.ndim - 3) + (sigma, sigma, 0)
  return _to_uint8(ndimage.gaussian_filter(video.astype(np.float32), sigmas))


def black(video: np.ndarray) -> np.ndarray:
  """Returns black frames, which PSNR rewards on dark data."""
  return np.zeros_like(video)


def mean_frame(video: np.ndarray) -> np.ndarray:
  """Repeats the clip's mean over time, the constant picture with the best PSNR."""
  mean = _to_uint8(video.mean(axis=-4, keepdims=True))
  return np.broadcast_to(mean, video.shape).copy()


def nearest_keyframe(video: np.ndarray, keyframe_indices: Sequence[int] | np.ndarray) -> np.ndarray:
  """Copies to every frame the true keyframe nearest in time, the earlier of two equally near."""
  keys = _sorted_keys(video, keyframe_indices)
  distance = np.abs(np.arange(video.shape[-4])[:, None] - keys)
  return _frames(video, keys[distance.argmin(axis=1)])


def crossfaded_keyframes(
  video: np.ndarray, keyframe_indices: Sequence[int] | np.ndarray
) -> np.ndarray:
  """Blends linearly in time between the true keyframes around every frame."""
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
  """Finds the training clip nearest to each query in mean squared pixel distance.

  Args:
    queries: uint8 (n, f, h, w, c), such as generated clips.
    bank: m training clips, uint8 (f, h, w, c) each; only one is in memory at a time.

  Returns:
    (n,) indices into `bank`, the first of equally near clips; and (n,) float64, their distances:
    the root of the mean squared difference, in levels of 255.

  Raises:
    ValueError: the bank is empty, or its clips have another shape than the queries.
  """
  flat = queries.reshape(len(queries), -1).astype(np.float64)
  distances = []
  for clip in bank:
    if clip.shape != queries.shape[1:]:
      raise ValueError(
        f"Queries and bank must hold clips of one shape, not {queries.shape[1:]} and {clip.shape}."
      )
    # |q - b|^2 without |q|^2, which is the same for all clips; sums of 8-bit products are exact.
    b = clip.ravel().astype(np.float64)
    distances.append(b @ b - 2 * flat @ b)
  if not distances:
    raise ValueError("There is no training clip to compare with.")
  squares = np.min(distances, axis=0) + np.square(flat).sum(axis=1)
  return np.argmin(distances, axis=0), np.sqrt(squares / flat.shape[1])


def _frames(video: np.ndarray, indices: np.ndarray) -> np.ndarray:
  return np.take(video, indices, axis=-4)


def _sorted_keys(video: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
  keys = np.unique(indices)
  if not len(keys) or keys[0] < 0 or keys[-1] >= video.shape[-4]:
    raise ValueError(f"Keyframe indices must lie in 0..{video.shape[-4] - 1}, not {list(indices)}.")
  return keys


def _to_uint8(x: np.ndarray) -> np.ndarray:
  return np.rint(x).clip(0, 255).astype(np.uint8)
