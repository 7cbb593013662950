"""SIGTERM: noted while a stage trains, and agreed on by all hosts."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # JAX has no public way to the coordinator's store
from jax.experimental import multihost_utils

T = TypeVar("T")

_POLL = 0.2  # seconds between looks at whether SIGTERM came, here or to another host
_PATIENCE = 6.0  # seconds for a look that is under way when the stage ends
_numbers = itertools.count()  # of the stages' trainings, which all hosts go through in one order


class Agreement:
  """Finds the step after which all hosts stop, without a collective in every step.

  Each host has a thread that looks into the coordinator's store. Once SIGTERM has come to any host,
  every host writes there the first step after which it can still stop, and starts no other step
  before it has read what all wrote. The last of these steps is the common one. The threads write,
  because a main thread may be waiting for a step that another host has not started.

  JAX's preemption service agrees in this way, too, but it takes SIGTERM for the whole life of the
  process: it would end nothing before training nor while a program compiles.
  """

  def __init__(self, client: Any, folder: str, index: int, count: int):
    """`client` of the store; `folder`: where all hosts write; `index` of `count` hosts."""
    self._client, self._folder, self._count = client, folder, count
    self._mine = f"{folder}/{index}"
    self._lock, self._promised, self._next = threading.Lock(), False, 0
    self._agreed, self._last = threading.Event(), 0

  def look(self, received: bool) -> None:
    """Writes to the store and reads it; called again and again, with whether SIGTERM came here."""
    try:
      found = dict(self._client.key_value_dir_get(self._folder))
      if self._mine in found:
        if len(found) == self._count:
          self._last = max(map(int, found.values()))
          self._agreed.set()
      elif received or found:
        with self._lock:
          self._promised = True
        self._client.key_value_set(self._mine, str(self._next), True)
    except Exception:  # jaxlib's: the coordinator cannot be reached, and `watch` will tell that
      return

  def stops(self, step: int) -> bool:
    """Tells whether all hosts stop after a step; every host asks after each of its steps."""
    with self._lock:
      if not self._promised:
        self._next = step + 1
        return False
    self._agreed.wait()
    return step >= self._last


class Stop:
  """Remembers a SIGTERM. Hosts agree on it, so that all save the same step."""

  def __init__(self, agreement: Agreement | None = None) -> None:
    """`agreement` of several hosts."""
    self.received = False
    self._agreement = agreement

  def came(self) -> bool:
    """Tells whether SIGTERM has come to any host; all hosts ask at the same place."""
    if jax.process_count() == 1:
      return self.received
    return bool(multihost_utils.process_allgather(self.received).any())

  def after(self, step: int) -> bool:
    """Tells whether all hosts stop after a step, without waiting for any if SIGTERM has not come.

    Every host asks after each step.
    """
    return self.received if self._agreement is None else self._agreement.stops(step)

  def unless(self, compiling: "futures.Future[T]") -> T | None:
    """Waits for what compiles on all hosts; None if SIGTERM comes to one of them first."""
    all_done = compiling.done() and jax.process_count() == 1
    while not all_done:
      futures.wait([compiling], timeout=_POLL)
      row = np.array([compiling.done(), not self.received])
      all_done, goes_on = multihost_utils.process_allgather(row).reshape(-1, 2).all(0)
      if not goes_on:
        return None
    return compiling.result()


@contextlib.contextmanager
def on_sigterm() -> Iterator[Stop]:
  """Notes SIGTERM inside it, in place of ending the process; entered by all hosts alike."""
  agreement, folder = None, f"videodiff_jax/stop/{next(_numbers)}"
  if jax.process_count() > 1:
    client = distributed.global_state.client
    agreement = Agreement(client, folder, jax.process_index(), jax.process_count())
  stop = Stop(agreement)

  def note(signum: int, frame: Any) -> None:
    del signum, frame
    stop.received = True

  before = signal.signal(signal.SIGTERM, note)
  try:
    with contextlib.nullcontext() if agreement is None else _looking(agreement, stop):
      yield stop
  finally:
    signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _looking(agreement: Agreement, stop: Stop) -> Iterator[None]:
  """Lets a thread look for SIGTERM, which leaves the store before JAX closes it."""
  ended = threading.Event()

  def look() -> None:
    while not ended.wait(_POLL):
      agreement.look(stop.received)

  looking = threading.Thread(target=look, name="looks for SIGTERM", daemon=True)
  looking.start()
  try:
    yield
  finally:
    ended.set()
    looking.join(_PATIENCE)
