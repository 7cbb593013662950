import numpy as np
import pytest

from tests.helpers import needs
from videodiff_jax.diffusion.schedules import KINDS, make_schedule, spaced_timesteps


def test_scaled_linear_is_glober_s() -> None:
  schedule = make_schedule()
  assert schedule.num_timesteps == 1000
  np.testing.assert_allclose(schedule.betas[[0, -1]], [8.5e-4, 1.2e-2])
  roots = np.sqrt(schedule.betas)
  np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / 999)
  # What DESIGN.md's warning is about: x_0 is amplified 14.6 times at the last timestep.
  assert schedule.alphas_cumprod[-1] ** -0.5 == pytest.approx(14.6, abs=0.05)


def test_linear() -> None:
  betas = make_schedule("linear", 100, 1e-4, 0.02).betas
  np.testing.assert_allclose(betas, 1e-4 + (0.02 - 1e-4) * np.arange(100) / 99)


def test_cosine() -> None:
  """abar_t = f(t) / f(0), f a squared cosine (Nichol & Dhariwal Eq. 17)."""
  schedule = make_schedule("cosine", 1000)
  f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(schedule.alphas_cumprod[:-1], f[1:-1] / f[0], rtol=1e-9)
  assert schedule.betas[-1] == 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_from_the_betas(kind: str) -> None:
  schedule = make_schedule(kind, 50)
  signal, noise = schedule.alphas_cumprod, 1.0 - schedule.alphas_cumprod
  np.testing.assert_allclose(signal[3], np.prod(1.0 - schedule.betas[:4]))
  np.testing.assert_allclose(np.exp(2.0 * schedule.log_snr), signal / noise)
  assert (np.diff(schedule.log_snr) < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_posterior_is_bayes_rule(kind: str) -> None:
  """q(x_{t-1} | x_t, x_0) of Eq. 6 as the product of two Gaussians in x_{t-1}."""
  schedule = make_schedule(kind, 50)
  t = np.arange(1, 50)
  beta, before = schedule.betas[t], schedule.alphas_cumprod[t - 1]
  # x_{t-1} | x_0 has variance 1 - before; x_t | x_{t-1} has mean sqrt(1 - beta) x_{t-1}.
  precision = 1.0 / (1.0 - before) + (1.0 - beta) / beta
  of_x0, of_xt = schedule.posterior_mean_coefficients
  np.testing.assert_allclose(schedule.posterior_variance[t], 1.0 / precision)
  np.testing.assert_allclose(of_x0[t], np.sqrt(before) / (1.0 - before) / precision)
  np.testing.assert_allclose(of_xt[t], np.sqrt(1.0 - beta) / beta / precision)
  assert (schedule.posterior_variance[0], of_x0[0], of_xt[0]) == pytest.approx((0.0, 1.0, 0.0))


@pytest.mark.parametrize(
  ("kind", "theirs"),
  [("scaled_linear", "scaled_linear"), ("linear", "linear"), ("cosine", "squaredcos_cap_v2")],
)
def test_equals_diffusers(kind: str, theirs: str) -> None:
  diffusers, _ = needs("diffusers"), needs("torch")
  other = diffusers.DDPMScheduler(1000, 8.5e-4, 1.2e-2, theirs)
  schedule = make_schedule(kind)
  np.testing.assert_allclose(schedule.betas, other.betas.numpy(), rtol=1e-4)
  np.testing.assert_allclose(schedule.alphas_cumprod, other.alphas_cumprod.numpy(), rtol=2e-3)


def test_precision_and_clip_of_lgc_vd() -> None:
  exact, released = (
    make_schedule("cosine", max_beta=0.9999, precision=kind) for kind in ("float64", "float32")
  )
  assert exact.betas[-1] == 0.9999
  assert released.betas.dtype == released.alphas_cumprod.dtype == np.float32
  # 1 - beta of the last timestep is four digits of float32.
  error = released.alphas_cumprod[-1] / exact.alphas_cumprod[-1] - 1
  assert abs(error) == pytest.approx(1.7e-4, abs=2e-5)
  np.testing.assert_allclose(released.alphas_cumprod[:-1], exact.alphas_cumprod[:-1], rtol=1e-4)
  with pytest.raises(ValueError, match=r"'bfloat16'.*float64, float32"):
    make_schedule(precision="bfloat16")


def test_spaced_timesteps() -> None:
  hundred = spaced_timesteps(1000, [100])
  assert hundred[[0, 1, 5, 6, 7, -3, -2, -1]].tolist() == [0, 10, 50, 61, 71, 979, 989, 999]
  # Halves round to even.
  assert spaced_timesteps(1000, [3]).tolist() == [0, 500, 999]
  assert spaced_timesteps(998, [3]).tolist() == [0, 498, 997]
  # Sections of 4, 3 and 3 timesteps; a count of one keeps the first.
  assert spaced_timesteps(10, [2, 1, 3]).tolist() == [0, 3, 4, 7, 8, 9]
  np.testing.assert_array_equal(spaced_timesteps(50, [50]), np.arange(50))
  with pytest.raises(ValueError, match="section of 3 timesteps cannot keep 4"):
    spaced_timesteps(10, [2, 4, 3])


def test_unknown_kind_lists_the_choices() -> None:
  with pytest.raises(ValueError, match=r"'sigmoid'.*scaled_linear, linear, cosine"):
    make_schedule("sigmoid")
