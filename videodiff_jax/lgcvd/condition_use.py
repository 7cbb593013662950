"""How much LGC-VD uses its conditions: predictions under the right and the wrong ones (Sec. 3.2).

The score asks how far the denoiser's prediction and loss move when one condition is swapped.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.diffusion.noise import numbered_noise
from videodiff_jax.diffusion.saturation import saturated
from videodiff_jax.lgcvd.conditioning import (
  EMPTY_FRAGMENT,
  local_condition,
  stack_frames,
  task_positions,
)
from videodiff_jax.lgcvd.networks import Networks
from videodiff_jax.models.outputs import output
from videodiff_jax.models.pixels import to_float

Rows = dict[str, Any]


def predict(
  networks: Networks, saturate: bool, params: Any, rows: dict[str, jax.Array]
) -> tuple[Any, Any]:
  """Returns the denoiser's prediction (b, h, w, F c) and its loss (b,) (Eq. 9).

  Args:
    networks: the system's networks and process.
    saturate: the model's `Objective.saturate`. Without it, overshoot at saturated pixels would be
      most of the loss and hide what a condition is worth.
    params: parameters of `networks.model`.
    rows: 'window' (b, F, h, w, c) uint8, the fragment that is denoised; 'given' (b, k, h, w, c)
      uint8, its first frames; 'last' (b, F, h, w, c) float in [-1, 1], the fragment before; 't'
      (b,) timesteps; 'number' (b,) the numbers that seed each row's noise.
  """
  process, num_frames, slots = networks.process, networks.num_frames, networks.slots
  x_0 = stack_frames(to_float(rows["window"]))
  positions = jnp.array(task_positions("prediction", num_frames, slots))
  positions = jnp.broadcast_to(positions, (len(x_0), slots))
  condition = local_condition(to_float(rows["given"]), positions, num_frames)
  noise = numbered_noise(rows["number"], x_0.shape[1:])
  x_t = process.q_sample(x_0, rows["t"], noise)
  last = stack_frames(rows["last"])
  prediction = output(networks.model, params, x_t, rows["t"], condition, last)
  judged = prediction
  if saturate:
    estimate = process.to_x0(x_t, rows["t"], prediction)
    judged = saturated(prediction, process.target(x_0, rows["t"], noise), estimate, x_0)
  return prediction, process.loss(judged, x_0, rows["t"], noise)


def conditions(
  networks: Networks, clips: np.ndarray, with_encoder: bool
) -> tuple[Rows, dict[str, Rows]]:
  """Returns the true rows for `predict`, and for each swap the rows that replace them.

  Args:
    networks: the system's networks.
    clips: (n, 2 F - k, h, w, c) uint8 from different videos: the fragment before, then the one
      that continues from its last k frames.
    with_encoder: whether the model has a sequence encoder. Without one, only frames are swapped.
  """
  length, slots = networks.num_frames, networks.slots
  given = clips[:, length - slots : length]
  last = clips[:, :length].astype(np.float32) / 127.5 - 1.0
  rows = {"window": clips[:, length - slots :], "given": given, "last": last}
  swaps = {"frames of another video": {"given": np.roll(given, 1, axis=0)}}
  if with_encoder:
    noise = np.random.default_rng(0).standard_normal(last.shape, np.float32)
    swaps |= {
      "fragment of another video": {"last": np.roll(last, 1, axis=0)},
      "no fragment, U": {"last": np.full_like(last, EMPTY_FRAGMENT)},
      "noise for a fragment": {"last": noise},
    }
  return rows, swaps
