"""Who makes the parts of a store: threads, processes, or the machines of an Apache Beam runner.

An engine is called with a function and its arguments, and yields the results as they come. A
part that is finished stays finished, whoever made it: `data.builder` has the rest.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Task = tuple[int, dict[str, int]]  # The part's number, and its candidates.
Engine = Callable[[Callable[[Task], Any], Sequence[Task]], Iterator[Any]]

PARTS_PER_PROCESS = 8  # Starting a process takes as long as making a few parts.


class WorkerLost(RuntimeError):
  """A process that makes parts ended before its work."""


def cores() -> int:
  """How many cores this process may use: fewer than there are where a scheduler gave it some."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def threads(make: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[Any]:
  """Makes the parts in this process: decoding and resizing let other threads run."""
  with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
    yield from _as_they_come(pool, [pool.submit(make, task) for task in tasks])


def processes(count: int) -> Engine:
  """Makes the parts in `count` processes, or in threads where these are few parts.

  Processes are spawned: a script that asks for them needs its `if __name__ == "__main__":`.
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
          "A process that makes parts was killed, as the system does where memory runs out. The "
          "same command goes on where this one stopped; give it fewer --workers."
        ) from error

  return engine


def beam(arguments: Sequence[str]) -> Engine:
  """Makes the parts by an Apache Beam runner, whose machines must see source and store alike.

  Args:
    arguments: Beam's own, such as '--runner=FlinkRunner'; none is its local runner. Frames are
      resized and compressed by the Pillow of the machines, which should be one version.
  """

  def engine(make: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[Any]:
    apache_beam = import_beam()
    options = apache_beam.options.pipeline_options.PipelineOptions(list(arguments))
    with apache_beam.Pipeline(options=options) as pipeline:
      # Without the reshuffle, one worker would make all parts.
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


_make: Callable[[Task], Any] | None = None  # In a process of the pool: what it was started for.


def _begin_process(make: Callable[[Task], Any]) -> None:
  global _make
  _make = make
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process says what happened.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """A killed main process cannot tell its pool, which would wait for work for ever."""
  with contextlib.suppress(AttributeError):
    multiprocessing.parent_process().join()
    os._exit(1)


def _make_here(task: Task) -> Any:
  return _make(task)
