"""Scores predicted videos against the true ones, by a protocol."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.chunks import in_chunks
from videodiff_jax.metrics import frechet, images, lpips, motion
from videodiff_jax.metrics.protocols import PredictionProtocol

_MOST = 60.0  # dB; the PSNR of an exact copy is infinite
_CHUNK = 64  # pairs of frames that LPIPS compares in one compiled call
_RELEASED_FILE = 10  # trajectories per file in LGC-VD's release
_RELEASED_GROUP = 10  # files per group in which it takes the best

Scores = dict[str, np.ndarray]


def frame_scores(
  drawn: np.ndarray,
  true: np.ndarray,
  protocol: PredictionProtocol,
  lpips_params: dict[str, Any] | None = None,
  with_motion: bool = False,
) -> Scores:
  """Scores every frame that the protocol scores, of every trajectory.

  Args:
    drawn: (n, N, f, h, w, c) uint8, whole videos.
    true: (n, f, h, w, c) uint8.
    protocol: the frames to score, and how.
    lpips_params: from `lpips.load_params`; None leaves LPIPS out.
    with_motion: adds 'position_error', for one bright object on black.

  Returns:
    name -> (n, N, f - first_scored) float64: 'psnr' in dB (at most 60), 'ssim', 'lpips',
    'brightness' (mean over pixels, 0..255), 'edges' (`images.gradient_energy`), 'position_error'
    in pixels and, where the protocol has it, 'mse' summed over pixels in [0, 1].
  """
  chex.assert_rank([drawn, true], [6, 5])
  chex.assert_type([drawn, true], np.uint8)
  dims = chex.Dimensions()
  dims["NTFHWC"] = drawn.shape
  chex.assert_shape(true, dims["NFHWC"])
  first = protocol.first_scored
  rows = []
  # Video by video: float64 copies of a whole set would not fit in memory.
  for trajectories, truth in zip(drawn[:, :, first:], true[:, first:]):
    repeated = np.broadcast_to(truth, trajectories.shape)
    grey, grey_true = (_grey(frames, protocol) for frames in (trajectories, repeated))
    row = {
      "psnr": np.minimum(images.psnr(trajectories, repeated), _MOST),
      "ssim": images.ssim(grey, grey_true, protocol.ssim_window),
      "brightness": trajectories.mean(axis=(-3, -2, -1)),
      "edges": images.gradient_energy(trajectories),
    }
    if protocol.mse:
      difference = (trajectories.astype(np.float64) - truth) / 255
      row["mse"] = np.square(difference).sum(axis=(-3, -2, -1))
    if lpips_params is not None:
      row["lpips"] = _lpips(trajectories, repeated, protocol, lpips_params)
    if with_motion:
      apart = motion.centroid(trajectories) - motion.centroid(repeated)
      row["position_error"] = np.linalg.norm(apart, axis=-1)
    rows.append(row)
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def trajectory_scores(
  frames: Scores, drawn: np.ndarray, true: np.ndarray, protocol: PredictionProtocol
) -> Scores:
  """Averages frame scores to one figure per trajectory.

  Args:
    frames: `frame_scores` of the same videos.
    drawn: as in `frame_scores`.
    true: as in `frame_scores`.
    protocol: as in `frame_scores`.

  Returns:
    name -> (n, N), the means over frames. Differences in levels of 255 replace 'brightness':
    'brightness_shift' (drawn minus true, mean over frames), 'brightness_shift_last' (of the last
    frame) and 'brightness_error' (mean absolute shift). 'sharpness' replaces 'edges': their mean
    divided by the true video's, 1 if right, less if blurred.
  """
  first = protocol.first_scored
  absolute = ("brightness", "edges")
  shift = frames["brightness"] - true[:, None, first:].mean(axis=(-3, -2, -1))
  scores = {name: values.mean(axis=-1) for name, values in frames.items() if name not in absolute}
  edges = images.gradient_energy(true[:, first:]).mean(axis=-1)
  if protocol.psnr == "video":
    pairs = zip(drawn[:, :, first:], true[:, first:])
    rows = [images.video_psnr(video, np.broadcast_to(truth, video.shape)) for video, truth in pairs]
    scores["psnr"] = np.minimum(np.stack(rows), _MOST)
  return scores | {
    "brightness_shift": shift.mean(axis=-1),
    "brightness_shift_last": shift[..., -1],
    "brightness_error": np.abs(shift).mean(axis=-1),
    # A true video of uniform frames has no edges; its sharpness is 0.
    "sharpness": frames["edges"].mean(axis=-1) / np.where(edges > 0, edges, np.inf)[:, None],
  }


def summary(scores: Scores, protocol: PredictionProtocol) -> dict[str, float]:
  """Returns means over all trajectories and, where a video has several, '<name>_best' means."""
  means = {name: float(values.mean()) for name, values in scores.items()}
  return means | {name: float(values.mean()) for name, values in bests(scores, protocol).items()}


def square_difference(drawn: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Returns mean squared differences (b, f) of uint8 frames (b, f, h, w, c), in levels of 255."""
  chex.assert_rank(drawn, 5)
  chex.assert_equal_shape([drawn, other])
  # Video by video: float copies of a whole chunk would take a multiple of its memory.
  rows = [
    np.square(one.astype(np.float32) - two).mean(axis=(-3, -2, -1), dtype=np.float64)
    for one, two in zip(drawn, other)
  ]
  return np.stack(rows)


