"""LGC-VD's schedule, sampler and conditions against arrays of the authors' release."""

import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import expressions, recording
from tests.golden.files import channels_first, channels_last
from tests.golden.recording import close
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler, sample
from videodiff_jax.diffusion.schedules import Schedule, make_schedule
from videodiff_jax.lgcvd import conditioning


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  kind = {test_schedule: "schedule", test_p_sample: "p_sample", test_conditions: "cond_layout"}
  recording.parametrize(metafunc, kind[metafunc.function])


def test_schedule(path: pathlib.Path) -> None:
  golden = recording.load(path)
  for num_timesteps, respacing in golden.config["pairs"]:
    out = {
      name.rsplit("/", 1)[1]: value
      for name, value in golden.outputs.items()
      if name.startswith(f"T{num_timesteps}_r{respacing}/")
    }
    exact = make_schedule("cosine", num_timesteps, max_beta=0.9999)
    if "base_betas_64" in out:
      np.testing.assert_allclose(exact.betas, out.pop("base_betas_64"), rtol=1e-10)
    base = recording.schedule(num_timesteps)
    kept = recording.respaced(num_timesteps, respacing)
    ours = buffers(base, kept)
    assert out, f"nothing is recorded of {respacing}"
    np.testing.assert_array_equal(kept, out.pop("timestep_map", kept))
    for name, truth in out.items():
      np.testing.assert_allclose(ours[name], truth, rtol=1e-4, err_msg=f"{respacing} {name}")


def buffers(base: Schedule, kept: np.ndarray) -> recording.Arrays:
  """The constants of the chain that visits only the timesteps kept."""
  chain = base.visiting(kept)
  one = np.ones(1, np.float32)
  abar = chain.alphas_cumprod
  of_x0, of_xt = chain.posterior_mean_coefficients
  with np.errstate(divide="ignore"):
    return {
      "betas": chain.betas,
      "alphas_cumprod": abar,
      "alphas_cumprod_prev": np.concatenate([one, abar[:-1]]),
      "sqrt_alphas_cumprod": np.sqrt(abar),
      "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - abar),
      "log_one_minus_alphas_cumprod": np.log(1 - abar),
      "sqrt_recip_alphas_cumprod": np.sqrt(1 / abar),
      "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / abar - 1),
      "posterior_variance": chain.posterior_variance,
      "posterior_log_variance_clipped": np.log(np.maximum(chain.posterior_variance, 1e-20)),
      "posterior_mean_coef1": of_x0,
      "posterior_mean_coef2": of_xt,
    }


def model_fn(config: dict, x: jax.Array, t: jax.Array, cond: jax.Array, feature: jax.Array):
  """The denoiser written in the file's config, evaluated; arrays are channels first there."""
  formula = expressions.right_side(config["model_fn"])
  formula = re.sub(r"mean\((\w+) per sample\)", r"mean_per_sample(\1)", formula)
  given = {
    "x": x,
    "t": t.reshape(-1, 1, 1, 1),
    "cond": cond,
    "cond_feature": feature,
    "mean_channels": lambda maps: maps.mean(axis=-1, keepdims=True),
    "mean_per_sample": lambda maps: maps.mean(axis=(1, 2, 3), keepdims=True),
  }
  return expressions.evaluate(formula, dict(zip("abcdefgh", config["coef"])) | given)


