"""Scores of predicted videos against the true ones, as a protocol says."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.chunks import in_chunks
from videodiff_jax.metrics import frechet, images, lpips, motion
from videodiff_jax.metrics.protocols import Protocol

_MOST = 60.0  # dB: an exact copy would be infinite
_CHUNK = 64  # pairs of frames LPIPS compares in one compiled call
_RELEASED_FILE = 10  # trajectories in a file of LGC-VD's release
_RELEASED_GROUP = 10  # files it takes a best of

Scores = dict[str, np.ndarray]


def frame_scores(
  drawn: np.ndarray,
  true: np.ndarray,
  protocol: Protocol,
  lpips_params: dict[str, Any] | None = None,
  with_motion: bool = False,
) -> Scores:
  """Every scored frame of every trajectory.

  Args:
    drawn: (n, N, f, h, w, c) uint8, whole videos.
    true: (n, f, h, w, c) uint8.
    protocol: says which frames, and how.
    lpips_params: of `lpips.load_params`; None leaves LPIPS out.
    with_motion: adds 'position_error', for one bright object on black.

  Returns:
    name -> (n, N, f - first_scored) float64: 'psnr' in dB (at most 60), 'ssim', 'lpips',
    'brightness' (the mean over pixels, 0..255), 'edges' (`images.gradient_energy`),
    'position_error' in pixels, 'mse' summed over pixels in [0, 1], where the protocol has it.
  """
  first = protocol.first_scored
  rows = []
  # Video by video: float64 copies of a whole set would not fit in memory.
  for many, one in zip(drawn[:, :, first:], true[:, first:]):
    same = np.broadcast_to(one, many.shape)
    row = {
      "psnr": np.minimum(images.psnr(many, same), _MOST),
      "ssim": images.ssim(_grey(many, protocol), _grey(same, protocol), protocol.ssim_window),
      "brightness": many.mean(axis=(-3, -2, -1)),
      "edges": images.gradient_energy(many),
    }
    if protocol.mse:
      row["mse"] = np.square((many.astype(np.float64) - one) / 255).sum(axis=(-3, -2, -1))
    if lpips_params is not None:
      row["lpips"] = _lpips(many, same, protocol, lpips_params)
    if with_motion:
      apart = motion.centroid(many) - motion.centroid(same)
      row["position_error"] = np.linalg.norm(apart, axis=-1)
    rows.append(row)
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def trajectory_scores(
  frames: Scores, drawn: np.ndarray, true: np.ndarray, protocol: Protocol
) -> Scores:
  """One figure a trajectory.

  Args:
    frames: `frame_scores` of the same videos.
    drawn: as there.
    true: as there.
    protocol: as there.

  Returns:
    name -> (n, N): the means over frames, and in place of 'brightness' how far it is off, in
    levels of 255: 'brightness_shift' (drawn minus true, signed, mean over frames), the same of
    the last frame alone, and 'brightness_error', the mean of its absolute value; in place of
    'edges' 'sharpness', their mean over the true video's: 1 is right, less is blurred.
  """
  first = protocol.first_scored
  absolute = ("brightness", "edges")
  shift = frames["brightness"] - true[:, None, first:].mean(axis=(-3, -2, -1))
  scores = {name: values.mean(axis=-1) for name, values in frames.items() if name not in absolute}
  edges = images.gradient_energy(true[:, first:]).mean(axis=-1)
  if protocol.psnr == "video":
    pairs = zip(drawn[:, :, first:], true[:, first:])
    rows = [images.video_psnr(many, np.broadcast_to(one, many.shape)) for many, one in pairs]
    scores["psnr"] = np.minimum(np.stack(rows), _MOST)
  return scores | {
    "brightness_shift": shift.mean(axis=-1),
    "brightness_shift_last": shift[..., -1],
    "brightness_error": np.abs(shift).mean(axis=-1),
    # Of a video of even frames there is nothing to blur.
    "sharpness": frames["edges"].mean(axis=-1) / np.where(edges > 0, edges, np.inf)[:, None],
  }


def summary(scores: Scores, protocol: Protocol) -> dict[str, float]:
  """Means over all trajectories and, where a video has several, '<name>_best' ones."""
  means = {name: float(values.mean()) for name, values in scores.items()}
  return means | {name: float(values.mean()) for name, values in bests(scores, protocol).items()}


def square_difference(drawn: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Mean squared difference of uint8 frames (b, f, h, w, c): (b, f) float64, in levels of 255."""
  # Video by video: float copies of a whole chunk would take a multiple of its memory.
  rows = [
    np.square(one.astype(np.float32) - two).mean(axis=(-3, -2, -1), dtype=np.float64)
    for one, two in zip(drawn, other)
  ]
  return np.stack(rows)


