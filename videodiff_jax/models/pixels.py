"""Converts between 8-bit frames, outside the networks, and floats in [-1, 1], inside."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

A = TypeVar("A", jax.Array, np.ndarray)


def to_float(frames: A) -> A:
  """Converts uint8 to float32 in [-1, 1]."""
  return frames.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(video: A) -> A:
  """Converts [-1, 1] to uint8, clipped and rounded; a NumPy array stays on the host."""
  library = np if isinstance(video, np.ndarray) else jnp
  return library.round(library.clip(video * 127.5 + 127.5, 0, 255)).astype(np.uint8)
