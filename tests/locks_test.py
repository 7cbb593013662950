"""One process at a time, on disks with locks, without, and with locks of one host alone."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

from configs import glober_digits
from data import prepare
from experiments.train import train
from videodiff_jax import locks, whole_files
from videodiff_jax.inputs import latent_cache

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fast(monkeypatch) -> None:
  monkeypatch.setattr(locks, "BEAT", 0.02)
  monkeypatch.setattr(locks, "WATCH", 0.5)


@pytest.fixture
def no_flock(monkeypatch) -> None:
  def flock(*_: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")

  monkeypatch.setattr(fcntl, "flock", flock)


def signed(file: pathlib.Path, host: str, pid: int) -> dict:
  mine = {"owner": f"{pid}.1.{host}", "start": "2026-01-02 03:04:05", "beat": 100}
  file.write_text(json.dumps(mine) + "\n")
  return mine


@contextlib.contextmanager
def beating(file: pathlib.Path, host: str, pid: int):
  """Somebody elsewhere who rewrites the file, and removes it at last."""
  mine, ended = signed(file, host, pid), threading.Event()

  def beat() -> None:
    while not ended.wait(0.02):
      mine["beat"] += 1
      with file.open("r+") as opened:  # in one piece, and as long as before
        opened.write(json.dumps(mine) + "\n")
    file.unlink()

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    yield ended
  finally:
    ended.set()
    thread.join()


def test_the_second_is_refused_and_nothing_is_left(tmp_path) -> None:
  file = tmp_path / "new" / "lock"
  with locks.hold(file, "writes"):
    who = rf"Another process writes \(pid {os.getpid()} on {socket.gethostname()}, since 20.*end it"
    with pytest.raises(locks.LockedError, match=who), locks.hold(file, "writes"):
      raise AssertionError
  assert not list(file.parent.iterdir())
  with locks.hold(file, "writes"):
    pass


def test_a_killed_holder_is_followed_with_a_word(tmp_path, caplog) -> None:
  file = tmp_path / "lock"
  code = (
    "import pathlib, sys, time; from videodiff_jax import locks\n"
    f"with locks.hold(pathlib.Path({str(file)!r}), 'writes'):\n  print(1, flush=True)\n"
    "  time.sleep(60)"
  )
  child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
  assert child.stdout.readline()
  with pytest.raises(locks.LockedError, match=f"pid {child.pid} "), locks.hold(file, "writes"):
    raise AssertionError
  child.send_signal(signal.SIGKILL)
  child.wait()
  child.stdout.close()
  caplog.set_level("INFO", logger="absl")
  with locks.hold(file, "writes"):
    assert f"pid {child.pid} on" in caplog.text and "taken over" in caplog.text


def test_on_another_host_who_beats_is_alive_and_who_stands_still_is_not(tmp_path, caplog) -> None:
  """Locks of one host alone, as some network disks have them: this one gets its own."""
  file = tmp_path / "lock"
  with beating(file, "elsewhere", 1):
    with pytest.raises(locks.LockedError, match="pid 1 on elsewhere"), locks.hold(file, "writes"):
      raise AssertionError
  signed(file, "elsewhere", 1)
  caplog.set_level("INFO", logger="absl")
  with locks.hold(file, "writes"):
    assert "pid 1 on elsewhere, since 2026-01-02 03:04:05, which ended" in caplog.text


def test_who_waits_goes_on_when_the_other_ends(tmp_path, no_flock) -> None:
  file = tmp_path / "lock"
  with beating(file, "elsewhere", 1) as ended:
    threading.Timer(0.3, ended.set).start()
    with locks.hold(file, "writes", wait=True):
      assert ended.is_set()


def test_without_locks_a_dead_process_of_this_host_holds_nothing(tmp_path, no_flock) -> None:
  file, child = tmp_path / "lock", subprocess.Popen([sys.executable, "-c", ""])
  child.wait()
  signed(file, socket.gethostname(), child.pid)
  with locks.hold(file, "writes"):
    assert json.loads(file.read_text())["owner"] == whole_files.owner()


def hold_workdir(folder: pathlib.Path) -> None:
  with train.claimed(glober_digits.get_config("smoke"), folder / "run"):
    pass


def write_moments(folder: pathlib.Path) -> None:
  shape, about = (3, 1, 2, 2, 4), {"kind": "latents", "weights": "abc"}
  file = latent_cache.path_of(folder, about)
  latent_cache.write(file, about, shape, np.dtype("f4"), 2, lambda rows: np.zeros((2, *shape[1:])))


def prepare_store(folder: pathlib.Path) -> None:
  prepare.ensure("marching_digits", folder / "store", num_videos=10, num_frames=2)


@pytest.mark.parametrize("of", [hold_workdir, write_moments, prepare_store])
def test_a_disk_without_locks_is_a_warning(
  tmp_path, no_flock, caplog, of: Callable[[pathlib.Path], None]
) -> None:
  of(tmp_path)
  assert "cannot be locked (Function not implemented)" in caplog.text