def spread(apart: np.ndarray, error: np.ndarray) -> dict[str, float]:
  """How unlike a video's trajectories are, beside how far they are from the true video.

  The true video is one draw from what may follow the given frames. Those of a sampler that is
  right are then as far from each other as from it; a network that regresses draws one and the same.

  Args:
    apart: (n, N - 1, f), `square_difference` of a video's trajectories; N = 1 has no spread.
    error: (n, N, f), of each trajectory and the true video.

  Returns:
    'rms_error', the root mean square of trajectory minus truth, in levels of 255; for several
    trajectories 'spread', the standard deviation of a pixel over them, alike, and 'spread_share',
    the distance of two trajectories (sqrt(2) times the spread) in units of the error: 1 where
    they are as far from each other as from the truth, 0 for a regression.
  """
  rms_error = float(np.sqrt(error.mean()))
  if not apart.size:
    return {"rms_error": rms_error}
  distance = float(np.sqrt(apart.mean()))
  share = distance / rms_error if rms_error else 0.0  # without an error all are the true video
  return {"rms_error": rms_error, "spread": distance / np.sqrt(2.0), "spread_share": share}


def bests(scores: Scores, protocol: Protocol) -> Scores:
  """'<name>_best' -> `best` of those that have one, where a video has several trajectories."""
  if next(iter(scores.values())).shape[1] == 1:
    return {}
  return {
    f"{name}_best": best(scores[name], protocol, lower=name in ("lpips", "position_error"))
    for name in ("psnr", "ssim", "lpips", "position_error")
    if name in scores
  }


def best(values: np.ndarray, protocol: Protocol, lower: bool) -> np.ndarray:
  """The best figures, whose mean is reported: (n, N) -> (n,), or one a group as released.

  LGC-VD's release keeps 10 trajectories in a file, N / 10 files a video one after another, and
  closes a group of files at every number divisible by 10. So the first group is one file, each
  other one has the last 9 of a video and the first of the next, and the files after the last
  such number are in none.

  Raises:
    ValueError: trajectories that do not fill the release's files.
  """
  choose = np.min if lower else np.max
  if protocol.best == "video":
    return choose(values, axis=1)
  if values.shape[1] % _RELEASED_FILE:
    raise ValueError(
      f"best='released_groups' needs a multiple of {_RELEASED_FILE} trajectories a video, not "
      f"{values.shape[1]}."
    )
  files = choose(values.reshape(-1, _RELEASED_FILE), axis=1)
  closed = files[1 : 1 + (len(files) - 1) // _RELEASED_GROUP * _RELEASED_GROUP]
  groups = choose(closed.reshape(-1, _RELEASED_GROUP), axis=1)
  return np.concatenate([files[:1], groups])


def compared(drawn: np.ndarray, real: np.ndarray, protocol: Protocol) -> np.ndarray:
  """The clips that FVD sees of drawn videos: (n, f, h, w, c) uint8, and so are both arguments."""
  if protocol.fvd_given == "drawn":
    return drawn
  return np.concatenate([real[:, : protocol.past], drawn[:, protocol.past :]], axis=1)


def fvd(reals: np.ndarray, fakes: np.ndarray, protocol: Protocol) -> float:
  """Frechet video distance of drawn videos to the real ones they were drawn from.

  Args:
    reals: (n, d), features of the real videos.
    fakes: (T, n, d), of the drawn ones as `compared`, T the trajectories that count.
    protocol: says whether trajectories are pooled.
  """
  if protocol.fvd_trajectories == "each":
    return float(np.mean([frechet.fvd(reals, fake) for fake in fakes]))
  if protocol.fvd_repeat_real:
    reals = np.tile(reals, (len(fakes), 1))
  return frechet.fvd(reals, np.concatenate(fakes))


def _grey(frames: np.ndarray, protocol: Protocol) -> np.ndarray:
  """8-bit luma as Pillow rounds it, where the protocol wants it and there is colour."""
  if not protocol.ssim_grey or frames.shape[-1] == 1:
    return frames
  weighted = frames.astype(np.int32) @ np.array([19595, 38470, 7471], np.int32)
  return ((weighted + 2**15) >> 16).astype(np.uint8)[..., None]


def _lpips(
  drawn: np.ndarray, true: np.ndarray, protocol: Protocol, params: dict[str, Any]
) -> np.ndarray:
  """(..., h, w, c) -> (...), in calls of one compiled shape."""
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
