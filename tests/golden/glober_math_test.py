"""Schedules, samplers, losses and the optimiser against arrays of the authors' release."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import golden_dir
from videodiff_jax.diffusion.guidance import guide
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.glober.adversarial import hinge
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.layers import sinusoid


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  folder = golden_dir(metafunc.config)
  files = sorted(folder.glob("glober/schedules_losses*.npz"))
  ids = [str(file.relative_to(folder)) for file in files]
  metafunc.parametrize("file", files, ids=ids, scope="module")


@pytest.fixture(scope="module")
def golden(file: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(file) as arrays:
    return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def config(golden: dict[str, np.ndarray]) -> dict:
  return json.loads(str(golden["config"]))


@pytest.fixture(scope="module")
def process(config: dict) -> Process:
  schedule = make_schedule(
    "scaled_linear", config["timesteps"], config["linear_start"], config["linear_end"]
  )
  return Process(schedule, "epsilon")


def analytic(config: dict, x: jax.Array, t: jax.Array) -> jax.Array:
  """The denoiser written in the file's config, evaluated."""
  expression = config["analytic"].split("=", 1)[1]
  t = jnp.asarray(t, jnp.float32).reshape(-1, *(1,) * (x.ndim - 1))
  return eval(expression, {"sin": jnp.sin, "cos": jnp.cos, "x": x, "t": t})


def close(actual, truth: np.ndarray, atol: float = 2e-5, rtol: float = 1e-5) -> None:
  np.testing.assert_allclose(np.asarray(actual), truth, rtol=rtol, atol=atol)


def test_schedule_buffers(golden, process) -> None:
  schedule = process.schedule
  abar = schedule.alphas_cumprod
  variance = schedule.posterior_variance
  of_x0, of_xt = schedule.posterior_mean_coefficients
  weights = schedule.betas**2 / (2 * np.maximum(variance, 1e-300) * (1 - schedule.betas))
  weights /= 1 - abar
  weights[0] = weights[1]
  buffers = {
    "betas": schedule.betas,
    "alphas_cumprod": abar,
    "alphas_cumprod_prev": np.append(1.0, abar[:-1]),
    "sqrt_alphas_cumprod": np.sqrt(abar),
    "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - abar),
    "sqrt_recip_alphas_cumprod": np.sqrt(1 / abar),
    "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / abar - 1),
    "posterior_variance": variance,
    "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
    "posterior_mean_coef1": of_x0,
    "posterior_mean_coef2": of_xt,
    "lvlb_weights": weights,
  }
  for name, value in buffers.items():
    np.testing.assert_allclose(value, golden[f"out/{name}"], rtol=1e-4, err_msg=name)


def test_ddim_grid_and_tables(golden, config, process) -> None:
  for steps in config["ddim_steps"]:
    for eta in (0, 1):
      sampler = make_sampler(process, "ddim", steps, grid="leading", final="abar0", eta=float(eta))
      ascending = sampler.timesteps[::-1].astype(int)
      np.testing.assert_array_equal(ascending, golden[f"out/ddim_timesteps_{steps}"])
      close(sampler.tables["noise"][::-1], golden[f"out/ddim_sigmas_{steps}_eta{eta}"], 1e-6, 1e-4)
      close(sampler.tables["x0"][::-1] ** 2, golden[f"out/ddim_alphas_prev_{steps}"], 1e-6, 1e-4)
    abar = process.schedule.alphas_cumprod[ascending]
    close(abar, golden[f"out/ddim_alphas_{steps}"], 1e-6, 1e-4)


