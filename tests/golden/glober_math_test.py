"""Schedules, samplers, losses and the optimiser against arrays of the authors' release."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.golden import expressions, files
from videodiff_jax.diffusion.guidance import guide
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.glober.adversarial import hinge
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.layers import sinusoid


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  folder = files.folder_of(metafunc.config)
  paths = sorted(folder.glob("glober/schedules_losses*.npz"))
  ids = [str(path.relative_to(folder)) for path in paths]
  metafunc.parametrize("path", paths, ids=ids, scope="module")


class Recording(dict[str, np.ndarray]):
  """A file's arrays by name; asking for one that it does not hold skips the test."""

  def __missing__(self, name: str) -> np.ndarray:
    pytest.skip(f"the file does not hold {name}")


@pytest.fixture(scope="module")
def golden(path: pathlib.Path) -> Recording:
  with np.load(path) as arrays:
    return Recording({name: arrays[name] for name in arrays.files})


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
  t = jnp.asarray(t, jnp.float32).reshape(-1, *(1,) * (x.ndim - 1))
  return expressions.evaluate(expressions.right_side(config["analytic"]), {"x": x, "t": t})


def close(actual, truth: np.ndarray, atol: float = 2e-5, rtol: float = 1e-5, name="") -> None:
  np.testing.assert_allclose(np.asarray(actual), truth, rtol=rtol, atol=atol, err_msg=name)


def compare(golden: Recording, ours: dict, atol: float, rtol: float = 1e-5) -> None:
  """Checks those of `ours` that the file holds."""
  held = [name for name in ours if f"out/{name}" in golden]
  if not held:
    pytest.skip(f"the file holds none of {', '.join(ours)}")
  for name in held:
    close(ours[name], golden[f"out/{name}"], atol, rtol, name)


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
  compare(golden, buffers, atol=0, rtol=1e-4)


def test_ddim_grid_and_tables(golden, config, process) -> None:
  ours = {}
  for steps in config["ddim_steps"]:
    for eta in (0, 1):
      sampler = make_sampler(process, "ddim", steps, grid="leading", final="abar0", eta=float(eta))
      ascending = sampler.timesteps[::-1].astype(int)
      ours |= {
        f"ddim_timesteps_{steps}": ascending,
        f"ddim_sigmas_{steps}_eta{eta}": sampler.tables["noise"][::-1],
        f"ddim_alphas_prev_{steps}": sampler.tables["x0"][::-1] ** 2,
        f"ddim_alphas_{steps}": process.schedule.alphas_cumprod[ascending],
      }
  compare(golden, ours, 1e-6, 1e-4)


def test_ddim_trajectory(golden, config, process) -> None:
  ours = {}
  for steps in config["ddim_steps"]:
    sampler = make_sampler(process, "ddim", steps, grid="leading", final="abar0")
    state = sampler.start(jnp.asarray(golden["in/ddim_x_T"]))
    states, estimates = [state.x], []
    for i, t in enumerate(sampler.timesteps):
      times = jnp.full(len(state.x), t)
      prediction = analytic(config, state.x, times)
      estimates.append(process.to_x0(state.x, times, prediction))
      state = sampler.step(process, i, state, prediction)
      states.append(state.x)
    ours |= {
      f"ddim_x_traj_{steps}": np.stack(states),
      f"ddim_predx0_traj_{steps}": np.stack(estimates),
      f"ddim_final_{steps}": state.x,
    }
  compare(golden, ours, 1e-4)


def test_guided_ddim(golden, config, process) -> None:
  """cfg_analytic makes the two branches of eps: 'cond: eps*(1+0.3), uncond: eps'."""
  truth, x_T = golden["out/ddim_cfg_final"], jnp.asarray(golden["in/ddim_x_T"])
  formulas = expressions.branches(config["cfg_analytic"])
  sampler = make_sampler(process, "ddim", config["cfg_steps"], grid="leading", final="abar0")

  def denoise(x, t, conditional, carry):
    eps = analytic(config, x, t)
    branches = [expressions.evaluate(formulas[name], {"eps": eps}) for name in ("cond", "uncond")]
    return jnp.where(conditional.reshape(-1, *(1,) * (x.ndim - 1)), *branches), carry

  ones = jnp.ones(len(x_T), bool)
  guided = guide(denoise, ones, ~ones, config["cfg_scale"])
  state = sampler.start(x_T)
  for i, t in enumerate(sampler.timesteps):
    prediction, _ = guided(state.x, jnp.full(len(x_T), t), None)
    state = sampler.step(process, i, state, prediction)
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
  names = [key for key in golden if key.startswith("out/hinge_D_")]
  for name in names:
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
