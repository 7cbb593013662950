"""A file as the authors' trainer writes it, through the command, to videos."""

import pathlib
import shutil
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from tests.golden import recording
from tests.golden.files import channels_last
from tests.helpers import ROOT
from videodiff_jax.lgcvd import Pipeline
from videodiff_jax.lgcvd.rollout import sampling_params
from videodiff_jax.pretrained.names.lgcvd import lgcvd_params, read_checkpoint


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  recording.parametrize(metafunc, "checkpoint")


def keys(config: dict) -> list[str]:
  """The command's --config keys for the networks of a recording."""
  unet = config["unet"]
  settings = recording.settings(unet)
  values = {
    "data.image_size": unet["img_size"],
    "data.channels": unet["channels"],
    "fragment.num_frames": unet["cond_frames"] + unet["new_frames"],
    "fragment.slots": unet["cond_frames"],
    "model.channels": settings["channels"],
    "model.multipliers": settings["multipliers"],
    "model.attention_rates": settings["attention_rates"],
    "model.head_channels": unet["n_head_channels"],
    "precision": "float32",
    "sample.sampler.num_steps": 2,
  }
  return [f"--config.{name}={value}" for name, value in values.items()]


@jax.default_matmul_precision("highest")
def test_from_the_published_layout_to_videos(path: pathlib.Path, tmp_path) -> None:
  golden = recording.load(path)
  with recording.published(golden) as file:
    source = shutil.copy(file, tmp_path)
  command = [sys.executable, "-m", "videodiff_jax.pretrained.convert", "--kind=lgcvd"]
  options = ["--config=configs/lgcvd_bair.py:release", f"--source={source}", f"--out={tmp_path}/w"]
  run = subprocess.run(
    [*command, *options, *keys(golden.config)], cwd=ROOT, capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr
  assert f"step {golden.config['step']:,}" in run.stdout and f"--workdir={tmp_path}/w" in run.stdout

  pipeline = Pipeline.from_workdir(tmp_path / "w")
  model, inputs = pipeline.networks.model, golden.inputs
  x, condition, last = (channels_last(inputs[name]) for name in ("x", "cond", "last_clip"))
  v = jax.jit(model.apply)(pipeline.params, x, inputs["t"], condition, last)
  recording.close(v, golden.outputs["v_release"], 1e-4, "v_release")

  # The same videos as from the weights without the detour.
  checkpoint = read_checkpoint(source)
  shapes = recording.context_shapes(model, golden.config["unet"])
  raw, ema = ({"params": lgcvd_params(c, shapes)} for c in (checkpoint.raw, checkpoint.ema))
  direct = sampling_params(raw, ema, pipeline.config.sample.encoder_weights)
  chex.assert_trees_all_equal(pipeline.params, direct)
  side, channels = golden.config["unet"]["img_size"], golden.config["unet"]["channels"]
  shape = (1, pipeline.networks.slots, side, side, channels)
  past = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  drawn = pipeline.predict(past, num_frames=20).by_video
  assert drawn.shape == (1, 1, 20 + shape[1], side, side, channels)
  assert drawn.std() > 1
