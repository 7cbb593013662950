"""Paths in object storage, held in memory here; tests/experiments/buckets_test.py has emulators."""

import importlib
import os
import pathlib
import pickle
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from orbax.checkpoint._src.path import atomicity_defaults
from orbax.checkpoint._src.serialization import tensorstore_utils

from experiments.workdirs import numbered, provenance
from tests import memory_store
from videodiff_jax import (
  command,
  copies,
  locks,
  object_locks,
  storage,
  text_files,
  typed,
  whole_files,
)
from videodiff_jax.training import remote_checkpoints, writers


@pytest.fixture
def run(monkeypatch) -> storage.Remote:
  return memory_store.use(monkeypatch)


def test_names_are_those_of_paths(run) -> None:
  file = run / "stage" / "curves.png"
  assert (file.name, file.suffix) == ("curves.png", ".png")
  assert str(file) == "s3://bucket/run/stage/curves.png"
  assert str(file.parents[1]) == str(run) == os.fspath(run.absolute()) == os.fspath(run.resolve())
  assert str(file.with_suffix(".gif").with_name("a.b")) == "s3://bucket/run/stage/a.b"
  assert os.path.relpath(file, run) == "stage/curves.png"
  assert pickle.loads(pickle.dumps(file)) == file
  assert storage.path(file) is file and storage.path("s3://bucket/run/") == run
  assert isinstance(storage.path("run"), pathlib.PosixPath)


def test_objects_behave_as_files(run) -> None:
  assert not run.exists() and not run.is_dir() and not list(run.glob("*"))
  with pytest.raises(FileNotFoundError):
    (run / "x").read_bytes()
  with pytest.raises(FileNotFoundError):
    (run / "x").unlink()
  (run / "x").unlink(missing_ok=True)
  run.mkdir(parents=True)
  began = time.time() - 1
  (run / "a" / "x.txt").write_text("ä")
  (run / "y.txt").write_bytes(b"1")
  assert run.is_dir() and not run.is_file() and (run / "y.txt").is_file()
  assert sorted(path.name for path in run.iterdir()) == ["a", "y.txt"]
  assert [str(path) for path in run.glob("*/*.txt")] == ["s3://bucket/run/a/x.txt"]
  found = (run / "a" / "x.txt").stat()
  assert found.st_size == found.length == 2 and found.st_mtime > began
  with (run / "a" / "x.txt").open("rb") as opened:
    assert opened.read() == "ä".encode()
  (run / "a").rename(run / "b")
  assert not (run / "a").exists() and (run / "b" / "x.txt").read_text() == "ä"
  run.rmtree()
  assert not run.exists()


def test_an_unreachable_store_is_not_an_empty_one(run, monkeypatch) -> None:
  """Else a run would begin anew where it should go on."""

  def info(path: str) -> None:
    raise OSError(5, "no answer")

  monkeypatch.setattr(run.files, "info", info)
  for ask in (run.exists, run.is_file, run.is_dir):
    with pytest.raises(OSError, match="no answer"):
      ask()


def test_whole_files_and_logs(run) -> None:
  with whole_files.written(run / "samples.npz") as half:
    np.savez(half, a=np.arange(3))
    assert not run.exists()
  with (run / "samples.npz").open("rb") as opened, np.load(opened) as saved:
    assert saved["a"].tolist() == [0, 1, 2]
  with pytest.raises(ZeroDivisionError), whole_files.written(run / "half") as half:
    half.write_text("h")
    raise ZeroDivisionError
  assert not (run / "half").exists()
  whole_files.write_text(run / "a.json", '{"b": 1}')
  assert text_files.read_json(run / "a.json") == {"b": 1}
  for number in range(3):
    whole_files.append_line(run / "log.jsonl", f'{{"n": {number}}}')
  assert [entry["n"] for entry in text_files.read_log(run / "log.jsonl")] == [0, 1, 2]


def test_metrics_are_sent_and_continued(run) -> None:
  for first in (1, 3):
    writer = writers.MetricWriter(run / "stage")
    writer.write(first, {"loss": 1.0}, 0)
    writer.send()
    assert writers.read_metrics(run / "stage" / "metrics.jsonl")[-1]["step"] == first
    writer.write(first + 1, {"loss": 0.5}, 0)
    writer.close()
  rows = writers.read_metrics(run / "stage" / "metrics.jsonl")
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  assert list((run / "stage").glob("events*"))


