"""The forward process, the network's prediction target, and the loss."""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from videodiff_jax.choices import check_choice
from videodiff_jax.diffusion.schedules import Schedule

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
LOSS_WEIGHTINGS = ("uniform", "min_snr")
LOSS_NORMS = ("l2", "l1")


@dataclasses.dataclass(frozen=True)
class Process:
  """A schedule together with the meaning of the network's output.

  Every method takes arrays with a leading batch axis and timesteps t of shape (b,). They are
  integers in training and real numbers in [0, T-1] in sampling (log-SNR is interpolated linearly).

  Attributes:
    schedule: the noise schedule.
    prediction_type: 'epsilon' (the noise: GLOBER Eq. 7, LGC-VD Eq. 8), 'v_prediction' (alpha noise
      - sigma x_0: LGC-VD Sec. 4.2) or 'sample' (x_0).
    loss_weighting: 'uniform' (both papers) or 'min_snr' (Hang et al. 2023, gamma = 5).
    loss_norm: 'l2' (both papers: squared errors) or 'l1' (absolute errors: LGC-VD's release).
    timestep_power: t = T u^(1 / power) for uniform u. 1 draws t uniformly (the paper). 2 draws
      noisy timesteps more often, where a frame's content has to come from its condition.
  """

  schedule: Schedule
  prediction_type: str = "epsilon"
  loss_weighting: str = "uniform"
  loss_norm: str = "l2"
  timestep_power: float = 1.0

  def __post_init__(self) -> None:
    check_choice("prediction type", self.prediction_type, PREDICTION_TYPES)
    check_choice("loss weighting", self.loss_weighting, LOSS_WEIGHTINGS)
    check_choice("loss norm", self.loss_norm, LOSS_NORMS)
    if self.loss_weighting == "min_snr" and self.loss_norm != "l2":
      raise ValueError("loss_weighting='min_snr' weights squared errors: use loss_norm='l2'.")

  @property
  def num_timesteps(self) -> int:
    return self.schedule.num_timesteps

  def log_snr(self, t: jax.Array) -> jax.Array:
    """Returns lambda_t (b,), float32."""
    table = jnp.asarray(self.schedule.log_snr, jnp.float32)
    below = jnp.floor(t).astype(jnp.int32)
    above = jnp.minimum(below + 1, self.num_timesteps - 1)
    return table[below] + (t - below) * (table[above] - table[below])

  def alpha_sigma(self, t: jax.Array, ndim: int) -> tuple[jax.Array, jax.Array]:
    """Returns sqrt(abar_t) and sqrt(1 - abar_t), shaped (b, 1, ...) for arrays of rank ndim."""
    double = 2.0 * self.log_snr(t).reshape(t.shape + (1,) * (ndim - t.ndim))
    return jnp.sqrt(jax.nn.sigmoid(double)), jnp.sqrt(jax.nn.sigmoid(-double))

  def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws integer training timesteps in 0..T-1, independent for every entry of `shape`."""
    uniform = jax.random.uniform(key, shape) ** (1.0 / self.timestep_power)
    t = jnp.floor(uniform * self.num_timesteps).astype(jnp.int32)
    return jnp.minimum(t, self.num_timesteps - 1)

  def q_sample(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, a sample from q(x_t | x_0).

    GLOBER Eq. 4-5 (the latter misprints the root), LGC-VD Eq. 3.
    """
    _check_batch(t, x0, noise)
    alpha, sigma = self.alpha_sigma(t, x0.ndim)
    return alpha * x0 + sigma * noise

  def target(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns the network's training target, shaped like x0."""
    _check_batch(t, x0, noise)
    if self.prediction_type == "epsilon":
      return noise
    if self.prediction_type == "sample":
      return x0
    alpha, sigma = self.alpha_sigma(t, x0.ndim)
    return alpha * noise - sigma * x0

  def to_x0(self, x_t: jax.Array, t: jax.Array, prediction: jax.Array) -> jax.Array:
    """Converts a prediction to x_0: GLOBER Eq. 9 (which misprints the root), LGC-VD Eq. 7."""
    _check_batch(t, x_t, prediction)
    return self.x0_at(*self.alpha_sigma(t, x_t.ndim), x_t, prediction)

  def x0_at(
    self, alpha: jax.Array, sigma: jax.Array, x_t: jax.Array, prediction: jax.Array
  ) -> jax.Array:
    """Converts a prediction to x_0 as `to_x0`, where x_t = alpha x_0 + sigma noise."""
    if self.prediction_type == "epsilon":
      return (x_t - sigma * prediction) / alpha
    if self.prediction_type == "v_prediction":
      return alpha * x_t - sigma * prediction
    return prediction

  def epsilon_at(
    self, alpha: jax.Array, sigma: jax.Array, x_t: jax.Array, prediction: jax.Array
  ) -> jax.Array:
    """Converts a prediction to the noise, where x_t = alpha x_0 + sigma noise."""
    if self.prediction_type == "epsilon":
      return prediction
    if self.prediction_type == "v_prediction":
      return alpha * prediction + sigma * x_t
    return (x_t - alpha * prediction) / sigma

  def loss(self, prediction: jax.Array, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns each sample's weighted mean squared (or absolute) error (b,), float32.

    GLOBER Eq. 7, LGC-VD Eq. 8.
    """
    _check_batch(t, x0, prediction, noise)
    error = (prediction - self.target(x0, t, noise)).astype(jnp.float32)
    error = jnp.square(error) if self.loss_norm == "l2" else jnp.abs(error)
    error = error.reshape(*t.shape, -1).mean(-1)
    if self.loss_weighting == "uniform":
      return error
    snr = jnp.exp(2.0 * self.log_snr(t))
    per_type = {"epsilon": snr, "v_prediction": snr + 1.0, "sample": jnp.ones_like(snr)}
    return error * jnp.minimum(snr, 5.0) / per_type[self.prediction_type]


def _check_batch(t: jax.Array, *arrays: jax.Array) -> None:
  """Asserts that the arrays have one shape, which begins with that of their timesteps."""
  chex.assert_equal_shape(arrays)
  chex.assert_tree_shape_prefix(arrays, t.shape)
