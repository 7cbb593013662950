"""PSNR and SSIM of 8-bit frames, equal to scikit-image's."""

import numpy as np

_WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_WINDOW /= _WINDOW.sum()
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio of each frame in dB: 10 log10(255^2 / mean squared error).

  Args:
    a: uint8 (..., h, w, c).
    b: As `a`.

  Returns:
    (...) float64; inf for equal frames.
  """
  _check(a, b)
  error = np.mean((a.astype(np.float64) - b) ** 2, axis=(-3, -2, -1))
  with np.errstate(divide="ignore"):
    return 10 * np.log10(255**2 / error)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Structural similarity of each frame (Wang et al., 2004): mean over windows and channels.

  An 11x11 Gaussian window, sigma 1.5, wholly inside the frame; population covariance.
  scikit-image calls it `gaussian_weights=True, use_sample_covariance=False, sigma=1.5`.

  Args:
    a: uint8 (..., h, w, c), h and w 11 or more.
    b: As `a`.

  Returns:
    (...) float64 in [-1, 1], 1 for equal frames.
  """
  _check(a, b)
  if min(a.shape[-3:-1]) < len(_WINDOW):
    raise ValueError(f"SSIM needs frames of 11 pixels a side or more, got {a.shape[-3:-1]}.")
  lead = a.shape[:-3]
  a, b = a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])
  # Frame by frame: the five float64 maps of a whole set would not fit in memory.
  return np.array([_ssim_map(*pair).mean() for pair in zip(a, b)]).reshape(lead)


def _ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  a, b = a.astype(np.float64), b.astype(np.float64)
  mean_a, mean_b = _smooth(a), _smooth(b)
  var_a, var_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
  cov = _smooth(a * b) - mean_a * mean_b
  luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
  return luminance * (2 * cov + _C2) / (var_a + var_b + _C2)


def _smooth(x: np.ndarray) -> np.ndarray:
  """(h, w, c) -> (h - 10, w - 10, c): Gaussian means of the windows inside the frame."""
  for axis in (0, 1):
    windows = np.lib.stride_tricks.sliding_window_view(x, len(_WINDOW), axis)
    x = sum(weight * windows[..., i] for i, weight in enumerate(_WINDOW))
  return x


def _check(a: np.ndarray, b: np.ndarray) -> None:
  if a.shape != b.shape or a.ndim < 3:
    raise ValueError(f"Frames to compare must have one shape (..., h, w, c): {a.shape}, {b.shape}.")
  if a.dtype != np.uint8 or b.dtype != np.uint8:
    raise ValueError(f"PSNR and SSIM compare uint8 frames in 0..255, got {a.dtype} and {b.dtype}.")