def test_numbers_are_claimed_once(run, monkeypatch) -> None:
  monkeypatch.setattr(numbered.outputs, "folder", lambda workdir: workdir)
  with numbered.SampleFolder(run, "sample", 0, 0) as one:
    with numbered.SampleFolder(run, "sample", 0, 0) as other:
      for place in (one, other):
        np.savez(place.unfinished / numbered.SAMPLES, a=1)
        (place.unfinished / "strip.png").write_bytes(b"")
      assert not numbered.sample_folders(run / "samples")
      other.finish()
      one.finish()
  found = [folder.name for folder in numbered.sample_folders(run / "samples")]
  assert sorted(found) == ["000_sample_seed0", "001_sample_seed0"]
  with pytest.raises(ZeroDivisionError), numbered.SampleFolder(run, "sample", 0, 0) as third:
    raise ZeroDivisionError
  assert not third.unfinished.exists() and not list((run / "samples").glob("*unfinished"))
  for number in ("", "_2"):
    with numbered.files(run / "evaluations", "quick.json", "quick.png") as files:
      for file in files:
        file.write_text("{}")
    assert (run / "evaluations" / f"quick{number}.png").is_file()
  assert len(list(run.glob("evaluations/*"))) == 4


def test_a_dead_claim_of_this_host_is_removed(run, monkeypatch) -> None:
  gone = whole_files.owner().replace(f"{os.getpid()}.", "1.", 1).replace(".", ".9", 1)
  (run / "evaluations" / "quick.unfinished").write_text(gone)
  with numbered.files(run / "evaluations", "quick.json") as (file,):
    file.write_text("{}")
  assert [path.name for path in (run / "evaluations").iterdir()] == ["quick.json"]


@pytest.fixture
def fast(monkeypatch) -> None:
  monkeypatch.setattr(locks, "BEAT", 0.02)
  monkeypatch.setattr(locks, "WATCH", 0.5)
  monkeypatch.setattr(object_locks, "_EACH", 1)


def test_the_second_run_is_refused(run, fast) -> None:
  with locks.hold(run / "lock", "trains in it"):
    with pytest.raises(
      locks.LockedError, match=rf"Another process trains in it \(pid {os.getpid()}"
    ):
      with locks.hold(run / "lock", "trains in it"):
        raise AssertionError
    before = (run / "lock").read_bytes()
    end = time.monotonic() + 30
    while (run / "lock").read_bytes() == before and time.monotonic() < end:
      time.sleep(0.01)
    assert (run / "lock").read_bytes() != before  # it shows that it is alive
  assert not (run / "lock").exists()


@pytest.mark.parametrize("content", [b"", b'{"owner": "9.9.elsewhere", "start": "s", "beat": 1}'])
def test_a_dead_holder_is_followed(run, fast, content, caplog) -> None:
  caplog.set_level("INFO", logger="absl")
  (run / "lock").write_bytes(content)
  with locks.hold(run / "lock", "trains in it"):
    assert "taken over" in caplog.text
  assert not (run / "lock").exists()


def test_a_holder_elsewhere_that_beats_is_not(run, fast, monkeypatch) -> None:
  beats = iter(range(1000))

  def sleep(seconds: float) -> None:
    (run / "lock").write_text(f'{{"owner": "9.9.elsewhere", "start": "s", "beat": {next(beats)}}}')

  sleep(0)
  monkeypatch.setattr(locks.time, "sleep", sleep)
  with pytest.raises(locks.LockedError, match="pid 9 on elsewhere, since s"):
    with locks.hold(run / "lock", "trains in it"):
      raise AssertionError


def test_of_two_that_take_over_one_gets_the_lock(run, fast, monkeypatch) -> None:
  (run / "lock").write_bytes(b"")
  written, sleep = [], time.sleep

  def other_writes(seconds: float) -> None:  # just after ours, once
    if seconds == 2 * locks.BEAT and not written:
      text = '{"owner": "9.9.elsewhere", "start": "s", "beat": 0}'
      written.append((run / "lock").write_text(text))
    sleep(seconds)

  monkeypatch.setattr(object_locks.time, "sleep", other_writes)
  with locks.hold(run / "lock", "trains in it"):  # the other never beats, and so is dead in turn
    assert written and "elsewhere" not in (run / "lock").read_text()


def test_a_lost_answer_is_no_refusal(run, monkeypatch) -> None:
  """The request that created the object is repeated, and finds its own object."""
  (run / "lock").create(b"mine")
  (run / "lock").create(b"mine")
  with pytest.raises(FileExistsError):
    (run / "lock").create(b"another's")


def test_local_copies(run, tmp_path, monkeypatch) -> None:
  (run / "weights" / "a.bin").write_bytes(b"12345")
  (run / "weights" / "sub" / "b.bin").write_bytes(b"678")
  folder = copies.local(run / "weights")
  assert folder.name == "weights" and (folder / "sub" / "b.bin").read_bytes() == b"678"
  assert copies.local(run / "weights") == folder
  assert copies.local(run / "weights" / "a.bin").read_bytes() == b"12345"
  assert copies.local(tmp_path) is tmp_path
  with pytest.raises(FileNotFoundError):
    copies.local(run / "none")
  monkeypatch.setattr(copies.shutil, "disk_usage", lambda folder: _Full())
  with pytest.raises(copies.RoomError, match=r"takes 0\.00 GB, but the disk of"):
    copies.fetch(run / "weights", tmp_path / "new")


