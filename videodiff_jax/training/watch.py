"""Tells when another host of the run is gone, instead of waiting for it for ever.

A host that waits in a collective for one that has died learns of it late or never: the network may
say nothing. So every host writes a count into the coordinator's store every few seconds and reads
those of the others. One whose count stands still for `patience` seconds is gone, and so is the
coordinator, the first host, once it cannot be reached for as long.

Where the network says at once that the coordinator is gone, JAX's runtime prints a stack and aborts
the process, from a thread of its own (in jax 0.9 it exits). The sentence that names it comes last.
"""

import atexit
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from jax._src import distributed  # JAX has no public way to the coordinator's store

_BEAT = 2.0  # seconds between two counts
_MISSED = 3  # beats after which a host may be gone
_KEY = "videodiff_jax/alive"
_libc = ctypes.CDLL(None)


class Watch:
  """Watches the other hosts from a thread, and ends this process when one is gone.

  Attributes:
    patience: seconds without a sign of life after which a host is gone.
  """

  def __init__(self, client: Any, index: int, count: int, patience: float, coordinator: str):
    """`coordinator`: HOST:PORT of the first host's store."""
    self.patience, self._coordinator = patience, coordinator
    self._client, self._index, self._count = client, index, 0
    now = time.monotonic()
    # Host -> (what it wrote last, when that was first seen here).
    self._seen = {host: ("", now) for host in range(count) if host != index}
    self._lock, self._ended = threading.Lock(), threading.Event()
    self._loops: list[threading.Thread] = []
    self._told = False

  def start(self) -> None:
    for task in (self.beat, self.judge):
      loop = threading.Thread(target=self._repeat, args=(task,), name="watches hosts", daemon=True)
      loop.start()
      self._loops.append(loop)
    atexit.register(self.stop)  # before JAX closes the store, in which a thread must not be then
    if self._index:
      # Python's own handlers run in the main thread, which an abort does not return to.
      self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self.aborted)
      _libc.signal(signal.SIGABRT, self._handler)

  def stop(self) -> None:
    """Ends the watch, because this process ends."""
    self._ended.set()
    for loop in self._loops:
      loop.join(_MISSED * _BEAT)

  def _repeat(self, task: Callable[[], object]) -> None:
    while not self._ended.is_set():
      task()
      self._ended.wait(_BEAT)

  def silent(self, seconds: float) -> list[str]:
    """Names the hosts without a sign of life for that long."""
    now = time.monotonic()
    with self._lock:
      gone = [host for host, (_, since) in self._seen.items() if now - since > seconds]
    return [self._name(host) for host in gone]

  def name_the_missing(self) -> str:
    """Names the hosts that have just gone, within a few beats; '' if all are alive."""
    if self._index and not self._reaches_coordinator():  # JAX's runtime soon aborts this process
      self._told = True
      return self._name(0)
    end = time.monotonic() + (_MISSED + 1) * _BEAT
    while not (gone := self.silent(_MISSED * _BEAT)) and time.monotonic() < end:
      time.sleep(_BEAT / 4)
    return ", ".join(gone)

  def _reaches_coordinator(self) -> bool:
    """Tries a connection of its own, since a call to the store is repeated until it times out."""
    host, _, port = self._coordinator.rpartition(":")
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=_BEAT / 4).close()
    except OSError:
      return False
    return True

  def beat(self) -> None:
    """Gives a sign of life and looks for those of the others."""
    self._count += 1
    mine = f"{self._count} pid {os.getpid()} on {socket.gethostname()}"
    try:
      self._client.key_value_set(f"{_KEY}/{self._index}", mine, True)
      found = self._client.key_value_dir_get(_KEY)
    except Exception:  # jaxlib's: the coordinator cannot be reached, so nobody is heard
      return
    now = time.monotonic()
    with self._lock:
      for key, text in found:
        host = int(key.rpartition("/")[2])
        if host in self._seen and self._seen[host][0] != text:
          self._seen[host] = (text, now)

  def _name(self, host: int) -> str:
    return f"host {host} ({self._seen[host][0].partition(' ')[2] or 'which never answered'})"

  def judge(self) -> None:
    """Ends this process, which may wait in a collective, if a host is gone."""
    if gone := self.silent(self.patience):
      _end(f"{', '.join(gone)} gave no sign of life for {self.patience:.0f} s")

  def aborted(self, number: int) -> None:
    """Ends this process, which is being aborted: with a sentence if the first host is gone."""
    if self._reaches_coordinator():  # another reason: it goes on as without this handler
      _libc.signal(number, 0)  # SIG_DFL; Python's own function is for the main thread
      return
    if self._told or self._ended.is_set():  # the main thread tells it, or the process ends anyway
      time.sleep(_BEAT)
      os._exit(1)
    else:
      _end(f"{self._name(0)} is gone")


def _end(reason: str) -> NoReturn:
  print(
    f"Error: {reason}, so this process ends, too. Start all hosts again, or fewer: they go on from "
    "the newest checkpoint.",
    file=sys.stderr, flush=True,
  )  # fmt: skip
  os._exit(1)


_watch: Watch | None = None


def start(patience: float) -> None:
  """Begins to watch the other hosts, once all have joined."""
  global _watch
  joined = distributed.global_state  # jax.process_count() would start the devices
  address = joined.coordinator_address
  if _watch is None and address is not None and joined.num_processes > 1:
    _watch = Watch(joined.client, joined.process_id, joined.num_processes, patience, address)
    _watch.start()


def stop() -> None:
  """Ends the watch, if there is one, because this process ends."""
  if _watch is not None:
    _watch.stop()


def name_the_missing() -> str:
  """Names the hosts that have just gone; '' if none, or where nobody watches."""
  return "" if _watch is None else _watch.name_the_missing()
