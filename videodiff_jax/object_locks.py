"""Locks in object storage: an object that the holder creates, rewrites and deletes.

Creating an object of a new name is atomic, so of two that start at once one gets the lock. Nothing
frees the lock of a process that was killed: it counts as dead when its object stays unchanged (see
locks.py), and is taken over by writing over it. Two may do so at the same moment; the last to write
has the lock, which both learn by reading it again after a while.
"""

import contextlib
import pathlib
import time
import uuid

from absl import logging

from videodiff_jax import locks, storage, whole_files

_EACH = 3  # heartbeats of a file for one of an object, since each costs a request


class _ObjectLock:
  """A lock of this process; its object holds a token, since two threads have one owner."""

  def __init__(self, file: storage.Remote):
    self.file, self._token, self._lost = file, uuid.uuid4().hex, False

  def content(self, beat: int) -> bytes:
    return locks.signature(beat, self._token)

  def is_ours(self) -> bool:
    return self._token in self.file.read_text(errors="replace")

  def sign(self, beat: int) -> None:
    if self._lost or beat % _EACH:
      return
    try:
      if not self.is_ours():
        self._lost = True
        logging.error(
          "%s was taken over by %s while this process seemed dead: end one of the two.",
          self.file, locks.who(locks.read(self.file)),
        )  # fmt: skip
        return
      self.file.write_bytes(self.content(beat))
    except Exception as error:  # any, of the network; the next beat may come through
      logging.warning("%s: no heartbeat (%s).", self.file, error)

  def release(self) -> None:
    with contextlib.suppress(FileNotFoundError):
      if self.is_ours():
        self.file.unlink(missing_ok=True)


def take(file: pathlib.Path, other: str, wait: bool) -> locks.Lock:
  """Takes the lock of an object.

  Args:
    file: the object's address.
    other: the beginning of the message about the holder.
    wait: whether to wait for a holder that is alive.

  Raises:
    LockedError: another process holds the lock.
  """
  assert isinstance(file, storage.Remote)
  lock, logged = _ObjectLock(file), False
  while True:
    try:
      file.create(lock.content(0))
      return lock
    except FileExistsError:
      holder = locks.read(file)
    if holder is None and not file.exists():  # released in between
      continue
    alive = holder is not None and _is_alive(file, holder)
    if alive and not wait:
      raise locks.LockedError(f"{other} ({locks.who(holder)}). Wait for it, or end it first.")
    if alive:
      if not logged:
        logging.info("%s (%s); waiting for it.", other, locks.who(holder))
        logged = True
      time.sleep(locks.BEAT)
      continue
    logging.info(
      "%s: taken over from %s, which ended without releasing it.", file, locks.who(holder)
    )
    file.write_bytes(lock.content(0))
    time.sleep(2 * locks.BEAT)  # until another that found the same holder dead has written, too
    if lock.is_ours():
      return lock


def _is_alive(file: storage.Remote, holder: dict[str, str]) -> bool:
  if whole_files.is_here(holder["owner"]):
    return True
  return locks.is_alive(file, holder, locked=False)
