"""The whole program in emulated object storage, by the real command, with 5 % of faults.

  python -m pytest -n 0 -s -m slow tests/experiments/buckets_test.py

Slow, and only where the emulators are installed: pip install -e ".[cloud,buckets]". With -s it
prints its figures, which docs/storage.md has.
"""

import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from data import prepare
from tests import buckets, processes
from tests.configs.names import load
from tests.faults import runs
from tests.pretrained import sd_names
from videodiff_jax.inputs import video_io

ROOT = processes.ROOT
SHARE = 0.05
LIMIT = 1500  # seconds of one command, on a machine with other work
EVALUATE = {
  "lgcvd": ["--config.evaluate.protocol=smoke", "--config.evaluate.digits=False"],
  "glober": [
    "--config.evaluate.num_real=7",
    "--config.evaluate.num_fake=5",
    "--config.evaluate.digits=False",
  ],
}
FROM_A_VIDEO = {"lgcvd": "predict", "glober": "reconstruct"}
FEW = ["--config.after=()"]  # for runs that only have to begin
pytestmark = pytest.mark.slow


class Bucket(NamedTuple):
  """A bucket: its address, its proxy, its clients' environment, and itself past the proxy."""

  address: str
  proxy: buckets.Proxy
  environment: dict[str, str]
  files: buckets.Direct


class Trained(NamedTuple):
  """A run in a bucket that was killed and resumed, and the same run on a disk."""

  system: str
  bucket: Bucket
  workdir: str
  local: pathlib.Path


@pytest.fixture(scope="module", params=buckets.SCHEMES)
def bucket(request, tmp_path_factory) -> Iterator[Bucket]:
  if lacking := buckets.missing(request.param):
    pytest.skip(f"{lacking} not installed")
  folder = tmp_path_factory.mktemp(request.param)
  with buckets.serve(request.param, folder, SHARE) as (proxy, environment, files):
    environment = os.environ | environment | variables(folder)
    yield Bucket(f"{request.param}://{buckets.BUCKET}", proxy, environment, files)


def variables(folder: pathlib.Path) -> dict[str, str]:
  return {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "XLA_FLAGS": "",
    "JAX_NUM_CPU_DEVICES": "1", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
  }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("moving_digits", folder, size=16, num_frames=20, num_videos=20)
  return folder


@pytest.fixture(scope="module")
def on_disk(store, tmp_path_factory):
  """Makes a system's run on a disk, once."""
  folder = tmp_path_factory.mktemp("on_disk")

  @functools.cache
  def made(system: str) -> pathlib.Path:
    workdir = folder / system
    finish([*runs.options(system, store), f"--workdir={workdir}"], os.environ | variables(folder))
    return workdir

  return made


@pytest.fixture(scope="module", params=runs.STAGES)
def trained(request, bucket, store, on_disk) -> Trained:
  system = request.param
  bucket.files.send(store, "digits")
  local = on_disk(system)
  workdir = f"{bucket.address}/runs/{system}"
  arguments = [*runs.options(system, f"{bucket.address}/digits"), f"--workdir={workdir}"]  # type: ignore[arg-type]
  killed(bucket, arguments, f"runs/{system}/{runs.STAGES[system][len(runs.STAGES[system]) // 2]}")
  said = finish(arguments, bucket.environment, f"{system}, resumed", bucket.proxy)
  assert "resumes from step" in said, said[-3000:]
  return Trained(system, bucket, workdir, local)


def killed(bucket: Bucket, arguments: Sequence[str], stage: str) -> None:
  """Starts a run, kills it after a stage's first checkpoint, and has a second refused before."""
  process, log = start(arguments, bucket.environment)
  end = time.monotonic() + LIMIT
  while not bucket.files.exists(f"{stage}/checkpoints/2/commit_success.txt"):
    assert process.poll() is None and time.monotonic() < end, read(log)[-6000:]
    time.sleep(0.2)
  process.send_signal(signal.SIGSTOP)  # alive, but it gets no further
  second, said = start(arguments, bucket.environment)
  status = second.wait(LIMIT)
  process.kill()
  process.wait()
  refused = rf"Another process trains in .*pid {process.pid} on \S+, since 20"
  assert status == 1 and re.search(refused, read(said)), read(said)[-3000:]


