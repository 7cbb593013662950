"""Whoever makes the parts, and however often it is killed, the store is the same."""

import collections
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from data import builder, parts, prepare
from data.prepare import ensure
from tests.data.published import write_tfrecords
from tests.helpers import needs
from tests.inputs.make import make_store, noise_video
from videodiff_jax.inputs.video_io import VideoError

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIDEOS = {f"v{i:02d}": noise_video(2, seed=i) for i in range(40)}
Usage = collections.namedtuple("Usage", "total used free")


def content(directory: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> pathlib.Path:
  """Forty videos in forty parts; their source is beside it."""
  return make_store(tmp_path_factory.mktemp("reference"), VIDEOS)


def again(reference: pathlib.Path, out: pathlib.Path, engine: parts.Engine) -> pathlib.Path:
  source = str(reference.with_name("source"))
  return ensure("video_folder", out, engine, source=source, size=8, num_frames=1)


def test_processes_killed_with_their_parent_leave_a_store_to_go_on_with(reference, tmp_path):
  """The command itself; its processes end with it, and the next one makes the same bytes."""
  command = [
    sys.executable, "-m", "data.prepare", "--dataset=video_folder", "--size=8", "--num_frames=1",
    f"--source={reference.with_name('source')}", f"--out={tmp_path / 'store'}", "--workers=2",
  ]  # fmt: skip
  made = tmp_path / "store.parts"
  process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
  while len(list(made.glob("0*.json"))) < 20 and process.poll() is None:
    time.sleep(0.002)
  children = _children(process.pid)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert len(children) >= 2 and not (tmp_path / "store").exists()
  (made / "000000.of_a_killed_one.unfinished").write_text("half a part")
  assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
  assert content(tmp_path / "store") == content(reference)
  for _ in range(100):
    if not any(pathlib.Path(f"/proc/{child}").exists() for child in children):
      break
    time.sleep(0.1)
  else:
    pytest.fail("processes outlived the command that was killed")


def _children(pid: int) -> list[str]:
  return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_few_parts_start_no_process(reference, tmp_path, monkeypatch) -> None:
  monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", None)
  monkeypatch.setattr(parts, "PARTS_PER_PROCESS", 15)  # 26 of 40 parts are left after the sample.
  assert content(again(reference, tmp_path / "store", parts.processes(8))) == content(reference)


def test_what_was_found_goes_along_to_other_processes(tmp_path, monkeypatch) -> None:
  write_tfrecords(tmp_path / "train" / "traj_0_to_0.tfrecords", [b"payload"])
  options = prepare.Bair.OPTIONS(source=str(tmp_path))
  bair = prepare.Bair(data_dir=tmp_path / "store", options=options)
  names = list(bair.candidates())
  bair._found["train/hidden"] = VideoError("train/hidden", "damaged")
  monkeypatch.setattr("data.tfrecord.scan", None)
  copy = pickle.loads(pickle.dumps(bair))
  assert list(copy.candidates()) == [*names, "train/hidden"]
  with pytest.raises(VideoError, match="train/hidden: damaged"):
    copy.load("train/hidden")


def test_a_full_disk_is_told_before_most_of_the_work(reference, tmp_path, monkeypatch) -> None:
  splits = tfds.builder_from_directory(reference).info.splits.values()
  size = sum(split.num_bytes for split in splits)
  told, free = [], [size]

  def engine(make, tasks):
    made.append(len(tasks))
    return parts.threads(make, tasks)

  made: list[int] = []
  monkeypatch.setattr(builder.logging, "info", lambda text, *values: told.append(text))
  monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, free[0]))
  with pytest.raises(ValueError, match=r"The store will take about .* GB.* a smaller --size"):
    again(reference, tmp_path / "store", engine)
  assert not made and len(list((tmp_path / "store.parts").glob("0*.json"))) == 14
  free[0] = 2 * size
  assert content(again(reference, tmp_path / "store", engine)) == content(reference)
  assert made and "as much again until it is complete" in told[0]


def test_counts_other_than_the_published_are_told_before_the_work(tmp_path, monkeypatch) -> None:
  write_tfrecords(tmp_path / "train" / "traj_0_to_0.tfrecords", [b"no example"])
  warnings = []
  monkeypatch.setattr(builder.logging, "warning", lambda text, *v: warnings.append(text % v))
  with pytest.raises(ValueError, match="None of the 1 videos"):
    ensure("bair", tmp_path / "store", source=str(tmp_path))
  assert warnings == ["bair: 1 videos found, 43520 were published."]


def test_a_process_that_dies_is_an_error_that_says_what_to_do() -> None:
  engine = parts.processes(2)
  tasks = [(number, {}) for number in range(2 * parts.PARTS_PER_PROCESS)]
  with pytest.raises(parts.WorkerLost, match="same command again with fewer"):
    list(engine(_die, tasks))


def _die(task: parts.Task) -> None:
  os._exit(1)


def test_beam_makes_the_same_store(reference, tmp_path) -> None:
  needs("apache_beam")
  assert content(again(reference, tmp_path / "store", parts.beam([]))) == content(reference)


def test_without_beam_the_error_says_what_to_install(reference, tmp_path, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(ImportError, match="environment of its own, pip install"):
    again(reference, tmp_path / "store", parts.beam([]))
