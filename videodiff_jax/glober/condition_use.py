"""What GLOBER's decoder and generator predict under a clip's own and other conditions.

A decoder is told a global feature v, a frame's time tau and a class or text c; a generator c alone.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from videodiff_jax.diffusion.noise import numbered_noise
from videodiff_jax.glober import generator
from videodiff_jax.glober.autoencoder import encode_frames
from videodiff_jax.glober.conditions import NoCondition
from videodiff_jax.glober.networks import Networks

Rows = dict[str, Any]


def predict_frame(
  networks: Networks, params: Mapping[str, Any], rows: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """The decoder's prediction (b, H', W', C') and its loss (b,).

  Args:
    networks: of the system.
    params: as of glober/drawing.py.
    rows: 'frame' (b, h, w, c) uint8; 'v' (b, H'', W'', C'') global features; 'time' (b,) tau;
      'condition' (b, ...), see conditions.py; 't' (b,) timesteps; 'number' (b,) of the noise.
  """
  model, process, weights = networks.autoencoder, networks.decoder_process, params["autoencoder"]
  z_0 = encode_frames(
    networks.kl_vae, params["kl_vae"], params["latent_statistics"], rows["frame"], None
  )
  noise = numbered_noise(rows["number"], z_0.shape[1:])
  z_t = process.q_sample(z_0, rows["t"], noise)
  given = rows["v"], rows["time"], rows["condition"]
  given = model.apply(weights, *given, method="frame_conditions")
  prediction = model.apply(weights, z_t, rows["t"], given, method="denoise")
  return prediction, process.loss(prediction, z_0, rows["t"], noise)


def predict_feature(
  networks: Networks, params: Mapping[str, Any], rows: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """The generator's prediction (b, H'', W'', C'') and its loss (b,); rows as above."""
  process, statistics = networks.generator_process, params["feature_statistics"]
  v_0 = (rows["v"] - statistics["mean"]) / statistics["std"]
  noise = numbered_noise(rows["number"], v_0.shape[1:])
  v_t = process.q_sample(v_0, rows["t"], noise)
  prediction = generator.denoise(networks, params["generator"], v_t, rows["t"], rows["condition"])
  return prediction, process.loss(prediction, v_0, rows["t"], noise)


def frame_swaps(v: np.ndarray, other_times: np.ndarray) -> dict[str, Rows]:
  """What takes the place of the decoder's v (n, H'', W'', C'') and time (n,) in their swaps."""
  return {
    "global feature of another clip": {"v": np.roll(v, 1, axis=0)},
    "time of another frame": {"time": other_times},
  }


def condition_swaps(
  networks: Networks, params: Mapping[str, Any], condition: np.ndarray
) -> dict[str, Rows]:
  """What takes the place of the class, text or prompt (n, ...) in its swaps; {} without one.

  That of another clip is the next one that differs; where all clips are told the same there is
  none.
  """
  kind, n = networks.condition, len(condition)
  if isinstance(kind, NoCondition):
    return {}
  null = np.asarray(kind.null(params), condition.dtype)
  swaps = {f"no {kind.name}": {"condition": np.broadcast_to(null, condition.shape)}}
  _, kinds = np.unique(condition.reshape(n, -1), axis=0, return_inverse=True)
  unlike = kinds.reshape(n, 1) != kinds.reshape(n)
  if unlike.any():
    after = (np.arange(n) - np.arange(n)[:, None]) % n
    nearest = np.where(unlike, after, n).argmin(axis=1)
    swaps = {f"{kind.name} of another clip": {"condition": condition[nearest]}} | swaps
  return swaps
