"""The border of the networks: 8-bit frames outside, floats in [-1, 1] inside."""

import jax
import jax.numpy as jnp
import numpy as np


def to_float(frames: jax.Array) -> jax.Array:
  """uint8 -> float32 in [-1, 1]."""
  return frames.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(video: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
  """[-1, 1] -> 0..255, rounded; on the host where the argument is."""
  library = np if isinstance(video, np.ndarray) else jnp
  return library.round(library.clip(video * 127.5 + 127.5, 0, 255)).astype(np.uint8)
