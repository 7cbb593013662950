"""The whole program on several hosts: every mode by the real command, against one process."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from data import prepare
from tests import processes

SIDE = 32
STAGES = {"glober": ("kl_vae", "autoencoder", "generator"), "lgcvd": ("lgcvd",)}
# Mode -> its flags.
MODES = {
  "glober": {
    "sample": ["--num_videos=5", "--seed=3"],
    "redraw": ["--num_frames=3"],
    "reconstruct": ["--num_videos=5"],
    "evaluate": ["--config.evaluate.num_real=7", "--config.evaluate.num_fake=5"],
  },
  "lgcvd": {
    "sample": ["--num_videos=5", "--num_frames=9"],
    "predict": ["--num_videos=3", "--trajectories=2"],
    "interpolate": ["--num_videos=3", "--gap=3"],
    "evaluate": ["--config.evaluate.protocol=smoke"],
  },
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("moving_digits", folder, size=SIDE, num_frames=20, num_videos=40)
  return folder


def training(system: str, workdir: pathlib.Path, store: pathlib.Path, *more: str) -> list[str]:
  found = [*later(system, workdir, "train"), f"--config.data.dir={store}", "--config.after=()"]
  if system == "lgcvd":
    found += [
      "--config.data.name=moving_digits",
      "--config.model.channels=4",
      "--config.model.multipliers=(1,)",
      "--config.model.attention_rates=()",
    ]
  return [*found, *more]


def later(system: str, workdir: pathlib.Path, mode: str, *more: str) -> list[str]:
  config = f"--config=configs/{system}_digits.py:smoke"
  return [f"--mode={mode}", config, f"--workdir={workdir}", *more]


def run(arguments: list[str], count: int) -> list[str]:
  """What `count` processes of two devices wrote, all of which ended well."""
  ended = processes.run("experiments.main", arguments, count, devices=2, timeout=1500)
  for status, said in ended:
    assert status == 0, "\n\n".join(said for _, said in ended)
  return [said for _, said in ended]


def newest(folder: pathlib.Path, pattern: str) -> pathlib.Path:
  return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns)


def difference(one: pathlib.Path, several: pathlib.Path, mode: str) -> tuple[int, float]:
  """How far what a mode wrote is from what one process did.

  Returns:
    The largest difference of pixels, in levels of 255, and of all other numbers, relative to the
    larger of 1 and the number.
  """
  if mode == "evaluate":
    files = [newest(folder / "evaluations", "*.json") for folder in (one, several)]
    records = [json.loads(file.read_text()) for file in files]
    settings = [record["settings"] | {"code": None} for record in records]
    assert settings[0] == settings[1]
    parts = ("scores", "intervals", "deviations", "curves", "videos")
    numbers = [
      np.array([*leaves({part: record.get(part) for part in parts})]) for record in records
    ]
    assert numbers[0].shape == numbers[1].shape and numbers[0].size
    return 0, apart(*numbers)
  files = [newest(folder / "samples", f"*_{mode}_*/samples.npz") for folder in (one, several)]
  with np.load(files[0]) as a, np.load(files[1]) as b:
    assert a.files == b.files
    names = [name for name in a.files if name != "videos" and a[name].dtype.kind in "fiu"]
    pixels = np.abs(a["videos"].astype(int) - b["videos"].astype(int)).max()
    return int(pixels), max([apart(a[name], b[name]) for name in names], default=0.0)


def leaves(tree: object) -> list[float]:
  if isinstance(tree, dict):
    return [number for key in sorted(tree) for number in leaves(tree[key])]
  if isinstance(tree, list):
    return [number for one in tree for number in leaves(one)]
  return [] if tree is None else [float(tree)]


def apart(a: np.ndarray, b: np.ndarray) -> float:
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  return float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1.0), initial=0.0))


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> dict[str, pathlib.Path]:
  """System -> a workdir that one process trained, and what every mode wrote there."""
  found = {}

  def get(system: str) -> pathlib.Path:
    if system not in found:
      workdir = tmp_path_factory.mktemp("one") / system
      run(training(system, workdir, store), 1)
      for mode, flags in MODES[system].items():
        run(later(system, workdir, mode, *flags), 1)
      found[system] = workdir
    return found[system]

  return get


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("system", ["lgcvd", "glober"])
def test_every_later_mode(system, count, trained, store, tmp_path) -> None:
  one, several = trained(system), tmp_path / "several"
  shutil.copytree(one, several, ignore=shutil.ignore_patterns("samples", "evaluations"))
  for mode, flags in MODES[system].items():
    run(later(system, several, mode, *flags), count)
    pixels, others = difference(one, several, mode)
    print(f"{system} {mode}, {count} processes: {pixels} levels, {others:.1e}")
    assert pixels <= 1 and others <= 1e-5
