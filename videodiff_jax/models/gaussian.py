"""The diagonal Gaussian that both autoencoders encode to."""

import chex
import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Gaussian:
  """A diagonal Gaussian over (b, h, w, c) features, float32. Build it with `create`."""

  mean: jax.Array
  logvar: jax.Array

  @classmethod
  def create(cls, mean: jax.Array, logvar: jax.Array) -> "Gaussian":
    """Casts to float32 and clamps the log-variance to [-30, 20]."""
    chex.assert_rank(mean, 4)
    chex.assert_equal_shape([mean, logvar])
    logvar = jnp.clip(logvar.astype(jnp.float32), -30.0, 20.0)
    return cls(mean.astype(jnp.float32), logvar)

  @property
  def std(self) -> jax.Array:
    return jnp.exp(0.5 * self.logvar)

  def sample(self, key: jax.Array) -> jax.Array:
    """Samples mean + std * n, n ~ N(0, I) (GLOBER Eq. 1)."""
    return self.mean + self.std * jax.random.normal(key, self.mean.shape)

  def kl(self) -> jax.Array:
    """Returns the KL divergence (b,) to N(0, I) in nats, summed over h, w, c (GLOBER Eq. 2)."""
    terms = jnp.square(self.mean) + jnp.exp(self.logvar) - 1.0 - self.logvar
    return 0.5 * terms.sum(axis=(1, 2, 3))
