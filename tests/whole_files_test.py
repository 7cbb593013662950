"""Whatever writes a file of a workdir: killed anywhere, or on a full disk, it leaves none torn."""

import os
import pathlib
import re
import resource
from collections.abc import Callable

import numpy as np
import pytest

from experiments.claims import sweep
from experiments.measures.trajectories import Kept
from experiments.scoring import score_files
from tests.helpers import needs
from videodiff_jax import whole_files
from videodiff_jax.inputs import video_io
from videodiff_jax.training import writers

VIDEO = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
POINT = {
  "kind": "ddim", "grid": "spaced", "steps": 2, "seconds_a_clip": 1.0,
  "scores": {"fvd": 1.0}, "intervals": {"fvd": [0.5, 1.5]},
}  # fmt: skip
SWEEP = {
  "points": [POINT], "settings": {"about": "", "device": "", "part": 1, "weights": ""}
}  # fmt: skip


# The file that is written -> what writes it into a folder.
WRITERS: dict[str, Callable[[pathlib.Path], object]] = {
  "a.txt": lambda folder: whole_files.write_text(folder / "a.txt", "é" * 3000),
  "a.mp4": lambda folder: video_io.write_mp4(folder / "a.mp4", VIDEO),
  "a.gif": lambda folder: video_io.write_gif(folder / "a.gif", VIDEO),
  "a.png": lambda folder: video_io.write_strip(folder / "a.png", [VIDEO]),
  "curves.png": lambda folder: writers.plot_lines(
    {"a": {"b": [1.0, 2.0]}}, 1, "x", folder / "curves.png"
  ),
  "scores.json": lambda folder: score_files.save(folder / "scores.json", {"scores": "a" * 3000}),
  "sweep.json": lambda folder: sweep._write(folder, SWEEP),
  ".kept/00000000.npz": lambda folder: keep(folder).write(0, {"which": VIDEO}),
}


def keep(folder: pathlib.Path) -> Kept:
  kept = Kept(folder, "kept", {})
  kept.folder = folder / ".kept"
  return kept


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """The files that somebody may read, by name."""
  files = [file for file in folder.rglob("*") if file.is_file()]
  return {
    file.name: file.read_bytes() for file in files if not file.name.startswith(".unfinished.")
  }


@pytest.fixture(params=WRITERS)
def name(request) -> str:
  needs("av")
  writers.load_pyplot()  # once, and not in every child
  return request.param


@pytest.mark.parametrize(("step", "earlier"), [("fsync", b""), ("replace", b"earlier")])
def test_a_kill_leaves_the_earlier_file_or_none(tmp_path, name, earlier, step) -> None:
  """And the next one to write it makes the killed one's leftovers go."""
  out = tmp_path / name
  out.parent.mkdir(exist_ok=True)
  if earlier:
    out.write_bytes(earlier)
  child = os.fork()
  if not child:  # a process of its own, which nothing tidies up after
    setattr(os, step, lambda *_: os._exit(9))
    try:
      WRITERS[name](tmp_path)
    finally:
      os._exit(1)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
  assert (out.read_bytes() if out.exists() else b"") == earlier
  assert list(tmp_path.rglob(".unfinished.*"))
  WRITERS[name](tmp_path)
  assert out.read_bytes() != earlier
  assert not list(tmp_path.rglob(".unfinished.*"))


def test_a_full_disk_is_an_error_with_the_file_and_leaves_the_earlier_one(tmp_path, name) -> None:
  out = tmp_path / name
  out.parent.mkdir(exist_ok=True)
  out.write_bytes(b"earlier")
  before = contents(tmp_path)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
  try:
    with pytest.raises(OSError) as caught:
      WRITERS[name](tmp_path)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert str(caught.value.filename).startswith(str(tmp_path))
  assert ".unfinished." not in str(caught.value) and "too large" in str(caught.value)
  assert contents(tmp_path) == before
  assert not list(tmp_path.rglob(".unfinished.*"))


# Written into a folder that takes its name when it is whole, or as whole as these write it.
OTHERS = {
  "experiments/export/export.py", "experiments/results/kl_vae_f8/measure.py",
  "experiments/tools/convert.py", "videodiff_jax/pretrained/files/weights_folder.py",
  "videodiff_jax/training/checksums.py", "videodiff_jax/training/exported.py",
  "videodiff_jax/training/workdir.py",
  "videodiff_jax/inputs/latent_cache.py", "experiments/tools/paper_map.py",
  "videodiff_jax/pretrained/files/tensor_files.py",
  # What measures the speed of a storage deletes what it wrote.
  "experiments/tools/doctor_buckets.py", "experiments/tools/doctor_hosts.py",
  # An object is written whole by each of these; copies to a disk get their name at the end.
  "videodiff_jax/copies.py", "videodiff_jax/object_locks.py", "videodiff_jax/storage.py",
}  # fmt: skip


def test_no_module_writes_in_another_way() -> None:
  root = pathlib.Path(__file__).parents[1]
  writes = re.compile(r"\.write_(text|bytes)\(|\.savefig\(|np\.savez|open\(\"[wax]|, \"[wax]b?\"\)")
  whole = r"whole_files\.|savefig\(data|savez(_compressed)?\(half|half\.open|av\.open\(str\(half"
  ways = re.compile(whole)
  found = {
    f"{path.relative_to(root)}: {line.strip()}"
    for folder in ("experiments", "videodiff_jax")
    for path in (root / folder).rglob("*.py")
    if str(path.relative_to(root)) not in OTHERS and path.name != "whole_files.py"
    for line in path.read_text().splitlines()
    if writes.search(line) and not ways.search(line)
  }
  assert not found


@pytest.mark.parametrize("earlier", [b"", b"one\n", b'{"step": 1, "lo', b"one\n\n"])
def test_a_line_is_never_glued_to_half_of_one(tmp_path, earlier) -> None:
  file = tmp_path / "a.jsonl"
  if earlier:
    file.write_bytes(earlier)
  for line in ("two", "three"):
    whole_files.append_line(file, line)
  glue = b"" if earlier.endswith(b"\n") or not earlier else b"\n"
  assert file.read_bytes() == earlier + glue + b"two\nthree\n"


def test_who_has_ended_is_known_on_this_host_alone() -> None:
  mine = whole_files.owner()
  pid, start, host = mine.split(".", 2)
  assert not whole_files.is_gone(mine)
  assert whole_files.is_gone(f"{pid}.{int(start) - 1}.{host}")  # the number came again
  assert whole_files.is_gone(f"{2**22 + 1}.{start}.{host}")
  assert not whole_files.is_gone(f"{2**22 + 1}.{start}.elsewhere")
  assert not whole_files.is_gone("") and not whole_files.is_gone("scribble")
