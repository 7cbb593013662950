import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.diffusion.process import LOSS_NORMS, LOSS_WEIGHTINGS, PREDICTION_TYPES, Process
from videodiff_jax.diffusion.schedules import Schedule, make_schedule

T = jnp.array([0, 1, 499, 998, 999])


@pytest.fixture(scope="module")
def arrays() -> tuple[jax.Array, jax.Array]:
  """x_0 and noise, one sample for each entry of T."""
  draws = np.random.default_rng(0).standard_normal((2, len(T), 3, 2, 1))
  x0, noise = draws.astype(np.float32)
  return jnp.asarray(x0), jnp.asarray(noise)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_conversions_invert_one_another(prediction_type: str, arrays) -> None:
  x0, noise = arrays
  process = Process(make_schedule(), prediction_type)
  x_t = process.q_sample(x0, T, noise)
  target = process.target(x0, T, noise)
  # Where x_0 (or the noise) hardly shows in x_t, rounding is amplified by up to 34.
  np.testing.assert_allclose(process.to_x0(x_t, T, target), x0, atol=2e-5)
  level = process.alpha_sigma(T, x_t.ndim)
  np.testing.assert_allclose(process.epsilon_at(*level, x_t, target), noise, atol=2e-5)
  np.testing.assert_allclose(process.loss(target, x0, T, noise), np.zeros(len(T)))


def test_targets(arrays) -> None:
  x0, noise = arrays
  schedule = make_schedule()
  abar = schedule.alphas_cumprod[np.asarray(T)].reshape(-1, 1, 1, 1)
  expected = {
    "epsilon": noise,
    "sample": x0,
    "v_prediction": np.sqrt(abar) * noise - np.sqrt(1.0 - abar) * x0,
  }
  for prediction_type, truth in expected.items():
    process = Process(schedule, prediction_type)
    np.testing.assert_allclose(process.target(x0, T, noise), truth, rtol=1e-5, atol=1e-6)
  x_t = process.q_sample(x0, T, noise)
  np.testing.assert_allclose(
    x_t, np.sqrt(abar) * x0 + np.sqrt(1.0 - abar) * noise, rtol=1e-5, atol=1e-6
  )


def test_q_sample_keeps_unit_variance() -> None:
  process = Process(make_schedule())
  alpha, sigma = process.alpha_sigma(jnp.arange(1000), 1)
  np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-6)


def test_fractional_timesteps_interpolate_log_snr() -> None:
  process = Process(make_schedule())
  at = process.log_snr(jnp.array([10.0, 10.25, 11.0, 999.0]))
  table = process.schedule.log_snr
  expected = [table[10], 0.75 * table[10] + 0.25 * table[11], table[11], table[999]]
  np.testing.assert_allclose(at, expected, rtol=1e-6)


# abar = 0.9 and 0.5: signal-to-noise ratios 9 (above gamma = 5) and 1 (below it).
TWO_STEPS = Schedule(np.array([0.1, 4.0 / 9.0]))


@pytest.mark.parametrize(
  ("prediction_type", "weights"),
  [("epsilon", [5 / 9, 1.0]), ("v_prediction", [5 / 10, 1 / 2]), ("sample", [5.0, 1.0])],
)
def test_min_snr_weights(prediction_type: str, weights: list[float]) -> None:
  """Hang et al. 2023, gamma = 5; the error of every entry is 2, its square 4."""
  x0, noise, t = jnp.ones((2, 3)), jnp.zeros((2, 3)), jnp.array([0, 1])
  for weighting, expected in (("uniform", np.ones(2)), ("min_snr", np.array(weights))):
    process = Process(TWO_STEPS, prediction_type, weighting)
    prediction = process.target(x0, t, noise) + 2.0
    loss = process.loss(prediction, x0, t, noise)
    np.testing.assert_allclose(loss, 4.0 * expected, rtol=1e-5)


def test_loss_is_float32_per_sample() -> None:
  process = Process(make_schedule())
  x0 = jnp.zeros((2, 4, 4, 1))
  prediction = jnp.zeros(x0.shape, jnp.bfloat16).at[1].set(3.0)
  loss = process.loss(prediction, x0, jnp.array([5, 5]), x0)
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, [0.0, 9.0])


def test_l1_is_the_mean_absolute_error() -> None:
  process = Process(make_schedule(), "v_prediction", loss_norm="l1")
  x0, noise = jnp.ones((2, 3)), jnp.full((2, 3), 0.5)
  t = jnp.array([3, 800])
  error = jnp.array([[1.0, -2.0, 0.0], [0.0, 0.0, -6.0]])
  loss = process.loss(process.target(x0, t, noise) + error, x0, t, noise)
  np.testing.assert_allclose(loss, [1.0, 2.0], rtol=1e-6)
  with pytest.raises(ValueError, match=r"min_snr.*use loss_norm='l2'"):
    Process(make_schedule(), loss_weighting="min_snr", loss_norm="l1")


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.5), (2.0, 0.75)])
def test_drawn_timesteps(power: float, share: float) -> None:
  """P(t >= T/2) = 1 - (1/2)^power, and every timestep is in range."""
  process = Process(make_schedule(num_timesteps=100), timestep_power=power)
  t = np.asarray(process.draw_timesteps(jax.random.key(0), (5000,)))
  assert t.dtype == np.int32 and t.min() >= 0 and t.max() == 99
  assert (t >= 50).mean() == pytest.approx(share, abs=0.03)
  if power == 1.0:
    assert len(np.unique(t)) == 100


def test_unknown_names_list_the_choices() -> None:
  schedule = make_schedule()
  for settings, what, choices in (
    ({"prediction_type": "noise"}, "prediction type 'noise'", PREDICTION_TYPES),
    ({"loss_weighting": "snr"}, "loss weighting 'snr'", LOSS_WEIGHTINGS),
    ({"loss_norm": "huber"}, "loss norm 'huber'", LOSS_NORMS),
  ):
    with pytest.raises(ValueError, match=f"{what}.*{', '.join(choices)}"):
      Process(schedule, **settings)
