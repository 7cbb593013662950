"""Runs in emulated object storage by the real command: killed, resumed, with 5 % of faults.

Slow, and only where the emulators are installed: pip install -e ".[cloud,buckets]". With -s it
prints its figures.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from data import prepare
from tests import buckets
from tests.faults import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARE = 0.05
pytestmark = pytest.mark.slow


@pytest.fixture(params=buckets.SCHEMES)
def served(request, tmp_path):
  """The address of a bucket, its proxy, and the environment of its clients."""
  if lacking := buckets.missing(request.param):
    pytest.skip(f"{lacking} not installed")
  with buckets.serve(request.param, tmp_path, SHARE) as (proxy, environment):
    environment |= {
      "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
      "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "XLA_FLAGS": "",
      "JAX_NUM_CPU_DEVICES": "1", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    }  # fmt: skip
    yield f"{request.param}://{buckets.BUCKET}", proxy, os.environ | environment


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("moving_digits", folder, size=16, num_frames=20, num_videos=20)
  return folder


def start(arguments: Sequence[str], environment: dict) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.main", *arguments], cwd=ROOT, env=environment,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip


def finish(process: subprocess.Popen, timeout: float = 400) -> str:
  said, _ = process.communicate(timeout=timeout)
  assert process.returncode == 0, said[-6000:]
  return said


def python(program: str, environment: dict) -> str:
  """What a program prints that has `storage` and `copies`; the clients read the environment."""
  given = f"from videodiff_jax import copies, storage\nimport json, pathlib\n{program}"
  done = subprocess.run([sys.executable, "-c", given], cwd=ROOT, env=environment, text=True,
                        capture_output=True, timeout=120)  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stdout


def losses(text: str) -> dict[int, float]:
  rows = [json.loads(line) for line in text.splitlines() if line]
  return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.parametrize("system", runs.STAGES)
def test_a_run_is_killed_resumed_and_like_one_on_a_disk(system, served, store, tmp_path) -> None:
  address, proxy, environment = served
  python(
    f"copies.send(pathlib.Path({str(store)!r}), storage.path('{address}/digits'))", environment
  )
  there, local = f"{address}/runs/{system}", tmp_path / "local"
  finish(start([*runs.options(system, store), f"--workdir={local}"], environment))
  arguments = [*runs.options(system, f"{address}/digits"), f"--workdir={there}"]  # type: ignore[arg-type]

  # Killed once its first stage has a checkpoint; meanwhile a second run is refused.
  stage = runs.STAGES[system][-1]
  first = start(arguments, environment)
  look = f"print(storage.path('{there}/{stage}/checkpoints/2/commit_success.txt').is_file())"
  while python(look, environment) == "False\n":
    assert first.poll() is None, first.communicate()[0][-6000:]
  refused = start(arguments, environment)
  said, _ = refused.communicate(timeout=200)
  if first.poll() is None:
    assert refused.returncode == 1 and "Another process trains in" in said, said[-3000:]
  first.send_signal(signal.SIGKILL)
  first.wait()

  began = time.monotonic()
  said = finish(start(arguments, environment))
  assert "resumes from step" in said or "Another" not in said
  print(system, address, f"{time.monotonic() - began:.0f} s resumed;", proxy.counts)
  assert min(proxy.counts.values()) > 0
  for name in runs.STAGES[system]:
    file = local / name / "metrics.jsonl"
    remote = python(f"print(storage.path('{there}/{name}/metrics.jsonl').read_text())", environment)
    if file.is_file():
      assert losses(remote) == losses(file.read_text())
  finish(start(["--mode=report", f"--workdir={there}"], environment))
  names = python(
    f"root = storage.path('{there}')\nprint(*root.files.find(str(root)), sep=chr(10))", environment
  )
  for wanted in ("config.json", "samples/000_", "report.html", "curves.png", "previews/", "events"):
    assert wanted in names, names
  assert "lock" not in re.findall(r"[^/\n]+$", names, re.M)


def test_exported_and_begun_from(served, store, tmp_path) -> None:
  address, _, environment = served
  options = runs.options("lgcvd", store)
  finish(start([*options, f"--workdir={address}/a", "--config.after=()"], environment))
  finish(start(["--mode=export", f"--workdir={address}/a", f"--out={address}/out"], environment))
  begun = [*options, f"--workdir={address}/b", f"--config.init.run={address}/out"]
  said = finish(start([*begun, "--config.after=()"], environment))
  assert "Stage lgcvd" in said
