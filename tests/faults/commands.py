"""The real commands in processes that are forked after their imports: they start in no time.

What a command says goes to a file; what became of it is an `Outcome`.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import pathlib
import re
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import jax

from tests.faults import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 60.0  # seconds, after which something hangs
_MEMORY = 8 << 30  # bytes that a fuzzed input may take
_BATCH = 40  # inputs a process

SLOW = "FAULTS_SLOW_DISK"  # in a command's environment: seconds, see toys.slow_disk

_CONTEXT = multiprocessing.get_context("forkserver")
# All that the commands import, but neither command itself, whose flags are defined where it runs.
_CONTEXT.set_forkserver_preload(
  [
    "jax",
    "numpy",
    "experiments.claims.ablation",
    "experiments.claims.sweep",
    "experiments.export.export",
    "experiments.report.report",
    "experiments.sampling.glober_samples",
    "experiments.sampling.lgcvd_samples",
    "experiments.scoring.glober_ladder",
    "experiments.scoring.glober_protocols",
    "experiments.scoring.lgcvd_generation",
    "experiments.scoring.lgcvd_prediction",
    "experiments.train.make_cache",
    "experiments.train.plan",
    "experiments.train.train",
    "data.prepare",
    "tests.faults.doors",
    "tensorboardX",
    "matplotlib.pyplot",
    "av",
  ]
)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a command or a call.

  Attributes:
    status: its exit status; negative: ended by that signal; None: killed after the limit.
    said: what it wrote.
    seconds: it took.
  """

  status: int | None
  said: str
  seconds: float = 0.0

  @property
  def verdict(self) -> str:
    """'accepted', 'refused' in a sentence, 'traceback' (a signal that nobody sent, too), 'hang'."""
    if self.status is None:
      return "hang"
    if self.status < 0 or "Traceback (most recent call last)" in self.said:
      return "traceback"
    if self.status == 0:
      return "accepted"
    return (
      "refused"
      if re.search(r"^(Error: |Interrupted|Ended by SIGTERM)", self.said, re.M)
      else "traceback"
    )

  @property
  def told(self) -> str:
    """The sentence of a refusal, or the last line."""
    lines = [line for line in self.said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    return (errors or lines or [""])[-1][:300]


def start(module: str, argv: Sequence[str], log: pathlib.Path, **environment: str) -> BaseProcess:
  """Runs `python -m module argv` in a process, which appends what it says to `log`.

  Networks are those of toys.py; the environment is this process's and what is given.
  """
  begun = _CONTEXT.Event()
  arguments = (module, list(argv), str(log), environment, begun)
  process = _CONTEXT.Process(target=_run, args=arguments)
  process.start()
  begun.wait(LIMIT)  # what is killed is the command, and not what comes before it here
  return process


def run(
  module: str,
  argv: Sequence[str],
  log: pathlib.Path,
  limit: float = 10 * LIMIT,
  **environment: str,
) -> Outcome:
  """`start` to the end; a command that goes on after `limit` seconds is killed."""
  before = log.stat().st_size if log.exists() else 0
  began = time.monotonic()
  process = start(module, argv, log, **environment)
  process.join(limit)
  status = process.exitcode
  if status is None:
    process.kill()
    process.join()
  said = log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""
  return Outcome(status, said, time.monotonic() - began)


def _run(
  module: str, argv: Sequence[str], log: str, environment: dict[str, str], begun: Any
) -> None:
  file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  for stream in (1, 2):
    os.dup2(file, stream)
  _as_if_started()
  os.environ.update(environment)
  sys.argv = [module, *argv]
  slow = float(environment.get(SLOW, 0))
  with toys.installed(), toys.slow_disk(slow) if slow else contextlib.nullcontext():
    begun.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _as_if_started() -> None:
  """The environment of a shell, where nobody has split the CPU; no Ctrl-C yet."""
  os.chdir(ROOT)
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  flags = os.environ.get("XLA_FLAGS", "")
  os.environ["XLA_FLAGS"] = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = folder = str(ROOT / ".cache" / "jax")
  jax.config.update("jax_compilation_cache_dir", folder)  # the variable is read at the import
  # The smallest program is kept, too: the same ones are compiled at every start.
  shortest, update = "jax_persistent_cache_min_compile_time_secs", jax.config.update
  jax.config.update = lambda name, value: update(name, 0 if name == shortest else value)


# ---- many calls a process


def call(function: Callable[[], Any]) -> Outcome:
  """What a call in this process came to, as if it were a command: SystemExit is its status."""
  said, began = io.StringIO(), time.monotonic()
  status = 0
  with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    try:
      function()
    except SystemExit as end:
      status = end.code if isinstance(end.code, int) else int(end.code is not None)
      print("" if isinstance(end.code, (int, type(None))) else end.code, file=said)
    except BaseException:
      status = 1
      traceback.print_exc(file=said)
  return Outcome(status, said.getvalue(), time.monotonic() - began)


def each(
  function: Callable[[Any], Outcome], cases: Sequence[Any], limit: float = LIMIT
) -> Iterator[tuple[Any, Outcome]]:
  """What a function of a module makes of each case, in processes of their own, one at a time.

  One that hangs is killed, one that kills its process is told, and the rest go on in another.
  """
  left = list(cases)
  while left:
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_serve, args=(function, left[:_BATCH], sender))
    process.start()
    sender.close()
    for case in left[:_BATCH]:
      left = left[1:]
      # The first answer takes the devices' start, too.
      if not receiver.poll(limit):
        yield case, Outcome(None, f"No answer in {limit:.0f} s", limit)
        break
      try:
        yield case, receiver.recv()
      except EOFError:
        process.join()
        yield case, Outcome(process.exitcode or -1, f"The process ended: {process.exitcode}")
        break
    process.kill()
    process.join()
    receiver.close()


def _serve(function: Callable[[Any], Outcome], cases: Sequence[Any], sender: Any) -> None:
  import resource

  _as_if_started()
  # One call splits the CPU for all.
  os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
  resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
  for case in cases:
    sender.send(function(case))
