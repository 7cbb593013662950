"""PSNR and SSIM of frames, equal to scikit-image's, and the energy of their edges."""

import numpy as np

from videodiff_jax.choices import check_choice


def _gaussian_window() -> np.ndarray:
  weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
  return weights / weights.sum()


_MARGIN = 1e-3
# A window's weights along one axis, and the factor that gives the wanted kind of covariance.
_WINDOWS = {"gaussian": (_gaussian_window(), 1.0), "uniform": (np.full(7, 1 / 7), 49 / 48)}


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes each frame's peak signal-to-noise ratio in dB: 10 log10(peak^2 / mean squared error).

  Args:
    a: (..., h, w, c), uint8 (peak 255) or float in [0, 1] (peak 1).
    b: like `a`.

  Returns:
    (...) float64; inf for equal frames.
  """
  return _decibels(a, b, (-3, -2, -1))


def video_psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes each video's PSNR in dB from the mean squared error over all its frames, as MCVD does.

  The mean of `psnr` over frames, which LGC-VD's release uses, is never below it.

  Args:
    a: (..., f, h, w, c), uint8 (peak 255) or float in [0, 1] (peak 1).
    b: like `a`.

  Returns:
    (...) float64; inf for equal videos.
  """
  return _decibels(a, b, (-4, -3, -2, -1))


def gradient_energy(x: np.ndarray) -> np.ndarray:
  """Computes the mean squared difference of neighbouring pixels, which blurring reduces.

  Divided by that of real frames it gives a set's sharpness: 1 if real, less if blurred.

  Args:
    x: uint8 (..., h, w, c).

  Returns:
    (...) float64, for intensities in [0, 1], summed over both directions.
  """
  if x.dtype != np.uint8 or x.ndim < 3:
    raise ValueError(f"Edges are measured in uint8 (..., h, w, c), not {x.dtype} {x.shape}.")
  floats = x.astype(np.float32) / 255
  down, across = (
    np.square(np.diff(floats, axis=axis)).mean(axis=(-3, -2, -1)) for axis in (-3, -2)
  )
  return (down + across).astype(np.float64)


def ssim(a: np.ndarray, b: np.ndarray, window: str = "gaussian") -> np.ndarray:
  """Computes each frame's structural similarity (Wang et al., 2004), a mean over windows, channels.

  Windows lie entirely inside the frame. 'gaussian' is 11x11 with sigma 1.5 and population
  covariance: scikit-image's `gaussian_weights=True, use_sample_covariance=False, sigma=1.5`, and
  MCVD's (of grey frames). 'uniform' is 7x7 with sample covariance: scikit-image's default, and
  LGC-VD's release.

  Args:
    a: (..., h, w, c), uint8 in 0..255 or float in [0, 1]; h and w at least the window's side.
    b: like `a`.
    window: 'gaussian' or 'uniform'.

  Returns:
    (...) float64 in [-1, 1], 1 for equal frames.

  Raises:
    ValueError: the window is unknown, or the frames are too small or cannot be compared.
  """
  check_choice("window", window, _WINDOWS)
  peak = _peak(a, b, 3)
  weights, bessel = _WINDOWS[window]
  if min(a.shape[-3:-1]) < len(weights):
    raise ValueError(
      f"SSIM needs frames of {len(weights)} pixels per side or more, not {a.shape[-3:-1]}."
    )
  lead = a.shape[:-3]
  a, b = a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])
  # Frame by frame: the five float64 maps of a whole set would not fit in memory.
  means = [_ssim_map(x, y, peak, weights, bessel).mean() for x, y in zip(a, b)]
  return np.array(means).reshape(lead)


def _decibels(a: np.ndarray, b: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
  peak = _peak(a, b, len(axes))
  error = np.mean((a.astype(np.float64) - b) ** 2, axis=axes)
  with np.errstate(divide="ignore"):
    return 10 * np.log10(peak**2 / error)


def _ssim_map(
  a: np.ndarray, b: np.ndarray, peak: float, weights: np.ndarray, bessel: float
) -> np.ndarray:
  a, b = a.astype(np.float64), b.astype(np.float64)
  c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
  mean_a, mean_b, square_a, square_b, product = (
    _smooth(x, weights) for x in (a, b, a * a, b * b, a * b)
  )
  var_a, var_b = bessel * (square_a - mean_a**2), bessel * (square_b - mean_b**2)
  cov = bessel * (product - mean_a * mean_b)
  luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  return luminance * (2 * cov + c2) / (var_a + var_b + c2)


def _smooth(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Averages the windows inside a frame: (h, w, c) -> (h - n + 1, w - n + 1, c)."""
  for axis in (0, 1):
    windows = np.lib.stride_tricks.sliding_window_view(x, len(weights), axis)
    x = sum(weight * windows[..., i] for i, weight in enumerate(weights))
  return x


def _peak(a: np.ndarray, b: np.ndarray, ndim: int) -> float:
  """Returns the peak value of two arrays, 255 for bytes and 1 for floats, or raises ValueError."""
  if a.shape != b.shape or a.ndim < ndim:
    layout = "(..., h, w, c)" if ndim == 3 else "(..., f, h, w, c)"
    raise ValueError(f"Frames must have one shape {layout}, not {a.shape} and {b.shape}.")
  if a.dtype == b.dtype == np.uint8:
    return 255.0
  if all(np.issubdtype(x.dtype, np.floating) for x in (a, b)):
    # The margin allows for the overshoot of resizing in float32.
    if a.size and (min(a.min(), b.min()) < -_MARGIN or max(a.max(), b.max()) > 1 + _MARGIN):
      raise ValueError(
        f"PSNR and SSIM of floats need frames in [0, 1], not in "
        f"[{min(a.min(), b.min()):.4g}, {max(a.max(), b.max()):.4g}]."
      )
    return 1.0
  raise ValueError(
    f"PSNR and SSIM compare uint8 frames in 0..255 or floats in [0, 1], not {a.dtype} and "
    f"{b.dtype}."
  )
