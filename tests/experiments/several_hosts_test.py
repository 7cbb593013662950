"""The real command as several processes on loopback, to the end of every stage.

What takes long is marked slow: as many processes as you like, fresh, resumed and changing, have the
losses of one; and fresh starts that must not wait for each other for ever. With -s they print their
figures.
"""

import os
import pathlib
import re
import shutil
import socket
import time

import numpy as np
import pytest
from absl.testing import flagsaver

from data import prepare
from experiments import main
from tests import processes
from videodiff_jax import locks
from videodiff_jax.training.writers import points, read_metrics

STAGES = {"glober": ("kl_vae", "autoencoder", "generator"), "lgcvd": ("lgcvd",)}
SIDE = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("moving_digits", folder, size=SIDE, num_frames=20, num_videos=20)
  return folder


def command(system: str, workdir: pathlib.Path, store: pathlib.Path, steps: int) -> list[str]:
  """Trains `steps` steps a stage, with a checkpoint and a preview half-way and at the end."""
  options = [
    f"--config=configs/{system}_digits.py:smoke",
    f"--workdir={workdir}",
    f"--config.data.dir={store}",
    f"--config.data.image_size={SIDE}",
  ]
  if system == "lgcvd":
    options += [
      "--config.data.name=moving_digits",
      "--config.model.channels=4",
      "--config.model.multipliers=(1,)",
      "--config.model.attention_rates=()",
    ]
  for stage in STAGES[system]:
    settings = {
      "steps": steps, "log_every": 1, "checkpoint_every": (steps + 1) // 2,
      "preview_every": (steps + 1) // 2, "optimizer.decay": "constant",
    }  # fmt: skip
    options += [f"--config.train.{stage}.{key}={value}" for key, value in settings.items()]
  return options


def run(options: list[str], count: int, timeout: float = 300) -> list[str]:
  """What `count` processes wrote, all of which ended well."""
  results = processes.run("experiments.main", options, count, timeout=timeout)
  for status, said in results:
    assert status == 0, said
  return [said for _, said in results]


def losses(workdir: pathlib.Path, system: str) -> np.ndarray:
  """(stages, steps)"""
  files = [workdir / stage / "metrics.jsonl" for stage in STAGES[system]]
  return np.array([[loss for _, loss in points(read_metrics(file), "loss")] for file in files])


# GLOBER's three stages take minutes to compile twice.
@pytest.mark.parametrize("system", [pytest.param("glober", marks=pytest.mark.slow), "lgcvd"])
def test_two_processes_to_the_end_of_every_stage(system, store, tmp_path) -> None:
  workdir = tmp_path / "run"
  run(command(system, workdir, store, 2), 2)
  for stage in STAGES[system]:
    assert (workdir / stage / "checkpoints" / "2").is_dir()
    rows = read_metrics(workdir / stage / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and "validation_loss" in rows[-1]
    previews = {file.name for file in (workdir / stage / "previews").iterdir()}
    assert previews == {f"000000{step}.{kind}" for step in (1, 2) for kind in ("png", "gif")}
    assert (workdir / stage / "curves.png").is_file()
  assert np.isfinite(losses(workdir, system)).all()
  assert [file.parent.name[4:11] for file in workdir.glob("samples/*/samples.npz")] == [
    {"glober": "sample_", "lgcvd": "predict"}[system]
  ]
  assert [file.name for file in workdir.iterdir() if "unfinished" in file.name] == []


def test_an_error_of_the_first_host_is_told_by_all(store, tmp_path) -> None:
  (tmp_path / "notes.txt").write_text("mine")
  results = processes.run("experiments.main", command("lgcvd", tmp_path, store, 2), 2)
  for status, said in results:
    assert status == 1
    assert said.splitlines()[-1].startswith(f"Error: {tmp_path} is not empty and not a workdir")
  assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_host_of_another_configuration_is_named(store, tmp_path) -> None:
  options = command("lgcvd", tmp_path / "run", store, 2)
  for status, said in processes.run("experiments.main", options, 2, of_last=["--config.seed=5"]):
    assert status == 1
    assert re.search(
      r"^Error: Host 1 \(.*\) has config.seed 5, but host 0 \(.*\) has 0\.", said, re.M
    )
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_run_in_a_workdir_is_refused_on_all_hosts(store, tmp_path) -> None:
  with locks.hold(tmp_path / "lock", "trains here"):
    ended = processes.run("experiments.main", command("lgcvd", tmp_path, store, 2), 2)
  for status, said in ended:
    assert status == 1
    assert f"(pid {os.getpid()} on {socket.gethostname()}, since " in said.splitlines()[-1]


@pytest.mark.parametrize("mode", ["report", "plan"])
def test_a_mode_of_one_process_ends_at_once_on_other_hosts(monkeypatch, caplog, mode) -> None:
  """Without waiting for any: the coordinator does not exist."""
  caplog.set_level("INFO", logger="absl")
  for name, value in (
    ("COORDINATOR_ADDRESS", "none:1"),
    ("NUM_PROCESSES", "2"),
    ("PROCESS_ID", "1"),
  ):
    monkeypatch.setenv(f"JAX_{name}", value)
  argv = ["main", f"--mode={mode}", "--workdir=/nowhere"]
  with flagsaver.flagsaver():
    main.parse_flags(argv)
    main.run()
  assert f"--mode={mode} runs in one process: this one, 1, is done." in caplog.text


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> dict[str, np.ndarray]:
  """System -> the losses of one process over ten steps a stage."""
  found = {}
  for system in STAGES:
    workdir = tmp_path_factory.mktemp("alone") / system
    run(command(system, workdir, store, 10), 1)
    found[system] = losses(workdir, system)
  return found


def compare(case: str, system: str, workdir: pathlib.Path, alone: dict, began: float) -> None:
  found = losses(workdir, system)
  assert found.shape == alone[system].shape == (len(STAGES[system]), 10)
  difference = np.abs(found / alone[system] - 1).max(axis=1)
  seconds = time.monotonic() - began
  shown = ", ".join(f"{name} {d:.1e}" for name, d in zip(STAGES[system], difference))
  print(f"{system}, {case}: {shown}; {seconds:.0f} s")
  assert difference.max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("system", STAGES)
def test_several_processes_have_the_losses_of_one(system, count, store, alone, tmp_path) -> None:
  workdir, began = tmp_path / "run", time.monotonic()
  options = command(system, workdir, store, 10)
  run(options, count)
  compare(f"{count} processes, fresh", system, workdir, alone, began)
  began = time.monotonic()
  for stage in STAGES[system]:
    shutil.rmtree(workdir / stage / "checkpoints" / "10")
  run(options, count)
  compare(f"{count} processes, resumed", system, workdir, alone, began)


@pytest.mark.slow
@pytest.mark.parametrize("system", STAGES)
def test_a_run_goes_from_one_process_to_two_and_back(system, store, alone, tmp_path) -> None:
  workdir, began = tmp_path / "run", time.monotonic()
  for stage in STAGES[system]:
    for count, steps in ((1, 4), (2, 7), (1, 10)):
      run([*command(system, workdir, store, steps), f"--stage={stage}"], count)
  compare("1, 2, 1 processes", system, workdir, alone, began)


@pytest.mark.slow
def test_fresh_starts_do_not_hang(store, tmp_path) -> None:
  seconds = []
  for number in range(20):
    began = time.monotonic()
    run([*command("glober", tmp_path / str(number), store, 2), "--stage=kl_vae"], 2)
    seconds.append(time.monotonic() - began)
  print(f"20 fresh starts: {min(seconds):.0f} to {max(seconds):.0f} s")