def test_ddim_trajectory(golden, config, process) -> None:
  for steps in config["ddim_steps"]:
    sampler = make_sampler(process, "ddim", steps, grid="leading", final="abar0")
    state = sampler.start(jnp.asarray(golden["in/ddim_x_T"]))
    truth = golden[f"out/ddim_x_traj_{steps}"]
    for i, t in enumerate(sampler.timesteps):
      times = jnp.full(len(state.x), t)
      prediction = analytic(config, state.x, times)
      close(
        process.to_x0(state.x, times, prediction),
        golden[f"out/ddim_predx0_traj_{steps}"][i],
        1e-4,
      )
      state = sampler.step(process, i, state, prediction)
      close(state.x, truth[i + 1], 1e-4)
    close(state.x, golden[f"out/ddim_final_{steps}"], 1e-4)


def test_guided_ddim(golden, config, process) -> None:
  """cfg_analytic names the two branches as multiples of eps: 'cond: eps*(1+0.3), uncond: eps'."""
  branches = dict(part.split(":") for part in config["cfg_analytic"].split(","))
  factor = {name.strip(): eval(text, {"eps": 1.0}) for name, text in branches.items()}
  sampler = make_sampler(process, "ddim", config["cfg_steps"], grid="leading", final="abar0")
  x_T = jnp.asarray(golden["in/ddim_x_T"])

  def denoise(x, t, condition, carry):
    return analytic(config, x, t) * condition.reshape(-1, *(1,) * (x.ndim - 1)), carry

  ones = jnp.ones(len(x_T))
  guided = guide(denoise, ones * factor["cond"], ones * factor["uncond"], config["cfg_scale"])
  state = sampler.start(x_T)
  for i, t in enumerate(sampler.timesteps):
    prediction, _ = guided(state.x, jnp.full(len(x_T), t), None)
    state = sampler.step(process, i, state, prediction)
  truth = golden["out/ddim_cfg_final"]
  close(state.x, truth, 1e-4 * np.abs(truth).max())


def test_q_sample_and_x0(golden, process) -> None:
  x0, t, noise = (jnp.asarray(golden[f"in/q_{name}"]) for name in ("x0", "t", "noise"))
  x_t = process.q_sample(x0, t, noise)
  close(x_t, golden["out/q_sample"])
  # The recording passed 0.9 of the noise as the prediction, so that x_0 differs from the input.
  close(process.to_x0(x_t, t, 0.9 * noise), golden["out/x0_from_eps"], 1e-4)


def test_kl_and_std(golden) -> None:
  mean, logvar = np.split(np.moveaxis(golden["in/kl_moments"], 1, -1), 2, -1)
  posterior = Gaussian.create(jnp.asarray(mean), jnp.asarray(logvar))
  np.testing.assert_allclose(posterior.kl(), golden["out/kl"], rtol=1e-5)
  std = jnp.exp(0.5 * posterior.logvar)
  np.testing.assert_allclose(np.moveaxis(std, -1, 1), golden["out/kl_std"], rtol=1e-4)


def test_hinge(golden) -> None:
  logits = jnp.asarray(golden["in/logits"])
  labels = jnp.asarray(golden["in/hinge_D_labels"])
  name = next(key for key in golden if key.startswith("out/hinge_D_"))
  close(hinge(logits, labels).mean(), golden[name])
  # The autoencoder's three pairs are half as many as the discriminator's six.
  logits = logits[: len(logits) // 2]
  close(hinge(logits, jnp.ones_like(logits)).mean(), golden["out/hinge_G_all_real_labels"])


def test_sinusoid(golden) -> None:
  for name in (key for key in golden if key.startswith("out/timestep_embedding_")):
    width = int(name.rsplit("_", 1)[1])
    close(sinusoid(jnp.asarray(golden["in/emb_positions"]), width), golden[name], 1e-4)


def test_adamw_with_torch_defaults(golden) -> None:
  optimizer = optax.adamw(1e-2, weight_decay=0.01)
  params = jnp.asarray(golden["in/adamw_p0"])
  state = optimizer.init(params)
  for gradient, truth in zip(golden["in/adamw_grads"], golden["out/adamw_traj_lr1e-2_defaults"]):
    updates, state = optimizer.update(jnp.asarray(gradient), state, params)
    params = optax.apply_updates(params, updates)
    close(params, truth)
