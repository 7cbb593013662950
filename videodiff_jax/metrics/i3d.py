"""I3D, inflated Inception-v1 (Carreira and Zisserman, 2017): FVD's features, inception score."""

import math
from collections.abc import Iterable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from videodiff_jax.metrics import clip_features
from videodiff_jax.models.outputs import output
from videodiff_jax.pretrained import i3d as pretrained

MIN_FRAMES = 9  # with fewer there is no temporal window at the end, and the mean is NaN

# Pools by their windows (window = stride in time), and blocks by the widths of their 1x1,
# (1x1, 3x3), (1x1, 3x3) and pooled 1x1 branches.
_BODY = (
  ("Mixed_3b", (64, 96, 128, 16, 32, 32)),
  ("Mixed_3c", (128, 128, 192, 32, 96, 64)),
  ("MaxPool3d_4a", (3, 3, 3)),
  ("Mixed_4b", (192, 96, 208, 16, 48, 64)),
  ("Mixed_4c", (160, 112, 224, 24, 64, 64)),
  ("Mixed_4d", (128, 128, 256, 24, 64, 64)),
  ("Mixed_4e", (112, 144, 288, 32, 64, 64)),
  ("Mixed_4f", (256, 160, 320, 32, 128, 128)),
  ("MaxPool3d_5a", (2, 2, 2)),
  ("Mixed_5b", (256, 160, 320, 32, 128, 128)),
  ("Mixed_5c", (384, 192, 384, 48, 128, 128)),
)