def start(arguments: Sequence[str], environment: dict) -> tuple[subprocess.Popen, pathlib.Path]:
  """Starts the command; what it says goes to a file, since nobody empties a pipe meanwhile."""
  log = pathlib.Path(environment["TMPDIR"], f"said_{time.monotonic_ns()}.txt")
  with log.open("w") as out:
    command = [sys.executable, "-m", "experiments.main", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out), log


def read(log: pathlib.Path) -> str:
  return log.read_text(errors="replace")


def finish(
  arguments: Sequence[str], environment: dict, name: str = "", proxy: buckets.Proxy | None = None
) -> str:
  """Runs the command and prints its seconds and the fate of its requests, after a name."""
  before, began = dict(proxy.counts) if proxy else {}, time.monotonic()
  process, log = start(arguments, environment)
  status = process.wait(LIMIT)
  assert status == 0, read(log)[-6000:]
  if proxy:
    counts = {fate: count - before[fate] for fate, count in proxy.counts.items()}
    print(f"{name}, {time.monotonic() - began:.0f} s: {counts}", flush=True)
  return read(log)


def losses(text: str) -> dict[int, float]:
  rows = [json.loads(line) for line in text.splitlines() if line]
  return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_a_run_that_was_killed_is_like_one_on_a_disk(trained) -> None:
  system, bucket, _, local = trained
  for name in runs.STAGES[system]:
    there = bucket.files.read(f"runs/{system}/{name}/metrics.jsonl").decode()
    found = losses(there)
    assert found == losses((local / name / "metrics.jsonl").read_text()) and len(found) == 8
  names = bucket.files.names(f"runs/{system}")
  for wanted in ("config.json", "samples/000_", "curves.png", "previews/", "events"):
    assert any(wanted in name for name in names), names
  assert not any(name.endswith("/lock") or ".unfinished" in name for name in names)
  assert min(bucket.proxy.counts.values()) > 0


def test_its_scores_are_those_of_one_on_a_disk(trained, store) -> None:
  system, bucket, workdir, local = trained
  asked, name = [*EVALUATE[system], "--mode=evaluate"], f"{system}, evaluate"
  flags = [*runs.options(system, f"{bucket.address}/digits"), *asked]  # type: ignore[arg-type]
  finish([*flags, f"--workdir={workdir}"], bucket.environment, name, bucket.proxy)
  finish([*runs.options(system, store), *asked, f"--workdir={local}"], bucket.environment)
  (there,) = [n for n in bucket.files.names(f"runs/{system}/evaluations") if n.endswith(".json")]
  (here,) = (local / "evaluations").glob("*.json")
  scores = [json.loads(text)["scores"] for text in (bucket.files.read(there), here.read_text())]
  assert scores[0] == scores[1] and scores[0]
  assert bucket.files.exists(f"runs/{system}/report.html")


def test_a_video_is_read_from_a_bucket(trained, tmp_path) -> None:
  system, bucket, workdir, _ = trained
  mode = FROM_A_VIDEO[system]
  frames = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype(np.uint8)
  video_io.write_mp4(tmp_path / "clip.mp4", frames, fps=8)
  bucket.files.send(tmp_path, "clips")
  given = f"--input={bucket.address}/clips/clip.mp4"
  arguments = [f"--mode={mode}", f"--workdir={workdir}", given]
  finish(arguments, bucket.environment, f"{system}, {mode}", bucket.proxy)
  assert any(f"_{mode}_" in name for name in bucket.files.names(f"runs/{system}/samples"))


