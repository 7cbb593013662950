import jax
import jax.numpy as jnp
import numpy as np

from videodiff_jax.models.gaussian import Gaussian


def test_kl_is_summed_over_the_feature_and_zero_at_the_prior():
  shape = (2, 3, 3, 4)
  np.testing.assert_allclose(Gaussian.create(jnp.zeros(shape), jnp.zeros(shape)).kl(), 0)
  mean, std = np.array([1.0, -2.0]), np.array([0.5, 3.0])
  gaussian = Gaussian.create(
    jnp.broadcast_to(mean[:, None, None, None], shape),
    jnp.broadcast_to(2 * np.log(std)[:, None, None, None], shape),
  )
  each = np.log(1 / std) + (std**2 + mean**2 - 1) / 2
  np.testing.assert_allclose(gaussian.kl(), 36 * each, rtol=1e-6)


def test_the_log_variance_is_clamped():
  gaussian = Gaussian.create(jnp.zeros((1, 1, 1, 2)), jnp.array([[[[-100.0, 100.0]]]]))
  np.testing.assert_array_equal(gaussian.logvar.ravel(), [-30, 20])
  assert np.isfinite(gaussian.kl()).all()


def test_samples_have_the_mean_and_the_standard_deviation():
  shape = (1, 64, 64, 2)
  logvar = jnp.broadcast_to(2 * jnp.log(jnp.array([0.1, 2.0])), shape)
  draws = Gaussian.create(jnp.full(shape, 3.0), logvar).sample(jax.random.key(0))
  np.testing.assert_allclose(draws.std((0, 1, 2)), [0.1, 2.0], rtol=0.05)
  np.testing.assert_allclose(draws.mean((0, 1, 2)), 3.0, atol=0.1)


def test_it_passes_through_jit_in_float32():
  mean = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
  out = jax.jit(Gaussian.create)(mean, mean)
  assert out.mean.dtype == out.logvar.dtype == jnp.float32
