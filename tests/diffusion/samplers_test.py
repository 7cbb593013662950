"""Samplers against Eq. 6, the exact solution of a toy problem, and diffusers' schedulers."""

import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import needs
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import (
  FINALS,
  GRIDS,
  KINDS,
  Denoiser,
  SamplerState,
  make_sampler,
  sample,
)
from videodiff_jax.diffusion.schedules import make_schedule

PROCESS = Process(make_schedule())


def steps(
  process: Process,
  sampler: Any,
  x: jax.Array,
  predict: Callable[[jax.Array, float], jax.Array],
  noise: np.ndarray | None = None,
) -> list[np.ndarray]:
  """x after every step, through the public `step`."""
  state, trajectory = sampler.start(jnp.asarray(x, jnp.float32)), []
  step = jax.jit(lambda *args: sampler.step(process, *args))
  for i, t in enumerate(sampler.timesteps):
    prediction = predict(state.x, t)
    state = step(i, state, prediction, None if noise is None else noise[i])
    trajectory.append(np.asarray(state.x))
  return trajectory


# ---- one signature


def knows(x0: jax.Array) -> Denoiser:
  """The denoiser of a data set with one point."""

  def denoise(x: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
    alpha, sigma = PROCESS.alpha_sigma(t, x.ndim)
    return (x - alpha * x0) / sigma, carry

  return denoise


@pytest.mark.parametrize(("kind", "grid", "final"), list(itertools.product(KINDS, GRIDS, FINALS)))
def test_every_combination_reaches_the_data(kind: str, grid: str, final: str) -> None:
  """With a perfect denoiser every sampler is exact: x_0, or x_0 and its noise at t = 0."""
  x0, noise = jax.random.normal(jax.random.key(0), (2, 2, 3))
  sampler = make_sampler(PROCESS, kind, 5, grid=grid, final=final)
  x_T = PROCESS.q_sample(x0, jnp.full(2, sampler.timesteps[0]), noise)
  drawn = sample(knows(x0), PROCESS, sampler, x_T, jax.random.split(jax.random.key(1), 2))
  assert drawn.dtype == jnp.float32
  alpha, sigma = PROCESS.alpha_sigma(jnp.zeros(1), 2)
  if final == "x0":
    np.testing.assert_allclose(drawn, x0, atol=2e-5)
  elif kind == "ddpm":  # ends at fresh noise of t = 0, sigma = 0.03
    assert (np.abs(drawn - alpha * x0) < 5 * sigma).all()
  else:
    np.testing.assert_allclose(drawn, alpha * x0 + sigma * noise, atol=2e-5)


def test_carry_passes_through_every_step() -> None:
  """A denoiser that caches (here: counts its calls and predicts the count)."""
  sampler = make_sampler(PROCESS, "ddim", 4)
  seen = []

  def denoise(x: jax.Array, t: jax.Array, carry: jax.Array) -> tuple[jax.Array, jax.Array]:
    jax.debug.callback(lambda count, t: seen.append((int(count), float(t[0]))), carry, t)
    return jnp.zeros_like(x), carry + 1

  sample(denoise, PROCESS, sampler, jnp.ones((1, 2)), carry=jnp.asarray(0)).block_until_ready()
  jax.effects_barrier()
  assert sorted(seen) == list(enumerate(sampler.timesteps))


# ---- grids


@pytest.mark.parametrize("num_steps", [1, 7, 20, 1000])
def test_uniform_grid(num_steps: int) -> None:
  timesteps = make_sampler(PROCESS, "ddim", num_steps).timesteps
  assert len(timesteps) == num_steps and timesteps[0] == 999
  gaps = -np.diff(np.append(timesteps, -1))
  assert (timesteps == timesteps.round()).all() and gaps.min() >= 1
  assert gaps.max() - gaps.min() <= 1


def test_log_snr_grid_is_uniform_in_log_snr() -> None:
  timesteps = make_sampler(PROCESS, "ddim", 20, grid="log_snr").timesteps
  assert (timesteps[0], timesteps[-1]) == (999, 0)
  gaps = np.diff(PROCESS.log_snr(jnp.asarray(timesteps)))
  np.testing.assert_allclose(gaps, gaps.mean(), rtol=1e-3)


def test_log_snr_grid_of_a_cosine_schedule_is_refused_where_steps_see_noise_alone() -> None:
  """Its log-SNR begins at -11: 5 of 10 steps would lie past t = 986. Three steps as in old runs."""
  cosine = Process(make_schedule("cosine", max_beta=0.9999), "v_prediction")
  few = make_sampler(cosine, "dpmpp_2m", 3, grid="log_snr").timesteps
  np.testing.assert_allclose(few, [999, 967.4, 0], atol=0.1)
  for num_steps, blind in ((4, 2), (10, 4), (50, 19)):
    message = rf"put {blind} of {num_steps} steps past t = 995, where .*'uniform' or 'spaced'"
    with pytest.raises(ValueError, match=message):
      make_sampler(cosine, "dpmpp_2m", num_steps, grid="log_snr")
  for kind in ("linear", "scaled_linear"):
    betas = {"beta_start": 1e-4, "beta_end": 0.02} if kind == "linear" else {}
    make_sampler(Process(make_schedule(kind, **betas)), "dpmpp_2m", 50, grid="log_snr")


def test_leading_grid_is_the_release_s() -> None:
  timesteps = make_sampler(PROCESS, "ddim", 50, grid="leading").timesteps
  np.testing.assert_array_equal(timesteps, np.arange(981, 0, -20))


@pytest.mark.parametrize("num_steps", [3, 9, 27, 600])
def test_leading_grid_past_the_end_is_an_error(num_steps: int) -> None:
  """Where the release indexes its tables at 1000."""
  with pytest.raises(ValueError, match=r"timestep 1000, past the last.*grid='uniform'"):
    make_sampler(PROCESS, "ddim", num_steps, grid="leading")


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"kind": "euler"}, r"sampler 'euler'.*ddim, ddpm, dpmpp_2m, unipc"),
    ({"grid": "karras"}, r"grid 'karras'.*uniform, log_snr, leading, spaced"),
    ({"final": "x1"}, r"end of sampling 'x1'.*x0, abar0"),
    ({"grid": "spaced", "num_steps": 1}, r"'spaced' needs 2 steps"),
    ({"num_steps": 0}, r"between 1 and 1000, not 0"),
    ({"num_steps": 1001}, r"between 1 and 1000, not 1001"),
    ({"kind": "unipc", "eta": 0.5}, r"eta is DDIM's own"),
  ],
)
def test_errors_list_the_choices(settings: dict[str, Any], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    make_sampler(PROCESS, **settings)


def test_noise_needs_keys() -> None:
  sampler = make_sampler(PROCESS, "ddim", 5, eta=1.0)
  with pytest.raises(ValueError, match="one PRNG key per sample"):
    sample(knows(jnp.zeros(3)), PROCESS, sampler, jnp.zeros((2, 3)))


def test_spaced_grid_is_lgc_vd_s() -> None:
  timesteps = make_sampler(PROCESS, "ddpm", 100, grid="spaced").timesteps
  assert timesteps[[0, 1, -2, -1]].tolist() == [999, 989, 10, 0]
  sections = make_sampler(PROCESS, "ddpm", (3, 2), grid="spaced").timesteps
  assert sections.tolist() == [999, 500, 499, 250, 0]


# ---- clipping


@pytest.mark.parametrize("kind", KINDS)
def test_clipped_samples_stay_in_range(kind: str) -> None:
  """A denoiser of a point outside [-1, 1] is drawn to the border."""
  x0 = jnp.array([[2.0, -1.5, 0.5]])
  clipped, free = (make_sampler(PROCESS, kind, 10, clip=clip) for clip in (True, False))
  keys = jax.random.split(jax.random.key(0), 1)
  drawn = sample(knows(x0), PROCESS, clipped, jnp.ones((1, 3)), keys)
  np.testing.assert_allclose(drawn, [[1.0, -1.0, 0.5]], atol=1e-4)
  # What is in range already is left alone.
  inside = 0.5 * x0[:, 2:]
  ends = [sample(knows(inside), PROCESS, s, jnp.ones((1, 1)), keys) for s in (clipped, free)]
  np.testing.assert_allclose(*ends, atol=1e-5)


def test_the_posterior_s_mean_is_that_of_the_clipped_sample() -> None:
  sampler = make_sampler(PROCESS, "ddpm", 1000, clip=True)
  x_t = jnp.array([[0.3, -2.0]])
  alpha, sigma = PROCESS.alpha_sigma(jnp.full(1, 500), 2)
  prediction = (x_t - alpha * jnp.array([[1.7, -3.0]])) / sigma
  stepped = sampler.step(PROCESS, 499, SamplerState(x_t, ()), prediction, jnp.zeros_like(x_t))
  of_x0, of_xt = (c[500] for c in PROCESS.schedule.posterior_mean_coefficients)
  np.testing.assert_allclose(stepped.x, of_x0 * np.array([[1, -1]]) + of_xt * x_t, atol=1e-5)


# ---- noise


def test_given_noise_takes_the_place_of_keys() -> None:
  sampler = make_sampler(PROCESS, "ddpm", 3)
  x_T = jnp.ones((2, 2))
  noise = jax.random.normal(jax.random.key(0), (3, 2, 2))
  drawn = sample(knows(0.5), PROCESS, sampler, x_T, noise=noise)
  state = sampler.start(x_T)
  for i, t in enumerate(sampler.timesteps):
    prediction, _ = knows(0.5)(state.x, jnp.full(2, t), None)
    state = sampler.step(PROCESS, i, state, prediction, noise[i])
  np.testing.assert_allclose(drawn, state.x, atol=1e-6)


@pytest.mark.parametrize("settings", [{"kind": "ddpm"}, {"kind": "ddim", "eta": 1.0}])
def test_full_grid_is_the_posterior_of_eq_6(settings: dict[str, Any]) -> None:
  schedule = PROCESS.schedule
  sampler = make_sampler(PROCESS, num_steps=1000, **settings)
  np.testing.assert_array_equal(sampler.timesteps, np.arange(999, -1, -1))
  x_t, x0, noise = np.random.default_rng(0).standard_normal((3, 1, 4)).astype(np.float32)
  for t in (999, 500, 1, 0):
    alpha, sigma = PROCESS.alpha_sigma(jnp.full(1, t), 2)
    state = SamplerState(jnp.asarray(x_t), ())
    i = 999 - t
    without = sampler.step(PROCESS, i, state, (x_t - alpha * x0) / sigma, np.zeros_like(noise))
    with_noise = sampler.step(PROCESS, i, state, (x_t - alpha * x0) / sigma, noise)
    of_x0, of_xt = schedule.posterior_mean_coefficients
    np.testing.assert_allclose(without.x, of_x0[t] * x0 + of_xt[t] * x_t, atol=1e-5)
    std = np.sqrt(schedule.posterior_variance[t])
    np.testing.assert_allclose(with_noise.x - without.x, std * noise, atol=1e-6)


@pytest.mark.parametrize(("eta", "correlation"), [(0.0, 1.0), (1.0, 0.0)])
def test_eta_keeps_the_marginals_and_renews_the_noise(eta: float, correlation: float) -> None:
  """Over one data point x has mean alpha x_0 and std sigma at every t, whatever eta."""
  noise = jax.random.normal(jax.random.key(0), (4000, 1))
  x0 = jnp.full_like(noise, 2.0)
  sampler = make_sampler(PROCESS, "ddim", 10, final="abar0", eta=eta)
  x_T = PROCESS.q_sample(x0, jnp.full(len(x0), 999), noise)
  keys = jax.random.split(jax.random.key(1), len(x0))
  x = np.asarray(sample(knows(x0), PROCESS, sampler, x_T, keys))
  alpha, sigma = (float(a[0]) for a in PROCESS.alpha_sigma(jnp.zeros(1), 1))
  assert x.mean() == pytest.approx(2.0 * alpha, abs=0.05 * sigma)
  assert x.std() == pytest.approx(sigma, rel=0.04)
  left = np.corrcoef(x.ravel(), np.ravel(noise))[0, 1]
  assert left == pytest.approx(correlation, abs=0.05)


@pytest.mark.parametrize("settings", [{"kind": "ddpm"}, {"kind": "ddim", "eta": 0.5}])
def test_a_sample_does_not_depend_on_its_batch(settings: dict[str, Any]) -> None:
  sampler = make_sampler(PROCESS, num_steps=5, **settings)
  keys = jax.random.split(jax.random.key(0), 3)
  x_T = jax.random.normal(jax.random.key(1), (3, 4))

  def draw(rows: slice) -> np.ndarray:
    return np.asarray(sample(toy_denoise, PROCESS, sampler, x_T[rows, :2], keys[rows]))

  together = draw(slice(None))
  for i in range(3):
    np.testing.assert_allclose(draw(slice(i, i + 1)), together[i : i + 1], atol=1e-6)
  assert (
    np.abs(together - sample(toy_denoise, PROCESS, sampler, x_T[:, :2], keys[::-1])).max() > 0.01
  )


# ---- the exact solution: five Gaussians in the plane, whose score is known


CENTRES = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
SPREAD = 0.3


def posterior_mean(x: Any, alpha: Any, sigma: Any, xp: ModuleType) -> Any:
  """E[x_0 | x_t] of the mixture."""
  variance = (alpha * SPREAD) ** 2 + sigma**2
  away = x[:, None] - alpha * CENTRES[None]
  logits = -0.5 * (away**2).sum(-1) / variance
  weights = xp.exp(logits - logits.max(1, keepdims=True))
  each = CENTRES[None] + alpha * SPREAD**2 / variance * away
  return (weights[..., None] * each).sum(1) / weights.sum(1, keepdims=True)


def toy_denoise(x: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
  alpha, sigma = (a[0] for a in PROCESS.alpha_sigma(t, 1))
  return (x - alpha * posterior_mean(x, alpha, sigma, jnp)) / sigma, carry


def exact(x: np.ndarray, num_steps: int = 400) -> np.ndarray:
  """The ODE d(x / sigma) / d lambda = e^lambda x_0 by Runge-Kutta in float64."""
  log_snr = np.linspace(*PROCESS.schedule.log_snr[[-1, 0]], num_steps + 1)

  def x0(y: np.ndarray, at: float) -> np.ndarray:
    alpha, sigma = (1 + np.exp(-2 * at)) ** -0.5, (1 + np.exp(2 * at)) ** -0.5
    return posterior_mean(y * sigma, alpha, sigma, np)

  def slope(y: np.ndarray, at: float) -> np.ndarray:
    return np.exp(at) * x0(y, at)

  y = x * (1 + np.exp(2 * log_snr[0])) ** 0.5
  for at, h in zip(log_snr, np.diff(log_snr)):
    k_1 = slope(y, at)
    k_2 = slope(y + h / 2 * k_1, at + h / 2)
    k_3 = slope(y + h / 2 * k_2, at + h / 2)
    k_4 = slope(y + h * k_3, at + h)
    y = y + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
  return x0(y, log_snr[-1])


@pytest.fixture(scope="module")
def error() -> Callable[..., float]:
  """(kind, steps, grid) -> RMS distance to the exact solution; data have RMS 0.8."""
  x_T = np.random.default_rng(1).standard_normal((128, 2)).astype(np.float32)
  truth = exact(x_T.astype(np.float64))

  def measure(kind: str, num_steps: int, grid: str = "log_snr") -> float:
    sampler = make_sampler(PROCESS, kind, num_steps, grid=grid)
    drawn = sample(toy_denoise, PROCESS, sampler, jnp.asarray(x_T))
    return float(np.sqrt(np.mean((drawn - truth) ** 2)))

  return measure


def test_multistep_samplers_are_nearer_at_20_steps(error) -> None:
  """Measured: DDIM 0.066, DPM-Solver++ 0.0050 (13 times nearer), UniPC 0.0021 (31 times)."""
  ddim = error("ddim", 20, "uniform")
  assert ddim == pytest.approx(0.066, rel=0.2)
  assert error("dpmpp_2m", 20) < ddim / 8
  assert error("unipc", 20) < ddim / 20


@pytest.mark.parametrize(("kind", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("unipc", 3)])
def test_order_of_convergence(error, kind: str, order: int) -> None:
  """Half the step, 2^order times nearer."""
  assert np.log2(error(kind, 20) / error(kind, 40)) == pytest.approx(order, abs=0.25)


# ---- diffusers


def smooth(xp: ModuleType, x: Any, t: float) -> Any:
  """A prediction near x, as noise is at large t, where x_0 is amplified; for jax and torch."""
  return 0.9 * x + 0.1 * xp.sin(2.0 * x + t / 300.0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
  ("kind", "name", "settings"),
  [
    ("ddim", "DDIMScheduler", {"set_alpha_to_one": True, "clip_sample": False}),
    ("ddpm", "DDPMScheduler", {"clip_sample": False}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}),
    ("unipc", "UniPCMultistepScheduler", {"final_sigmas_type": "zero"}),
  ],
)
def test_equals_diffusers_step_by_step(
  kind: str, name: str, settings: dict[str, Any], prediction_type: str
) -> None:
  """'trailing' is the uniform grid; both sides follow their own trajectory."""
  diffusers, torch = needs("diffusers"), needs("torch")
  num_steps = 10
  scheduler = getattr(diffusers, name)(
    1000, 8.5e-4, 1.2e-2, "scaled_linear",
    timestep_spacing="trailing", prediction_type=prediction_type, **settings,
  )  # fmt: skip
  scheduler.set_timesteps(num_steps)
  process = Process(make_schedule(), prediction_type)
  sampler = make_sampler(process, kind, num_steps)
  np.testing.assert_array_equal(sampler.timesteps, scheduler.timesteps.numpy())

  x_T = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
  noise = torch.randn((num_steps, *x_T.shape), generator=torch.Generator().manual_seed(0))
  generator = {"generator": torch.Generator().manual_seed(0)} if kind == "ddpm" else {}
  ours = steps(process, sampler, x_T, lambda x, t: smooth(jnp, x, t), noise.numpy())
  x = torch.from_numpy(x_T)
  for t, mine in zip(scheduler.timesteps, ours):
    x = scheduler.step(smooth(torch, x, float(t)), t, x, **generator).prev_sample
    np.testing.assert_allclose(mine, x.numpy(), atol=2e-5)