def test_what_is_exported_is_sampled_and_begun_from(trained, store) -> None:
  system, bucket, workdir, _ = trained
  out, name = f"{bucket.address}/out/{system}", f"{system}, export"
  finish(["--mode=export", f"--workdir={workdir}", f"--out={out}"], bucket.environment, name,
         bucket.proxy)  # fmt: skip
  drawn = f"{bucket.address}/drawn/{system}"
  finish(["--mode=sample", f"--workdir={out}", f"--out={drawn}", "--num_videos=1"],
         bucket.environment, f"{system}, sample of the export", bucket.proxy)  # fmt: skip
  assert any(name.endswith("samples.npz") for name in bucket.files.names(f"drawn/{system}/samples"))
  begun = [*runs.options(system, store), f"--config.init.run={out}", *FEW]
  finish([*begun, f"--workdir={bucket.address}/begun/{system}"], bucket.environment,
         f"{system}, begun from the export", bucket.proxy)  # fmt: skip


def test_a_cache_lies_beside_the_copy_of_the_store(trained) -> None:
  system, bucket, workdir, _ = trained
  if system != "glober":
    pytest.skip("no stage reads a cache")
  arguments = ["--mode=cache", "--cache=latents", f"--workdir={workdir}"]
  finish(arguments, bucket.environment, f"{system}, cache", bucket.proxy)
  copies = pathlib.Path(bucket.environment["XDG_CACHE_HOME"], "videodiff_jax", "stores")
  assert [*copies.glob("digits-*.cache/latents-*.npy")]


def test_the_doctor_measures_a_bucket(bucket) -> None:
  arguments = ["--mode=doctor", f"--workdir={bucket.address}/doctor"]
  said = finish(arguments, bucket.environment, "doctor", bucket.proxy)
  measured = re.search(r"storage: \S+, written at \d+ MB/s, read at \d+ MB/s", said)
  assert measured and not bucket.files.names("doctor"), said[-3000:]
  print(measured[0])


def test_weights_are_read_from_a_bucket(bucket, store, tmp_path) -> None:
  """The GLOBER run of a KL-VAE in Stable Diffusion's naming, whose file is an object."""
  model = load("glober_digits:smoke").model.kl_vae
  shapes = sd_names.kl_vae(
    model.channels, model.multipliers, model.blocks, model.embed_dim, image=1
  )
  save_file(sd_names.filled(shapes), tmp_path / "vae.safetensors")
  bucket.files.send(tmp_path, "weights")
  arguments = [
    *runs.options("glober", store),
    f"--config.init.kl_vae={bucket.address}/weights/vae.safetensors",
    "--config.model.kl_vae.mid_attention=True", f"--workdir={bucket.address}/given", *FEW,
  ]  # fmt: skip
  finish(arguments, bucket.environment, "glober, from a given KL-VAE", bucket.proxy)
  assert not bucket.files.exists("given/kl_vae/metrics.jsonl")
  assert bucket.files.exists("given/autoencoder/metrics.jsonl")


def test_two_hosts_train_in_one_bucket_and_one_goes_on(
  bucket, store, tmp_path, monkeypatch
) -> None:
  """The run on a disk also takes two commands, since the learning rate depends on the steps."""
  bucket.files.send(store, "digits")
  for name in bucket.environment.keys() - {"XLA_FLAGS"}:
    monkeypatch.setenv(name, bucket.environment[name])
  local = [*runs.options("lgcvd", store), f"--workdir={tmp_path / 'hosts'}", *FEW]
  there = [
    *runs.options("lgcvd", f"{bucket.address}/digits"),  # type: ignore[arg-type]
    f"--workdir={bucket.address}/hosts", *FEW,
  ]  # fmt: skip
  half = "--config.train.lgcvd.steps=4"
  before, began = dict(bucket.proxy.counts), time.monotonic()
  for status, said in processes.run("experiments.main", [*there, half], 2, timeout=LIMIT):
    assert status == 0, said[-6000:]
  counts = {fate: count - before[fate] for fate, count in bucket.proxy.counts.items()}
  print(f"lgcvd, two hosts, {time.monotonic() - began:.0f} s: {counts}", flush=True)
  said = finish(there, bucket.environment, "lgcvd, resumed by one host", bucket.proxy)
  assert "resumes from step 4" in said, said[-3000:]
  for arguments in ([*local, half], local):
    finish(arguments, bucket.environment)
  found = losses(bucket.files.read("hosts/lgcvd/metrics.jsonl").decode())
  alone = losses((tmp_path / "hosts" / "lgcvd" / "metrics.jsonl").read_text())
  assert found == pytest.approx(alone, rel=1e-5, abs=1e-5) and len(found) == 8


