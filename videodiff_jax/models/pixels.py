"""Converts between 8-bit frames, outside the networks, and floats in [-1, 1], inside."""

import jax
import jax.numpy as jnp
import numpy as np


def to_float(frames: jax.Array) -> jax.Array:
  """Converts uint8 to float32 in [-1, 1]."""
  return frames.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(video: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
  """Converts [-1, 1] to uint8, clipped and rounded; a NumPy array stays on the host."""
  library = np if isinstance(video, np.ndarray) else jnp
  return library.round(library.clip(video * 127.5 + 127.5, 0, 255)).astype(np.uint8)
