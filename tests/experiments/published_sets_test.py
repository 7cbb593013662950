"""The papers' data sets in their original layout, prepared and trained on by their own configs."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.data import published
from tests.inputs.make import noise_video

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_bair(source: pathlib.Path) -> None:
  for split in ("train", "test"):
    videos = [noise_video(30, 64, seed) for seed in range(8)]
    payloads = [published.bair_example(dict(enumerate(video))) for video in videos]
    published.write_tfrecords(source / split / "traj_0_to_7.tfrecords", payloads)


def write_cities(source: pathlib.Path) -> None:
  for split in ("train", "val", "test"):
    for seed in range(3):
      frames = noise_video(30, 64, seed)[:, :32]
      drive = f"ulm_{seed:06d}"
      published.write_city(source / split / "ulm", drive, dict(enumerate(frames)))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("config", "write"),
  [
    ("glober_sky", lambda source: published.write_sky(source, frames=18)),
    ("glober_taichi", lambda source: published.write_taichi(source, frames=18)),
    ("glober_ucf101", lambda source: published.write_ucf101(source, frames=18)),
    ("lgcvd_bair", write_bair),
    ("lgcvd_cityscapes", write_cities),
  ],
)
def test_a_miniature_is_trained_on_for_five_steps(config, write, tmp_path) -> None:
  """By the commands of the configuration's docstring, on one device."""
  write(tmp_path / "source")
  settings = importlib.import_module(f"configs.{config}").get_config("smoke")
  run("data.prepare", dataset=settings.data.name, source=tmp_path / "source",
      out=tmp_path / "store", size=settings.data.image_size)  # fmt: skip
  steps = {
    f"config.train.{name}.{key}": value
    for name in settings.stages
    for key, value in {"steps": 5, "checkpoint_every": 5, "preview_every": 5}.items()
  }
  run("experiments.main", config=f"configs/{config}.py:smoke", workdir=tmp_path / "run",
      **{"config.data.dir": tmp_path / "store", **steps})  # fmt: skip
  for name in settings.stages:
    assert (tmp_path / "run" / name / "checkpoints" / "5").is_dir()
    lines = (tmp_path / "run" / name / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] <= 5


def run(module: str, **flags: object) -> None:
  command = [sys.executable, "-m", module, *(f"--{key}={value}" for key, value in flags.items())]
  environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  subprocess.run(command, check=True, cwd=ROOT, env=environment)