def spread(apart: np.ndarray, error: np.ndarray) -> dict[str, float]:
  """Compares the spread of a video's trajectories with their error.

  The true video is one sample of what may follow the given frames. A correct sampler's
  trajectories are therefore as far from each other as from the true video, while a network that
  regresses always draws the same video.

  Args:
    apart: (n, N - 1, f), `square_difference` of pairs of a video's trajectories; empty for N = 1.
    error: (n, N, f), `square_difference` of each trajectory and the true video.

  Returns:
    'rms_error', the root mean square of trajectory minus truth, in levels of 255. For several
    trajectories also 'spread', a pixel's standard deviation over them, in the same unit, and
    'spread_share', the distance of two trajectories (sqrt(2) times the spread) divided by the
    error: 1 if they are as far from each other as from the truth, 0 for a regression.
  """
  rms_error = float(np.sqrt(error.mean()))
  if not apart.size:
    return {"rms_error": rms_error}
  distance = float(np.sqrt(apart.mean()))
  share = distance / rms_error if rms_error else 0.0  # without error, all equal the true video
  return {"rms_error": rms_error, "spread": distance / np.sqrt(2.0), "spread_share": share}


def bests(scores: Scores, protocol: PredictionProtocol) -> Scores:
  """Returns '<name>_best' -> `best` of each figure, where a video has several trajectories."""
  if next(iter(scores.values())).shape[1] == 1:
    return {}
  return {
    f"{name}_best": best(scores[name], protocol, lower=name in ("lpips", "position_error"))
    for name in ("psnr", "ssim", "lpips", "position_error")
    if name in scores
  }


def best(values: np.ndarray, protocol: PredictionProtocol, lower: bool) -> np.ndarray:
  """Takes the best figures, whose mean is reported: (n, N) -> (n,), or one per released group.

  LGC-VD's release writes 10 trajectories per file, so N / 10 consecutive files per video, and takes
  the best of groups of 10 files, with an off-by-one: group 0 is file 0 alone, group g > 0 is files
  10 g - 9 to 10 g, and trailing files are dropped. With N = 100 every group but the first mixes two
  videos.

  Args:
    values: (n, N) figures.
    protocol: its `best` chooses videos or released groups.
    lower: whether lower figures are better.

  Raises:
    ValueError: N does not fill the release's files.
  """
  chex.assert_rank(values, 2)
  choose = np.min if lower else np.max
  if protocol.best == "video":
    return choose(values, axis=1)
  if values.shape[1] % _RELEASED_FILE:
    raise ValueError(
      f"best='released_groups' needs a multiple of {_RELEASED_FILE} trajectories per video, not "
      f"{values.shape[1]}."
    )
  files = choose(values.reshape(-1, _RELEASED_FILE), axis=1)
  closed = files[1 : 1 + (len(files) - 1) // _RELEASED_GROUP * _RELEASED_GROUP]
  groups = choose(closed.reshape(-1, _RELEASED_GROUP), axis=1)
  return np.concatenate([files[:1], groups])


def compared(drawn: np.ndarray, real: np.ndarray, protocol: PredictionProtocol) -> np.ndarray:
  """Returns the clips that FVD uses of drawn videos; all are uint8 (n, f, h, w, c)."""
  chex.assert_rank(drawn, 5)
  chex.assert_equal_shape([drawn, real])
  if protocol.fvd_given == "drawn":
    return drawn
  return np.concatenate([real[:, : protocol.past], drawn[:, protocol.past :]], axis=1)


def fvd(reals: np.ndarray, fakes: np.ndarray, protocol: PredictionProtocol) -> float:
  """Computes the Frechet video distance of drawn videos to the real ones they continue.

  Args:
    reals: (n, d) features of the real videos.
    fakes: (T, n, d) features of the drawn videos from `compared`, with T trajectories per video.
    protocol: chooses whether trajectories are pooled.
  """
  chex.assert_rank(reals, 2)
  chex.assert_shape(fakes, (None, *reals.shape))
  if protocol.fvd_trajectories == "each":
    return float(np.mean([frechet.fvd(reals, fake) for fake in fakes]))
  if protocol.fvd_repeat_real:
    reals = np.tile(reals, (len(fakes), 1))
  return frechet.fvd(reals, np.concatenate(fakes))


def _grey(frames: np.ndarray, protocol: PredictionProtocol) -> np.ndarray:
  """Converts colour to 8-bit luma, rounded as Pillow does, if the protocol asks for it."""
  if not protocol.ssim_grey or frames.shape[-1] == 1:
    return frames
  weighted = frames.astype(np.int32) @ np.array([19595, 38470, 7471], np.int32)
  return ((weighted + 2**15) >> 16).astype(np.uint8)[..., None]


def _lpips(
  drawn: np.ndarray, true: np.ndarray, protocol: PredictionProtocol, params: dict[str, Any]
) -> np.ndarray:
  """Computes LPIPS of frames (..., h, w, c) as (...), in calls of one compiled shape."""
  lead = drawn.shape[:-3]
  flat = [x.reshape(-1, *x.shape[-3:]) for x in (drawn, true)]
  compare = _compiled_lpips(protocol.lpips_net, protocol.lpips_range, protocol.lpips_size)
  found = in_chunks(functools.partial(compare, params), flat, _CHUNK)
  return found.astype(np.float64).reshape(lead)


@functools.cache
def _compiled_lpips(net: str, limits: tuple[float, float], size: int | None) -> Callable:
  low, high = limits

  def scaled(frames: jax.Array) -> jax.Array:
    frames = frames.astype(jnp.float32)
    if size is not None:
      frames = jax.image.resize(frames, (len(frames), size, size, frames.shape[-1]), "bilinear")
      frames = jnp.round(frames)
    frames = jnp.broadcast_to(frames, (*frames.shape[:-1], 3))
    return low + (high - low) * frames / 255

  @jax.jit
  def compare(params: dict[str, Any], a: jax.Array, b: jax.Array) -> jax.Array:
    return lpips.lpips(scaled(a), scaled(b), net, params)

  return compare
