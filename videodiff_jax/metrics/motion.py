"""Measures how one bright object on black moves, which PSNR and FVD hardly see on such data."""

import chex
import numpy as np


def centroid(video: np.ndarray) -> np.ndarray:
  """Computes the mean pixel position weighted by brightness (channels summed).

  Args:
    video: uint8 (..., f, h, w, c).

  Returns:
    (..., f, 2) float64 (y, x) in pixels; (0, 0) is the centre of the top left pixel. A black
    frame's centroid is its middle.
  """
  if video.dtype != np.uint8 or video.ndim < 4:
    raise ValueError(
      f"Motion is measured on uint8 (..., f, h, w, c), not {video.dtype} {video.shape}."
    )
  light = video.sum(axis=-1, dtype=np.float64)
  total = light.sum(axis=(-2, -1))
  light = np.where(total[..., None, None] > 0, light, 1.0)
  total = light.sum(axis=(-2, -1))
  y = light.sum(axis=-1) @ np.arange(light.shape[-2]) / total
  x = light.sum(axis=-2) @ np.arange(light.shape[-1]) / total
  return np.stack([y, x], axis=-1)


def position_error(recon: np.ndarray, true: np.ndarray) -> float:
  """Returns the mean distance in pixels between the centroids of two uint8 videos' frames."""
  chex.assert_equal_shape([recon, true])
  return float(np.linalg.norm(centroid(recon) - centroid(true), axis=-1).mean())


def jitter(video: np.ndarray) -> float:
  """Returns the mean length, in pixels, of the centroid's second difference: 0 if steady.

  Args:
    video: uint8 (..., f, h, w, c), f >= 3.
  """
  if video.shape[-4] < 3:
    raise ValueError(f"Jitter needs 3 frames or more, not {video.shape[-4]}.")
  return float(np.linalg.norm(np.diff(centroid(video), n=2, axis=-2), axis=-1).mean())


def velocity(video: np.ndarray) -> np.ndarray:
  """Returns the centroid's least-squares velocity (..., 2), y and x, in pixels per frame.

  Args:
    video: uint8 (..., f, h, w, c), f >= 2.
  """
  path = centroid(video)
  if path.shape[-2] < 2:
    raise ValueError(f"A velocity needs 2 frames or more, not {path.shape[-2]}.")
  time = np.arange(path.shape[-2]) - (path.shape[-2] - 1) / 2
  return np.einsum("f,...fc->...c", time, path) / np.square(time).sum()


def half_index_slope(at_integer: np.ndarray, at_half: np.ndarray, true: np.ndarray) -> float:
  """Tests whether a frame drawn at j + 1/2 lies half a step on: 1 if so, 0 if it copies frame j.

  It is the least-squares slope (with intercept) of d on d*, over all clips, j = 0 .. f - 2 and both
  coordinates, with d = at_half[j] - at_integer[j] and d* = (true[j + 1] - true[j]) / 2, half the
  true step.

  Args:
    at_integer: (..., f, 2) centroids of frames drawn at the indices 0 .. f - 1.
    at_half: (..., f - 1, 2) centroids of frames drawn at 1/2 .. f - 3/2, from the same noise.
    true: (..., f, 2) centroids of the true video at 0 .. f - 1.

  Raises:
    ValueError: the shapes do not match, or the true videos do not move.
  """
  if at_integer.shape != true.shape or at_half.shape[-2] != true.shape[-2] - 1:
    raise ValueError(
      "The slope needs f frames at integers, f - 1 at halves and f true frames, not "
      f"{at_integer.shape}, {at_half.shape} and {true.shape}."
    )
  drawn = at_half - at_integer[..., :-1, :]
  expected = np.diff(true, axis=-2) / 2
  deviation = expected - expected.mean()
  if not deviation.any():
    raise ValueError("The true videos do not move, so there is no displacement to regress on.")
  return float((deviation * drawn).sum() / (deviation**2).sum())


def identity_flicker(video: np.ndarray) -> float:
  """Measures how much the object changes its appearance over time, apart from its motion.

  Each frame is shifted (bilinear, black outside) so that its centroid is the centre of a square
  crop of half the frame's height. The standard deviation of each crop pixel over time, in [0, 1]
  units, is averaged over pixels, channels and clips. Resampling at different sub-pixel positions
  alone gives some flicker: compare with the real videos' figure.

  Args:
    video: uint8 (..., f, h, w, c).
  """
  centres = centroid(video).reshape(-1, 2)
  frames = video.reshape(-1, *video.shape[-3:])
  size = video.shape[-3] // 2
  crops = np.stack([crop(frame, at, size) for frame, at in zip(frames, centres)]) / 255
  return float(crops.reshape(-1, video.shape[-4], *crops.shape[1:]).std(axis=1).mean())


def crop(frame: np.ndarray, centre: np.ndarray, size: int) -> np.ndarray:
  """Crops (h, w, c) to (size, size, c) float64 around `centre` (y, x), bilinear, black outside."""
  corner = centre - (size - 1) / 2 + size  # in the padded frame
  whole = np.floor(corner).astype(int)
  y, x = corner - whole
  padded = np.pad(frame.astype(np.float64), ((size, size + 1), (size, size + 1), (0, 0)))
  patch = padded[whole[0] : whole[0] + size + 1, whole[1] : whole[1] + size + 1]
  patch = (1 - y) * patch[:-1] + y * patch[1:]
  return (1 - x) * patch[:, :-1] + x * patch[:, 1:]