def test_p_sample(path: pathlib.Path) -> None:
  golden = recording.load(path)
  config, out = golden.config, dict(golden.outputs)
  given = {k: channels_last(v) if v.ndim == 4 else v for k, v in golden.inputs.items()}
  process = Process(recording.schedule(config["T"]), "v_prediction")
  kept = recording.respaced(config["T"], config["respacing"])
  sampler = make_sampler(process, "ddpm", recording.steps(config), grid="spaced", clip=True)
  np.testing.assert_array_equal(sampler.timesteps[::-1], kept)

  def denoise(cond: Any, feature: Any, x: jax.Array, t: jax.Array, carry: Any) -> tuple:
    return model_fn(config, x, t, cond, feature), carry

  of_step = functools.partial(denoise, given["cond"], given["cond_feature"])
  x = jnp.asarray(given["x_start"])
  step = jax.jit(lambda *args: sampler.step(process, *args))
  for j, index in enumerate(given["index"]):
    i = len(kept) - 1 - index
    times = jnp.full(len(x), sampler.timesteps[i])
    prediction, _ = of_step(x, times, None)
    noise = jnp.asarray(channels_last(given["noise"][j]))
    mean = step(i, sampler.start(x), prediction, jnp.zeros_like(noise)).x
    close(mean, out.pop(f"mean.{j}"), 2e-5, f"mean {j}")
    drawn = step(i, sampler.start(x), prediction, noise).x
    close(drawn, out[f"x.{j}"], 2e-5, f"x {j}")
    x = jnp.asarray(channels_last(out.pop(f"x.{j}")))
    logvar = out.pop(f"logvar.{j}")
    if index > 0:  # the last step adds no noise
      close(np.full(len(x), 2 * np.log(sampler.tables["noise"][i])), logvar, 2e-5, "logvar")
  seen = out.pop("model_t_seen")
  np.testing.assert_array_equal(seen[:, 0], kept[given["index"]])

  x = jnp.asarray(given["loop_x_T"])
  of_loop = functools.partial(denoise, given["loop_cond"], given["loop_feature"])
  noise = jnp.moveaxis(jnp.asarray(given["loop_noise"]), 2, -1)
  drawn = jax.jit(lambda x, noise: sample(of_loop, process, sampler, x, noise=noise))(x, noise)
  close((drawn + 1) / 2, out.pop("loop_result_01"), 2e-5, "loop")

  x0, noise, v = (jnp.asarray(given[f"q_{name}"]) for name in ("x0", "noise", "v"))
  t = jnp.asarray(kept[given["q_t"]])
  x_t = process.q_sample(x0, t, noise)
  close(x_t, out.pop("q_xt"), 2e-5, "q_xt")
  close(process.target(x0, t, noise), out.pop("q_vtarget"), 2e-5, "q_vtarget")
  close(process.to_x0(x_t, t, v), out.pop("q_x0_from_v"), 2e-5, "q_x0_from_v")
  of_epsilon = Process(process.schedule, "epsilon").to_x0(x_t, t, noise)
  # What rounds in x_t grows by 1 / alpha, 2e4 at the last timestep.
  error = np.abs(channels_first(of_epsilon) - out.pop("q_x0_from_eps"))
  alpha, _ = process.alpha_sigma(t, 4)
  assert (error <= 2e-5 + 1e-6 / alpha).all()
  post_mean = out.pop("q_post_mean")
  of_x0, of_xt = process.schedule.visiting(kept).posterior_mean_coefficients
  mean = sum(c[given["q_t"]][:, None, None, None] * x for c, x in ((of_x0, x0), (of_xt, x_t)))
  close(mean, post_mean, 2e-5, "q_post_mean")
  assert not out


def test_conditions(path: pathlib.Path) -> None:
  golden = recording.load(path)
  num_frames, slots = golden.config["total_frames"], golden.config["cond_frames"]
  stacked = channels_last(golden.inputs["frames_01"]) * 2 - 1
  window = conditioning.split_frames(jnp.asarray(stacked), num_frames)
  tasks = {name.split(".")[0] for name in golden.outputs}
  for task in tasks:
    positions = golden.outputs[f"{task}.pos"]
    if task != "random":
      expected = conditioning.task_positions(task, num_frames, slots)
      np.testing.assert_array_equal(positions, expected)
    at = jnp.asarray(positions)[None]
    ours = conditioning.local_condition(conditioning.frames_at(window, at), at, num_frames)
    close(ours, golden.outputs[f"{task}.cond_m11"], 2e-5, task)
    close((ours + 1) / 2, golden.outputs[f"{task}.cond_01"], 2e-5, task)
