"""Data sets in their original layout: prepared, verified, trained on by their own configs."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from data import prepare
from experiments.setup import checks, frame_stores
from tests.data import published
from tests.inputs.make import noise_video, write_frames, write_video
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import resolve_codec

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 5


def write_folder(source: pathlib.Path) -> None:
  """Files and folders of frames of any size, and what is no video."""
  write_video(source / "wide.mp4", noise_video(20, 48)[:, :36])
  write_video(source / "walks" / "tall.avi", noise_video(18, 50)[:, :, :34], "mpeg4")
  write_frames(source / "walks" / "frames", noise_video(17, 25))
  (source / "walks" / "text.mp4").write_text("not a video " * 30)
  (source / "notes.txt").write_text("holiday 2019")


def write_flat_sky(source: pathlib.Path) -> None:
  """StyleGAN-V's folder of videos without splits."""
  for seed in range(3):
    write_frames(source / f"sky_{seed}", noise_video(18, 20, seed))


def test_sky_without_splits_can_be_trained_on(tmp_path) -> None:
  """All that training asks of its store before it compiles: both splits, and clips in each."""
  write_flat_sky(tmp_path / "source")
  store = prepare.ensure(
    "sky_timelapse", tmp_path / "store", source=str(tmp_path / "source"), size=32, codec="jpeg"
  )
  config = importlib.import_module("configs.glober_sky").get_config("smoke")
  config.data.dir = str(store)
  videos = []
  for split in ("train", "test"):
    opened = frame_stores.open_store(config, split)
    checks.check_store(config, opened)
    assert (
      len(clips.evaluation_clips(opened, frame_stores.clip_sampler(config, "clip"), 1, 0)[0]) == 1
    )
    videos += [video["name"] for video in opened.videos]
  assert sorted(videos) == ["sky_0", "sky_1", "sky_2"]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("dataset", "config", "write"),
  [
    ("sky_timelapse", "glober_sky", lambda source: published.write_sky(source, frames=18)),
    ("sky_timelapse", "glober_sky", write_flat_sky),
    ("taichi_hd", "glober_taichi", lambda source: published.write_taichi(source, frames=18)),
    ("ucf101", "glober_ucf101", lambda source: published.write_ucf101(source, frames=18)),
    ("bair", "lgcvd_bair", published.write_bair),
    ("cityscapes", "lgcvd_cityscapes", published.write_cities),
    ("video_folder", "glober_clips", write_folder),
  ],
)
def test_a_miniature_is_trained_on_for_five_steps(dataset, config, write, tmp_path) -> None:
  """By the commands of the configuration's docstring, on one device; frames are coded as there."""
  write(tmp_path / "source")
  real, settings = (
    importlib.import_module(f"configs.{config}").get_config(arg) for arg in (None, "smoke")
  )
  run("data.prepare", dataset=dataset, source=tmp_path / "source", out=tmp_path / "store",
      size=settings.data.image_size, codec=resolve_codec("auto", real.data.image_size))  # fmt: skip
  verified = run("data.prepare", verify=True, out=tmp_path / "store")
  assert "every record is as it was written" in verified
  steps = {
    f"config.train.{name}.{key}": STEPS
    for name in settings.stages
    for key in ("steps", "checkpoint_every", "preview_every")
  }
  steps |= {f"config.train.{name}.validate_every": 0 for name in settings.stages}
  run("experiments.main", config=f"configs/{config}.py:smoke", workdir=tmp_path / "run",
      **{"config.data.dir": tmp_path / "store", **steps})  # fmt: skip
  for name in settings.stages:
    folder = tmp_path / "run" / name
    assert (folder / "checkpoints" / str(STEPS)).is_dir()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == STEPS and np.isfinite(last["loss"])


def run(module: str, **flags: object) -> str:
  """What a command prints, run as the tests are compiled but on one device."""
  command = [sys.executable, "-m", module, *(f"--{key}={value}" for key, value in flags.items())]
  xla = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
  environment = os.environ | {"XLA_FLAGS": " ".join(xla)}
  done = subprocess.run(
    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
  )
  return done.stdout
