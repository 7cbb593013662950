"""The Frechet distance between two sets of frames, by the features of LPIPS's AlexNet.

It says how far single frames are from real ones whatever their order, beside FVD, which mixes both.

It is like FID and is not FID: FID (Heusel et al., 2017) is of Inception-v3, on another scale. Here
the network is the AlexNet that LPIPS already brings. I3D on one frame repeated would have been the
other choice. AlexNet is better founded: like Inception-v3 it was trained on pictures, its last
convolution averaged over space stands where FID's pool stands, and Zhang et al. (2018) measured
that its activations follow people's judgement of distortions; I3D was trained on clips that move
and has only its class logits to offer. It is also cheaper: a frame takes 1.2 GFLOP of AlexNet, and
35 of I3D, which needs the frame 9 times. Beside FVD on the same clips it adds a third to the time.
"""

from collections.abc import Iterable

import jax
import numpy as np

from videodiff_jax.metrics import clip_features, frechet
from videodiff_jax.metrics.lpips import LPIPS
from videodiff_jax.pretrained import lpips as pretrained

WEIGHTS = pretrained.WEIGHTS["alex"]
_CHUNK = 2**13  # frames whose float64 features are in memory at once


def _apply(params: dict, clips: jax.Array) -> jax.Array:
  """(b, f, 224, 224, 1 or 3) in [-1, 1] -> (b, f, 256)."""
  b, f = clips.shape[:2]
  pictures = clips.reshape(b * f, *clips.shape[2:])
  rgb = pictures.repeat(3 // pictures.shape[-1], axis=-1)
  last = LPIPS("alex").apply({"params": params}, rgb, method="activations")[-1]
  return last.mean(axis=(1, 2)).reshape(b, f, -1)


DETECTOR = clip_features.Detector("AlexNet", 1, lambda channels: pretrained.load("alex"), _apply)


def features(
  videos: np.ndarray | Iterable[np.ndarray],
  *,
  batch_size: int = 4,
  resize: str = "torch",
  progress: bool = True,
) -> np.ndarray:
  """AlexNet's last activations of each frame, averaged over space.

  Args:
    videos: uint8 (n, f, h, w, c), c 1 or 3; or an iterable of such chunks.
    batch_size: As of `clip_features.extract`, and so are the others and the errors.
    resize: of frames to 224, AlexNet's training size: 'torch' or 'tf1'.
    progress: Show a bar.

  Returns:
    (n, f, 256) float32, in the order given.
  """
  options = {"batch_size": batch_size, "resize": resize, "progress": progress}
  (found,) = clip_features.extract(videos, [DETECTOR], **options)
  return found


def statistics(of_frames: np.ndarray) -> frechet.Statistics:
  """Mean and scatter over all frames of all clips, streamed in float64.

  Statistics of parts, of several hosts say, merge into those of the whole.

  Args:
    of_frames: (n, f, 256) of `features`.

  Raises:
    ValueError: Not (n, f, d), or not finite.
  """
  if of_frames.ndim != 3:
    raise ValueError(f"Features of frames must be (n, f, d); got the shape {of_frames.shape}.")
  every, found = of_frames.reshape(-1, of_frames.shape[-1]), frechet.Statistics()
  for begin in range(0, len(every), _CHUNK):
    found = found.add(every[begin : begin + _CHUNK])
  return found


def alexnet_frame_frechet(
  real_features: np.ndarray, fake_features: np.ndarray, covariance: str = "unbiased"
) -> float:
  """Frechet distance of two sets of frames, from (n, f, 256) features of each.

  Biased upwards for few frames, and frames of one clip are alike: compare figures of equal counts
  of clips and frames only.

  Args:
    real_features: of `features`.
    fake_features: of `features`.
    covariance: as of `frechet.frechet_distance`.

  Raises:
    ValueError: Fewer than two clips in a set, or as of `statistics`.
  """
  for clips in (real_features, fake_features):
    if len(clips) < 2:
      raise ValueError(f"A distance between sets of frames needs 2 clips each, got {len(clips)}.")
  pair = (statistics(real_features), statistics(fake_features))
  return frechet.frechet_distance(*pair, covariance)