# Writes a checkpoint of a stage of a few numbers, and reads it back by another manager.
KEEP = """
import sys
import jax
import numpy as np
from tests.training import toy
from videodiff_jax.training.checkpoints import Checkpoints

state = toy.make_stage().init(jax.random.key(0))
saved = Checkpoints(sys.argv[1], keep=2)
for step in (1, 2, 3):
  saved.save(step, state.replace(step=jax.numpy.int32(step)), {"step": step})
saved.wait()
saved.close()
read = Checkpoints(sys.argv[1])
assert read.steps() == [2, 3] and read.meta(3)["step"] == 3
place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
found = read.restore(3, shapes)
assert found.step == 3
jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
jax.tree.map(np.testing.assert_array_equal, found.opt_state, state.opt_state)
read.close()
"""


def test_checkpoints_are_written_and_read(bucket) -> None:
  """With whatever version of orbax is installed: s3:// takes a function that is private to it."""
  done = subprocess.run(
    [sys.executable, "-c", KEEP, f"{bucket.address}/kept/checkpoints"], cwd=ROOT, text=True,
    env=bucket.environment, capture_output=True, timeout=LIMIT,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-6000:]


# Opens a store as training does, and reads clips from it.
READ = """
import hashlib, json, sys, time
from configs import lgcvd_digits
from experiments.setup import frame_stores
from videodiff_jax.inputs import clips

config = lgcvd_digits.get_config("smoke")
config.data.update(dir=sys.argv[1], local_dir=sys.argv[2])
began = time.monotonic()
store = frame_stores.open_store(config, "train", in_memory=False)
opened = time.monotonic() - began
batches = clips.batches(
  store, frame_stores.clip_sampler(config, "clip"), 0, 4, num_threads=2
)
batch, found = next(batches), hashlib.sha256()
first = time.monotonic() - began
for _ in range(500):
  batch = next(batches)
  for name in sorted(batch):
    found.update(batch[name].tobytes())
each = (time.monotonic() - began - first) / 500
print(json.dumps({"opened": opened, "first": first, "each": each, "hash": found.hexdigest()}))
"""


def test_a_copied_store_gives_the_batches_of_one_on_a_disk(bucket, store, tmp_path) -> None:
  """BUCKETS_STORE names another store, for figures; without faults first, then with them."""
  store = pathlib.Path(os.environ.get("BUCKETS_STORE", store))
  bucket.files.send(store, "measured")
  size, found = sum(file.stat().st_size for file in store.iterdir()), []
  for share in (None, 0.0, SHARE):
    bucket.proxy.share = share or 0.0
    before, copy = dict(bucket.proxy.counts), tmp_path / f"copy_{share}"
    place = str(store) if share is None else f"{bucket.address}/measured"
    done = subprocess.run(
      [sys.executable, "-c", READ, place, str(copy)], cwd=ROOT, env=bucket.environment, text=True,
      capture_output=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found.append(json.loads(done.stdout.splitlines()[-1]))
    counts = {fate: count - before[fate] for fate, count in bucket.proxy.counts.items()}
    print(f"{size / 1e6:.0f} MB, {place}, faults {share}:", found[-1], counts, flush=True)
  assert len({one["hash"] for one in found}) == 1
