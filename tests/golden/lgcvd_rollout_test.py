"""LGC-VD's rollouts against the authors' test loop, given its noise."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import recording
from tests.golden.files import channels_last
from tests.golden.recording import close
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler
from videodiff_jax.lgcvd.conditioning import (
  local_condition,
  split_frames,
  stack_frames,
  task_positions,
)
from videodiff_jax.lgcvd.rollout import Memory, Rollout
from videodiff_jax.pretrained.names.lgcvd import lgcvd_params


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  recording.parametrize(metafunc, "test_loop")


class Injected(Rollout):
  """A rollout whose noise is given, and that keeps what went through its fragments."""

  @functools.cached_property
  def step(self) -> Any:
    draw = jax.jit(self.draw_fragment)
    encode = jax.jit(functools.partial(self.model.apply, method="encode"))

    def step(params: Any, memory: Memory, frames: Any, positions: Any, keys: Any) -> tuple:
      i, n = int(memory.count), self.sampler.num_steps
      x_T, noise = self.noise
      fragment, after = draw(
        params,
        memory,
        frames,
        positions,
        x_T[i, None],
        noise=noise[i * n : (i + 1) * n, None],
      )
      self.seen.append(
        {
          "clips_m11": stack_frames(fragment)[0],
          "cond": local_condition(frames, positions, self.num_frames)[0],
          "feature_used": after.context[0],
          "encoder_input": memory.fragment[0],
          "encoder_output": encode(params, memory.fragment)[0],
        }
      )
      return fragment, after

    return step


@jax.default_matmul_precision("highest")
def test_rollout(path: pathlib.Path) -> None:
  golden = recording.load(path)
  config = golden.config
  slots, c = config["unet"]["cond_frames"], config["unet"]["channels"]
  num_frames = slots + config["unet"]["new_frames"]
  process = Process(recording.schedule(config["T"]), "v_prediction")
  rollout = Injected(
    recording.context_model(config["unet"]),
    process,
    make_sampler(process, "ddpm", recording.steps(config), grid="spaced", clip=True),
    num_frames,
    slots,
    last_fragment="right_aligned",
    given_frames="redrawn",
    average_features=True,
  )
  noise = [jnp.asarray(channels_last(golden.inputs[name])) for name in ("x_T", "noise")]
  vars(rollout).update(noise=noise, seen=[])

  shapes = recording.context_shapes(rollout.model, config["unet"])
  # As the release pairs them: the encoder as trained, the averaged UNet.
  used = {
    name.split(".", 1)[1]: value
    for name, value in golden.param.items()
    if name.startswith(("model.encoder_fn.", "ema.denoise_fn."))
  }
  params = {"params": lgcvd_params(used, shapes)}

  stacked = jnp.asarray(channels_last(golden.inputs["video"]))
  video = 2 * split_frames(stacked, config["n_frames"]) - 1
  positions = jnp.array([task_positions(config["flag"], num_frames, slots)])
  keys = jax.random.split(jax.random.key(0), 1)
  drawn = list(rollout.run(params, video[:, :slots], positions, config["n_frames"], keys))

  assert len(drawn) == config["n_clips"]
  frames = (np.concatenate(drawn, axis=1) + 1) / 2
  truth = golden.outputs["video_BCFHW"]
  assert frames.shape[-1] == c
  np.testing.assert_allclose(frames.transpose(0, 4, 1, 2, 3), truth, rtol=1e-5, atol=2e-5)
  for name in set(golden.outputs) - {"video_BCFHW"}:
    ours = np.stack([np.asarray(row[name]) for row in rollout.seen])
    close(ours, golden.outputs[name], 2e-5, name)
