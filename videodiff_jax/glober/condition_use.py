"""How much GLOBER uses its conditions: predictions under a clip's own and under other ones.

The decoder is conditioned on a global feature v, a frame's time tau and a class or text c, the
generator only on c.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from videodiff_jax.diffusion.noise import numbered_noise
from videodiff_jax.glober import generator
from videodiff_jax.glober.autoencoder import encode_frames, standardise
from videodiff_jax.glober.conditions import NoCondition
from videodiff_jax.glober.networks import Networks
from videodiff_jax.models.outputs import output
from videodiff_jax.training import partitioning

Rows = dict[str, Any]


def predict_frame(
  networks: Networks, params: Mapping[str, Any], rows: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Returns the decoder's prediction (b, H', W', C') and its loss (b,).

  Args:
    networks: the system's networks.
    params: the sampling parameters, see drawing.py.
    rows: 'frame' (b, h, w, c) uint8; 'v' (b, H'', W'', C'') global features; 'time' (b,) tau;
      'condition' (b, ...), see conditions.py; 't' (b,) timesteps; 'number' (b,) the numbers that
      seed each row's noise.
  """
  model, process = networks.autoencoder, networks.decoder_process
  kl_vae, weights = (partitioning.gather(params[name]) for name in ("kl_vae", "autoencoder"))
  z_0 = encode_frames(networks.kl_vae, kl_vae, params["latent_statistics"], rows["frame"], None)
  noise = numbered_noise(rows["number"], z_0.shape[1:])
  z_t = process.q_sample(z_0, rows["t"], noise)
  given = rows["v"], rows["time"], rows["condition"]
  given = output(model, weights, *given, method="frame_conditions")
  prediction = output(model, weights, z_t, rows["t"], given, method="denoise")
  return prediction, process.loss(prediction, z_0, rows["t"], noise)


def predict_feature(
  networks: Networks, params: Mapping[str, Any], rows: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Returns the generator's prediction (b, H'', W'', C'') and its loss (b,).

  The rows are those of `predict_frame` without 'frame' and 'time'.
  """
  process = networks.generator_process
  v_0 = standardise(rows["v"], params["feature_statistics"])
  noise = numbered_noise(rows["number"], v_0.shape[1:])
  v_t = process.q_sample(v_0, rows["t"], noise)
  weights = partitioning.gather(params["generator"])
  prediction = generator.denoise(networks, weights, v_t, rows["t"], rows["condition"])
  return prediction, process.loss(prediction, v_0, rows["t"], noise)


def frame_swaps(v: np.ndarray, other_times: np.ndarray) -> dict[str, Rows]:
  """Returns the rows that replace the decoder's v (n, H'', W'', C'') and time (n,) in swaps."""
  return {
    "global feature of another clip": {"v": np.roll(v, 1, axis=0)},
    "time of another frame": {"time": other_times},
  }


def condition_swaps(
  networks: Networks, params: Mapping[str, Any], condition: np.ndarray
) -> dict[str, Rows]:
  """Returns the rows that replace the class, text or prompt (n, ...) in swaps; {} without one.

  The condition of another clip is the next one that differs; if all clips have the same condition,
  there is no such swap.
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
