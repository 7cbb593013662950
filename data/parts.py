"""Engines that make the parts of a store: threads, processes, or an Apache Beam runner.

An engine is called with a function and its arguments, and yields results as they finish. Finished
parts are kept, whichever engine made them; see `data.builder`.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Task = tuple[int, dict[str, int]]  # The part's index and its candidates.
Engine = Callable[[Callable[[Task], Any], Sequence[Task]], Iterator[Any]]

PARTS_PER_PROCESS = 8  # Starting a process takes as long as making a few parts.


class WorkerLost(RuntimeError):
  """A process that makes parts ended before it was done."""


def cores() -> int:
  """Returns the number of cores that this process may use, as a scheduler may limit them."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def threads(make: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[Any]:
  """Makes the parts in threads of this process; decoding and resizing release the GIL."""
  with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
    yield from _as_they_come(pool, [pool.submit(make, task) for task in tasks])


def processes(count: int) -> Engine:
  """Makes the parts in `count` processes, or in threads if there are few parts.

  Processes are spawned, so that a script needs `if __name__ == "__main__":`.
  """

  def engine(make: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[Any]:
    needed = min(count, len(tasks) // PARTS_PER_PROCESS)
    if needed < 2:
      yield from threads(make, tasks)
      return
    with concurrent.futures.ProcessPoolExecutor(
      needed, multiprocessing.get_context("spawn"), _begin_process, (make,)
    ) as pool:
      try:
        yield from _as_they_come(pool, [pool.submit(_make_here, task) for task in tasks])
      except concurrent.futures.BrokenExecutor as error:
        raise WorkerLost(
          "A process that makes parts was killed, as the system does when memory runs out. Run the "
          "same command again with fewer --workers; it goes on where this one stopped."
        ) from error

  return engine


def beam(arguments: Sequence[str]) -> Engine:
  """Makes the parts by an Apache Beam runner, whose machines must share source and store.

  Args:
    arguments: arguments of Beam, such as '--runner=FlinkRunner'; [] for its local runner. The
      machines' Pillow resizes and compresses frames, so all should have the same version.
  """

  def engine(make: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[Any]:
    apache_beam = import_beam()
    options = apache_beam.options.pipeline_options.PipelineOptions(list(arguments))
    with apache_beam.Pipeline(options=options) as pipeline:
      # Without Reshuffle one worker would make all parts.
      created = pipeline | apache_beam.Create(tasks) | apache_beam.Reshuffle()
      _ = created | apache_beam.Map(make)
    return iter(())

  return engine


def import_beam() -> Any:
  try:
    import apache_beam
    import apache_beam.options.pipeline_options
  except ImportError as error:
    raise ImportError(
      "--beam needs Apache Beam, which holds Pillow and protobuf at older versions: in an "
      'environment of its own, pip install -e ".[beam]".'
    ) from error
  return apache_beam


def _as_they_come(
  pool: concurrent.futures.Executor, jobs: list[concurrent.futures.Future[Any]]
) -> Iterator[Any]:
  try:
    for job in concurrent.futures.as_completed(jobs):
      yield job.result()
  except BaseException:
    pool.shutdown(wait=False, cancel_futures=True)
    raise


_make: Callable[[Task], Any] | None = None  # Set in each process of the pool.


def _begin_process(make: Callable[[Task], Any]) -> None:
  global _make
  _make = make
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process reports the interrupt.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """Ends this process with its parent; a killed parent cannot stop its pool."""
  if parent := multiprocessing.parent_process():
    parent.join()
    os._exit(1)


def _make_here(task: Task) -> Any:
  assert _make is not None  # `_begin_process` came first
  return _make(task)
