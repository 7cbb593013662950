"""A system that another package brings is trained, resumed and sampled by the same commands."""

import json
import pathlib

import numpy as np
import pytest

from data import prepare
from experiments.setup import systems
from experiments.setup.errors import UserError
from tests import commands

CONFIG = pathlib.Path(__file__).parent / "toy" / "config.py"


@pytest.fixture
def installed(tmp_path) -> pathlib.Path:
  """A folder for sys.path in which the toy's package is installed."""
  about = tmp_path / "site" / "toy_video-1.0.dist-info"
  about.mkdir(parents=True)
  (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-video\nVersion: 1.0\n")
  place = "toy = tests.experiments.toy.system:SYSTEM"
  (about / "entry_points.txt").write_text(f"[{systems.GROUP}]\n{place}\n")
  return about.parent


def test_it_trains_resumes_samples_and_reports(installed, tmp_path) -> None:
  store = prepare.ensure("marching_digits", tmp_path / "store", size=16, num_videos=12)
  workdir, whole = tmp_path / "half", tmp_path / "whole"
  train = [f"--config={CONFIG}", f"--config.data.dir={store}"]
  half = [*train, f"--workdir={workdir}", "--config.train.mean.steps=2"]
  lines = [
    [*half, "--config.after=()"],
    [*train, f"--workdir={workdir}"],
    [*train, f"--workdir={whole}"],
    ["--mode=sample", f"--workdir={workdir}", "--num_videos=3", "--seed=4"],
    ["--mode=report", f"--workdir={workdir}"],
    ["--mode=plan", f"--config={CONFIG}"],
    # What it does not have is told, and so are flags of other systems.
    ["--mode=evaluate", f"--workdir={workdir}"],
    ["--mode=sample", f"--workdir={workdir}", "--guidance_scale=2"],
  ]
  path = f"{commands.ROOT}:{installed}"
  ended = commands.run("experiments.main", lines, tmp_path, PYTHONPATH=path)
  statuses = [status for status, _ in ended]
  assert statuses == [0] * 6 + [1, 1], "\n".join(said[-900:] for _, said in ended)
  assert "System 'toy' has no --mode=evaluate; with a workdir it has sample" in ended[6][1]
  assert "--guidance_scale is not supported by system 'toy'" in ended[7][1]
  drawn = [
    np.load(folder / "samples" / "000_sample_seed0" / "samples.npz")["videos"]
    for folder in (workdir, whole)
  ]
  assert drawn[0].shape == (2, 4, 16, 16, 1) and drawn[0].std() > 1
  np.testing.assert_array_equal(*drawn)  # 2 steps and 2 more are 4
  assert np.load(workdir / "samples" / "001_sample_seed4" / "samples.npz")["videos"].shape[0] == 3
  assert "samples" in (workdir / "report.html").read_text()
  assert json.loads((workdir / "config.json").read_text())["system"] == "toy"


def test_systems_are_found_by_name() -> None:
  assert systems.names() == ("glober", "lgcvd")
  assert [systems.by_name(name).name for name in systems.names()] == ["glober", "lgcvd"]
  with pytest.raises(KeyError):
    systems.by_name("nope")
  with pytest.raises(UserError, match="System 'lgcvd' has no table identity"):
    systems.by_name("lgcvd").hook("table_identity")


@pytest.mark.parametrize("name", systems.names())
def test_every_mode_and_hook_is_there(name) -> None:
  system = systems.by_name(name)
  for place in (*system.modes.values(), *system.hooks.values()):
    assert systems.find(place) is not None
