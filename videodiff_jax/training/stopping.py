"""SIGTERM: noted while a stage trains, and agreed on by all hosts."""

import contextlib
import signal
from collections.abc import Iterator
from concurrent import futures
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

_POLL = 0.2  # seconds between looks at whether SIGTERM came while a program compiles


class Stop:
  """Remembers a SIGTERM. Hosts agree on it at common steps, so that all save the same step."""

  def __init__(self) -> None:
    self.received = False

  def requested(self, common_step: bool) -> bool:
    """Tells whether SIGTERM has come to any host; several hosts ask only at `common_step`."""
    if jax.process_count() == 1:
      return self.received
    return common_step and bool(multihost_utils.process_allgather(self.received).any())

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
  """Notes SIGTERM inside it, in place of ending the process."""
  stop = Stop()

  def note(signum: int, frame: Any) -> None:
    del signum, frame
    stop.received = True

  before = signal.signal(signal.SIGTERM, note)
  try:
    yield stop
  finally:
    signal.signal(signal.SIGTERM, before)
