import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.diffusion.saturation import saturated, without_overshoot


def test_only_what_clipping_hides_is_no_error() -> None:
  """In both forms: an error is gone, and a prediction is the target's."""
  rng = np.random.default_rng(0)
  x = rng.choice(np.float32([-1.0, -0.4, 0.0, 0.7, 1.0]), 1000)
  drawn = rng.uniform(-1.5, 1.5, 1000).astype(np.float32)
  hidden = (np.abs(x) == 1) & (np.clip(drawn, -1, 1) == x)
  assert 0 < hidden.sum() < 1000
  expected = np.where(hidden, 0, drawn - x)
  np.testing.assert_array_equal(without_overshoot(drawn - x, x), expected)
  replaced = saturated(np.zeros(1000), np.ones(1000), drawn, x)
  np.testing.assert_array_equal(replaced, hidden)


def test_every_pixel_that_looks_wrong_still_pulls() -> None:
  """Clipping alone would leave a white pixel drawn blacker than black without a gradient."""
  x = jnp.array([-1.0, -1.0, 1.0, 1.0, 0.5])
  drawn = jnp.array([-1.3, 1.3, 1.3, -1.3, 1.3])
  slopes = jax.grad(lambda drawn: jnp.square(without_overshoot(drawn - x, x)).sum())(drawn)
  np.testing.assert_allclose(slopes, [0.0, 4.6, 0.0, -4.6, 1.6], atol=1e-6)
