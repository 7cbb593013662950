"""8-bit frames to floats and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.models import pixels


@pytest.mark.parametrize("library", [jnp, np])
def test_to_uint8_rounds_and_clips(library) -> None:
  values = pixels.to_uint8(library.array([-1.2, -1.0, 0.0, 0.999, 1.0, 3.0]))
  np.testing.assert_array_equal(values, [0, 0, 128, 255, 255, 255])
  assert isinstance(values, np.ndarray if library is np else jax.Array)


def test_every_byte_comes_back() -> None:
  frames = np.arange(256, dtype=np.uint8)
  floats = np.asarray(pixels.to_float(jnp.asarray(frames)))
  assert floats[0] == -1.0 and floats[-1] == 1.0
  np.testing.assert_array_equal(pixels.to_uint8(floats), frames)
