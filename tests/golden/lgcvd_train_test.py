"""An iteration of LGC-VD's training against the authors' trainer."""

import functools
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from tests.golden import recording
from tests.golden.files import channels_last
from tests.golden.recording import Recording, close
from videodiff_jax.diffusion.process import Process
from videodiff_jax.lgcvd.conditioning import TaskMix, split_frames, task_positions
from videodiff_jax.lgcvd.objective import Draws, Objective, StageDraws
from videodiff_jax.pretrained.names.lgcvd import lgcvd_params
from videodiff_jax.training import optimizers, state
from videodiff_jax.training.state import Ema

pytestmark = pytest.mark.heavy


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  recording.parametrize(metafunc, "train_iteration")


def task_of(p: float) -> str:
  """The release's draw of a task from p in [0, 1]."""
  if p > 0.55:
    return "prediction"
  if p > 0.15:
    return "generation"
  return "interpolation" if p > 0.1 else "random"


def draws_of(golden: Recording, num_frames: int, slots: int) -> Draws:
  config, inputs = golden.config, golden.inputs
  b = len(inputs["video"])
  task = task_of(config["p"])
  if task == "random":
    positions = config["random_positions"]
  else:
    positions = 2 * [task_positions(task, num_frames, slots)]
  kept = recording.respaced(config["T"], config["respacing"])
  stages = [
    StageDraws(
      jnp.broadcast_to(jnp.array(positions[i]), (b, slots)),
      jnp.asarray(kept[inputs[f"t_stage{i + 1}"]]),
      jnp.asarray(channels_last(inputs[f"noise_stage{i + 1}"])),
    )
    for i in range(2)
  ]
  return Draws(*stages, jnp.full(b, task == "prediction"))


def recorded(golden: Recording, group: str, shapes: Any) -> dict[str, np.ndarray]:
  """Our path -> the recorded tensors 'out/<group>.<torch name>' in our layout."""
  chosen = {
    name.removeprefix(f"{group}."): value
    for name, value in golden.outputs.items()
    if name.startswith(f"{group}.")
  }
  everything = {name: np.zeros_like(value) for name, value in golden.param.items()}
  marked = {name: np.ones_like(value) for name, value in chosen.items()}
  values, marks = (
    traverse_util.flatten_dict(lgcvd_params(everything | part, shapes), sep=".")
    for part in (chosen, marked)
  )
  found = {path: values[path] for path, mark in marks.items() if mark.all()}
  assert len(found) == len(chosen) > 0, group
  return found


def flat(params: Any) -> dict[str, Any]:
  return traverse_util.flatten_dict(params["params"], sep=".")


class Piecewise(Objective):
  """Its gradients alone are compiled, not a whole iteration, which holds them twice."""

  @functools.cached_property
  def gradients(self) -> Callable[..., Any]:
    return jax.jit(super().gradients)


@functools.cache
def trained(unet: str, num_timesteps: int, loss: str) -> tuple[Objective, dict[str, Any]]:
  """What the files train, and the shapes of its parameters; `unet` is JSON."""
  config = json.loads(unet)
  slots = config["cond_frames"]
  objective = Piecewise(
    recording.context_model(config),
    Process(recording.schedule(num_timesteps), "v_prediction", loss_norm=loss),
    TaskMix({"random": 1.0}, slots + config["new_frames"], slots),
    clip_estimate=False,
  )
  return objective, recording.context_shapes(objective.model, config)


@functools.cache
def adam(rate: float) -> optax.GradientTransformation:
  optimizer = optimizers.make_optimizer(rate, steps=1, weight_decay=0.0)
  return optimizer._replace(update=jax.jit(optimizer.update))


@jax.default_matmul_precision("highest")
def test_iteration(path: pathlib.Path) -> None:
  golden = recording.load(path)
  config, out = golden.config, golden.outputs
  slots = config["unet"]["cond_frames"]
  num_frames = slots + config["unet"]["new_frames"]
  stacked = channels_last(golden.inputs["video"])
  frames = 2 * split_frames(stacked, stacked.shape[-1] // config["unet"]["channels"]) - 1
  draws = draws_of(golden, num_frames, slots)
  assert re.search(r"Adam lr=(\S+) betas \(0\.9,0\.999\) eps 1e-8", config["optimizer"])
  rate = float(re.search(r"lr=(\S+)", config["optimizer"])[1])
  optimizer = adam(rate)
  objective, shapes = trained(json.dumps(config["unet"]), config["T"], config["loss"])
  params = {"params": lgcvd_params(golden.param, shapes)}
  train = state.create(jax.random.key(0), params, optimizer)
  if config["ema_step"] is None:
    step = 0
  else:
    step = config["ema_step"]
    factor = float(re.fullmatch(r"(\S+)\*param", config["ema_before"])[1])
    train = train.replace(ema_params=jax.tree.map(lambda x: factor * x, params))
  # The release counts from 0, averages every tenth iteration and copies before the 2000th.
  train = train.replace(step=jnp.int32(step + 9 if step == 0 else step - 1))

  inputs, stepped = objective.first_inputs(frames, draws), train
  for i in (1, 2):
    stage = f"stage{i}"
    grads, loss, estimate = objective.gradients(stepped.params, inputs)
    close((inputs.condition + 1) / 2, out[f"{stage}.cond_01"], 2e-5, "cond")
    last = jnp.broadcast_to(inputs.last_fragment, inputs.x_0.shape)
    close((last + 1) / 2, out[f"{stage}.last_clip_01"], 2e-5, "last clip")
    np.testing.assert_allclose(loss, out[f"{stage}.loss"], rtol=1e-5, atol=1e-5)
    close((estimate + 1) / 2, out[f"{stage}.pred_x0_01"], 2e-5, "estimate")
    mean = (inputs.x_0.mean() + 1) / 2
    np.testing.assert_allclose(mean, out[f"{stage}.target_frames_01_mean"], atol=1e-6)
    norm = np.linalg.norm([np.linalg.norm(g) for g in jax.tree.leaves(grads)])
    np.testing.assert_allclose(norm, out[f"{stage}.grad_global_norm"], rtol=2e-4)
    flat_grads = flat(grads)
    for name, truth in recorded(golden, f"{stage}.grad", shapes).items():
      atol = 2e-4 * np.abs(truth).max()
      np.testing.assert_allclose(flat_grads[name], truth, rtol=1e-5, atol=atol, err_msg=name)
    if i == 1:
      stepped = state.update_params(stepped, grads, optimizer)
      inputs = objective.second_inputs(frames, estimate, draws)

  ema = Ema(decay=0.995, interval=10, copy_until=1999)
  done, metrics = objective.iterate(train, frames, draws, optimizer, ema)
  assert done.step == train.step + 1
  losses = [out[f"stage{i}.loss"] for i in (1, 2)]
  np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5, atol=1e-5)
  for group, params in (("after", flat(done.params)), ("ema_after", flat(done.ema_params))):
    for name, truth in recorded(golden, group, shapes).items():
      error = np.abs(params[name] - truth) - 1e-5 * np.abs(truth)
      assert (error > 5e-6).mean() <= 0.01 and error.max() <= 2e-4, (group, name)
