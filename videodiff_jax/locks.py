"""Locks: one process at a time holds a file, which names the holder and shows that it is alive.

Where the disk supports locks, the system frees the lock of a process that ends, however it ends.
Some disks have no locks, and some have them within one host only. So the holder also rewrites the
file every few seconds, and a holder whose file stays unchanged counts as dead. In object storage
(object_locks.py) this is all there is.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from absl import logging

from videodiff_jax import storage, whole_files

BEAT = 5.0  # seconds between two heartbeats
WATCH = 60.0  # seconds without a heartbeat after which a holder counts as dead

_STARTED = datetime.datetime.now().isoformat(" ", "seconds")
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


class LockedError(ValueError):
  """Another process holds the lock; the message says which process."""


@contextlib.contextmanager
def hold(file: pathlib.Path, doing: str, wait: bool = False) -> Iterator[None]:
  """Holds a lock during the block. The lock's file remains only if its holder is killed.

  Args:
    file: the lock's file; its folder is created.
    doing: what only one process may do, to follow 'Another process' in messages.
    wait: if True, waits for the other process instead of raising an error.

  Raises:
    LockedError: another process, which is alive, holds the lock.
  """
  other = f"Another process {doing}"
  lock: Lock
  if storage.is_remote(file):
    from videodiff_jax import object_locks  # late: it imports this module

    lock = object_locks.take(file, other, wait)
  else:
    lock = _FileLock(file, _take(file, other, wait))
  ended = threading.Event()

  def beat() -> None:
    count = 0
    while not ended.wait(BEAT):
      count += 1
      with contextlib.suppress(OSError):  # a full disk is reported where it does harm
        lock.sign(count)

  thread = threading.Thread(target=beat, name=f"holds {file}", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    lock.release()


class Lock(Protocol):
  """A lock that this process holds."""

  def sign(self, beat: int) -> None:
    """Shows that the holder is alive; `beat` counts up."""

  def release(self) -> None:
    """Frees the lock."""


class _FileLock:
  def __init__(self, file: pathlib.Path, opened: TextIO):
    self._file, self._opened = file, opened

  def sign(self, beat: int) -> None:
    _sign(self._opened, beat)

  def release(self) -> None:
    self._file.unlink(missing_ok=True)
    self._opened.close()


def _take(file: pathlib.Path, other: str, wait: bool) -> TextIO:
  logged = False
  while True:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
      opened = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "r+")
    except FileNotFoundError:  # the last holder has just removed the folder
      continue
    locked = _flock(opened, file, block=False)
    holder = read(file)
    alive = locked is False or (holder and is_alive(file, holder, bool(locked)))
    if alive and not wait:
      opened.close()
      raise LockedError(f"{other} ({who(holder)}). Wait for it, or end it first.")
    if alive and not logged:
      logging.info("%s (%s); waiting for it.", other, who(holder))
      logged = True
    if locked is False:
      _flock(opened, file, block=True)
    if alive or not _is_same(opened, file):  # another process may have come in between
      opened.close()
      continue
    if holder:
      logging.info("%s: taken over from %s, which ended without releasing it.", file, who(holder))
    _sign(opened, 0)
    return opened


def _flock(opened: TextIO, file: pathlib.Path, block: bool) -> bool | None:
  """Locks the file and tells whether that worked; None where the disk has no locks."""
  try:
    fcntl.flock(opened, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    logging.warning(
      "%s cannot be locked (%s): two processes that start at the same moment would not notice each "
      "other.", file, error.strerror,
    )  # fmt: skip
    return None
  return True


def is_alive(file: pathlib.Path, holder: dict[str, str], locked: bool) -> bool:
  """Tells whether the holder of a file still runs.

  On the holder's own host, having got the lock proves that the holder has ended.
  """
  if whole_files.is_gone(holder["owner"]) or (locked and _host(holder) == socket.gethostname()):
    return False
  logging.info("%s: is %s alive? Watching it for %d s at most.", file, who(holder), WATCH)
  end = time.monotonic() + WATCH
  while time.monotonic() < end:
    time.sleep(BEAT)
    if read(file) != holder:
      return file.exists()
  return False


def _is_same(opened: TextIO, file: pathlib.Path) -> bool:
  """Tells whether a path still leads to an open file; its last holder may have removed it."""
  try:
    return os.path.samestat(os.fstat(opened.fileno()), file.stat())
  except FileNotFoundError:
    return False


def read(file: pathlib.Path) -> dict[str, str] | None:
  """Reads what the holder wrote; None where the file is empty or incomplete."""
  try:
    found = json.loads(file.read_text())
    return {name: str(found[name]) for name in ("owner", "start", "beat")}
  except (OSError, ValueError, KeyError, TypeError):
    return None


def signature(beat: int, token: str = "") -> bytes:
  """Returns what this process writes into a lock that it holds."""
  mine = {"owner": whole_files.owner(), "start": _STARTED, "beat": beat}
  if token:
    mine["token"] = token
  return (json.dumps(mine) + "\n").encode()


def _sign(opened: TextIO, beat: int) -> None:
  text = signature(beat)
  os.pwrite(opened.fileno(), text, 0)
  os.ftruncate(opened.fileno(), len(text))


def who(holder: dict[str, str] | None) -> str:
  """Describes a holder: process, host and start."""
  if holder is None:
    return "which one is not known"
  return f"pid {holder['owner'].split('.')[0]} on {_host(holder)}, since {holder['start']}"


def _host(holder: dict[str, str]) -> str:
  return holder["owner"].split(".", 2)[-1]