def conv3d(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Computes a 'SAME' 3-D convolution (b, f, h, w, c) by (t, s, s, c, d) as 2-D convolutions.

  XLA's own 3-D convolution made the whole network twice as slow on CPU. The frames of each temporal
  tap are convolved separately and summed or, with few channels, stacked as channels.
  """
  chex.assert_rank([x, kernel], 5)
  chex.assert_shape(kernel, (None, None, None, x.shape[-1], None))
  b, f, taps = len(x), x.shape[1], len(kernel)
  frames = math.ceil(f / stride)
  (pad,) = jax.lax.padtype_to_pads((f,), (taps,), (stride,), "SAME")
  x = jnp.pad(x, ((0, 0), pad, (0, 0), (0, 0), (0, 0)))
  seen = [x[:, i : i + (frames - 1) * stride + 1 : stride] for i in range(taps)]
  kernels = list(kernel)
  if x.shape[-1] <= 3:
    seen, kernels = [jnp.concatenate(seen, axis=-1)], [jnp.concatenate(kernels, axis=-2)]

  def conv2d(pictures: jax.Array, weights: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      pictures.reshape(b * frames, *pictures.shape[2:]),
      weights,
      (stride, stride),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision="highest",
    )

  y = jnp.asarray(sum(map(conv2d, seen, kernels)))
  return y.reshape(b, frames, *y.shape[1:])


class Unit(nn.Module):
  """A convolution with its batch norm folded in, and ReLU."""

  width: int
  kernel: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel,) * 3 + (x.shape[-1], self.width)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    y = conv3d(x, kernel, self.stride)
    return nn.relu(y + jax.lax.broadcast_to_rank(bias, y.ndim))


class Mixed(nn.Module):
  """An Inception block: four branches, concatenated."""

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    first, narrow_1, wide_1, narrow_2, wide_2, pooled = self.widths
    branch_1 = Unit(narrow_1, name="Branch_1_Conv3d_0a_1x1")(x)
    branch_2 = Unit(narrow_2, name="Branch_2_Conv3d_0a_1x1")(x)
    branch_3 = nn.max_pool(x, (3, 3, 3), padding="SAME")
    branches = (
      Unit(first, name="Branch_0_Conv3d_0a_1x1")(x),
      Unit(wide_1, 3, name="Branch_1_Conv3d_0b_3x3")(branch_1),
      Unit(wide_2, 3, name="Branch_2_Conv3d_0b_3x3")(branch_2),
      Unit(pooled, name="Branch_3_Conv3d_0b_1x1")(branch_3),
    )
    return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
  """Inflated Inception-v1 up to its 'Logits' end point; parameters by `pretrained.i3d.load`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Classifies clips (b, f >= 9, 224, 224, c) in [-1, 1].

    c is 3, or 1 with the parameters of `load(channels=1)`.

    Returns:
      (b, 400) logits (before softmax), the mean over time.
    """
    x = Unit(64, 7, 2, name="Conv3d_1a_7x7")(x)
    x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    x = Unit(64, name="Conv3d_2b_1x1")(x)
    x = Unit(192, 3, name="Conv3d_2c_3x3")(x)
    x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    for name, sizes in _BODY:
      if name.startswith("MaxPool"):
        x = nn.max_pool(x, sizes, (2, 2, 2), "SAME")
      else:
        x = Mixed(sizes, name=name)(x)
    x = nn.avg_pool(x, (2, 7, 7))
    head = nn.Conv(400, (1, 1, 1), precision="highest", name="Logits_Conv3d_0c_1x1")
    return head(x).mean(axis=(1, 2, 3))


DETECTOR = clip_features.Detector(
  "I3D", MIN_FRAMES, pretrained.load, lambda params, x: output(I3D(), {"params": params}, x)
)


def features(
  videos: np.ndarray | Iterable[np.ndarray],
  *,
  batch_size: int = 4,
  resize: str = "torch",
  progress: bool = True,
) -> np.ndarray:
  """Computes I3D's logits, the 400 numbers per clip by which FVD compares sets of clips.

  Args:
    videos: uint8 (n, f, h, w, c), f >= 9, c 1 or 3; or an iterable of such chunks.
    batch_size: clips per device and call; this, the rest and errors as in `clip_features.extract`.
    resize: how frames are resized to 224: 'torch' or 'tf1'.
    progress: whether to show a bar.

  Returns:
    (n, 400) float32, in the order given.
  """
  (found,) = clip_features.extract(
    videos, [DETECTOR], batch_size=batch_size, resize=resize, progress=progress
  )
  return found


def inception_score(logits: np.ndarray, splits: int = 10) -> float:
  """Computes exp(mean KL(p(y|clip) || p(y))) over I3D's 400 classes, averaged over splits.

  It is the score of Salimans et al. (2016) with I3D, trained on Kinetics, as the classifier. It is
  1 if all clips look like the same classes, and at most 400, if each clip clearly belongs to one
  class and all classes are equally frequent. Published inception scores of UCF-101 use C3D on
  Sports-1M, those of pictures Inception-v3 on ImageNet: do not compare figures of different
  classifiers. A split of n clips cannot exceed n, so few clips lower the score (Barratt and Sharma,
  2018): compare equal counts only.

  Args:
    logits: (n, 400) `features`, before softmax, of generated clips in random order.
    splits: number of equal parts, in order; if it does not divide n, the first have one more clip.

  Returns:
    The mean over splits, computed in float64.

  Raises:
    ValueError: the logits are not (n, classes), not finite, or probabilities; or a split has fewer
      than two clips.
  """
  logits = np.asarray(logits, np.float64)
  if logits.ndim != 2 or not np.isfinite(logits).all():
    raise ValueError(f"I3D's logits must be finite and (n, classes), not {logits.shape}.")
  if splits < 1 or len(logits) < 2 * splits:
    raise ValueError(
      f"An inception score of {splits} splits needs 2 clips for each, but there are {len(logits)} "
      "clips: give more clips, or fewer splits (at least one)."
    )
  if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1):
    raise ValueError("An inception score needs logits, but these rows are probabilities.")
  log_p = logits - logits.max(axis=1, keepdims=True)
  log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
  return float(np.mean([_score_of(part) for part in np.array_split(log_p, splits)]))


def _score_of(log_p: np.ndarray) -> float:
  p = np.exp(log_p)
  # The floor keeps the log finite; a class with probability 0 adds nothing to the sum.
  marginal = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
  return np.exp((p * (log_p - marginal)).sum(axis=1).mean())