@pytest.mark.parametrize("seen", [True, False])
def test_a_copy_shows_how_far_it_is(run, tmp_path, monkeypatch, caplog, capsys, seen) -> None:
  """A bar where somebody sees it, else lines of the log."""
  caplog.set_level("INFO", logger="absl")
  monkeypatch.setattr(copies, "_TOLD_EVERY", 0.0)
  monkeypatch.setattr(sys.stderr, "isatty", lambda: seen, raising=False)
  for name in "ab":
    (run / "store" / name).write_bytes(bytes(5 * 10**6))
  copies.fetch(run / "store", tmp_path / "copy")
  told = ["Copies store: 0.01 of 0.01 GB."] * 2
  assert [record.getMessage() for record in caplog.records] == ([] if seen else told)
  bar = capsys.readouterr().err
  assert ("copies store: 100%" in bar and "10.0M/10.0M" in bar) if seen else not bar


class _Full:
  free = 7  # one byte short


@pytest.mark.parametrize("lacking", ["_DESCRIBES", "_COMMITS"])
def test_orbax_is_taught_or_refused(run, tmp_path, monkeypatch, lacking) -> None:
  """The functions that are wrapped are private to orbax."""
  place = "s3://bucket/run/lgcvd/checkpoints/2"
  for module, name in (remote_checkpoints._DESCRIBES, remote_checkpoints._COMMITS):
    monkeypatch.setattr(f"{module}.{name}", getattr(importlib.import_module(module), name))
  monkeypatch.setattr(remote_checkpoints, "_teach_s3", remote_checkpoints._teach_s3.__wrapped__)
  remote_checkpoints.check(run)
  base = tensorstore_utils.build_kvstore_tspec(place)["base"]
  assert (base["driver"], base["bucket"]) == ("s3", "bucket")
  assert base["path"].strip("/") == "run/lgcvd/checkpoints/2"
  by_a_last_object = ocp.path.atomicity.CommitFileTemporaryPath
  chosen = atomicity_defaults.get_item_default_temporary_path_class
  assert chosen(epath.Path(place)) is by_a_last_object
  assert chosen(epath.Path(tmp_path)) is not by_a_last_object
  module, _ = getattr(remote_checkpoints, lacking)
  monkeypatch.setattr(remote_checkpoints, lacking, (module, "gone"))
  with pytest.raises(
    ValueError, match=r"orbax-checkpoint 0\.\S+ does not let .* to s3:// \(.*gone"
  ):
    remote_checkpoints.check(run)
  for other in (tmp_path, storage.path("gs://bucket/run")):
    remote_checkpoints.check(other)


def test_commands_are_recorded(run, monkeypatch) -> None:
  monkeypatch.setattr(provenance.outputs, "folder", lambda workdir: workdir)
  provenance.record(run)
  provenance.record(run)
  assert len(provenance.read(run)) == 2


def test_errors_of_the_network_are_one_sentence(monkeypatch) -> None:
  class LostError(Exception):
    pass

  LostError.__module__ = "aiohttp.client_exceptions"
  for error in (LostError("gone\nmore"), FileNotFoundError("http://host/upload?id=1")):
    said = command.user_message(error)
    assert said and said.startswith("Object storage failed (") and "\n" not in said
  assert command.user_message(RuntimeError("UNAVAILABLE: no answer")) is None
  monkeypatch.setattr(command, "_place", lambda: "s3://bucket/run")
  said = command.user_message(RuntimeError("UNAVAILABLE: no answer"))
  assert said and "run the same command again" in said


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ("https://host/x.mp4", r"--out: 'https://host/x.mp4' is an address of another kind"),
    ("s3://", "names no bucket: write s3://BUCKET/FOLDER"),
    ("gs:///", "names no bucket: write gs://BUCKET/FOLDER"),
  ],
)
def test_wrong_addresses_are_refused(given, said) -> None:
  with pytest.raises(ValueError, match=said):
    typed.path(given, "--out")


def test_the_missing_package_is_named(monkeypatch) -> None:
  monkeypatch.setattr(storage, "SCHEMES", {"s3": ("no_such_package", "s3")})
  monkeypatch.setattr(storage, "_file_system", storage._file_system.__wrapped__)  # keeps none
  with pytest.raises(ValueError, match=r"s3:// needs no_such_package: pip install .*cloud"):
    storage.check(typed.path("s3://b/x", "--workdir"))


def test_the_bucket_is_asked_for_first(run, tmp_path, monkeypatch) -> None:
  storage.check(tmp_path, "--workdir")
  (run / "x").write_bytes(b"")
  storage.check(run, "--workdir")
  with pytest.raises(ValueError, match="--workdir: there is no bucket s3://none: make it first"):
    storage.check(storage.path("s3://none/run"), "--workdir")

  def refuses(path: str) -> None:
    raise RuntimeError("Unable to locate credentials\nmore")

  monkeypatch.setattr(run.files, "ls", refuses)
  said = (
    r"s3://bucket cannot be read \(RuntimeError: Unable to locate credentials\): check the cred"
  )
  with pytest.raises(ValueError, match=said):
    storage.check(run, "--workdir")
