"""Several hosts: how they find each other, and how one host's findings are broadcast to all.

All hosts must enter collectives (a step, a checkpoint, `jax.device_put` over all devices) in the
same order. A host that looked at its own disk to decide whether to enter one could leave the others
waiting forever. So one host looks, and all get its answer or its error.
"""

import functools
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
from absl import logging

from videodiff_jax import shares
from videodiff_jax.shares import HostError
from videodiff_jax.training import watch

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# A launcher's variable for the number of processes -> the others it sets, the process index first.
_LAUNCHED = {
  "SLURM_NTASKS": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"),
  "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
_TERMINAL = "SLURM_PTY_PORT"  # set by `srun --pty`: an interactive shell, in the first task only


def several() -> bool:
  """Tells whether the environment names several hosts, by a cluster's variables or JAX's own."""
  return _in_cluster() or any(map(os.environ.get, _VARIABLES))


def index() -> int:
  """Returns this process's index, from the environment only; 0 where it does not say."""
  names = ("JAX_PROCESS_ID", *(others[0] for others in _LAUNCHED.values()))
  given = [value for name in names if (value := os.environ.get(name, "")).isdecimal()]
  return int(given[0]) if given and several() else 0


def on_tpu_pod() -> bool:
  """Tells whether this TPU host is one of several, none of which can use its share alone."""
  workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  return len(set(workers) - {"", "localhost"}) > 1


def join(timeout: int = 300) -> None:
  """Waits for the hosts that the environment names, before the first device is used.

  From then on this process watches the others, and ends with a message once one is gone. If only
  some of a launcher's variables are set, as in a batch script that does not use srun, they are
  ignored with a warning.

  Args:
    timeout: seconds that the hosts wait for one that does not come, or gives no sign of life.

  Raises:
    ValueError: only some of JAX's variables are set, a number is wrong, or other hosts did not
      come.
  """
  # A launcher's variables: an incomplete set only warns.
  for name, others in _LAUNCHED.items():
    count = os.environ.get(name) or "1"
    if not count.isdecimal():
      raise ValueError(f"{name} must be a whole number, not {count!r}. Unset it for one host.")
    if int(count) > 1 and (without := _lacking(others)):
      logging.warning(
        "%s is %s, but this process is alone: %s. For all %s, start them with the launcher itself "
        "(srun, mpirun).", name, count, without, count,
      )  # fmt: skip
  if not several():
    return
  # JAX's own variables, which must be complete outside a cluster.
  address, count, number = map(os.environ.get, _VARIABLES)
  missing = [name for name in _VARIABLES if not os.environ.get(name)]
  if missing and not _in_cluster():
    raise ValueError(
      f"{', '.join(missing)} not set. Several hosts need all of {', '.join(_VARIABLES)}: the first "
      "host's HOST:PORT, the number of hosts, and this host's index from 0. A single host needs "
      "none of them."
    )
  if address and not address.rpartition(":")[2].isdecimal():
    raise ValueError(
      f"JAX_COORDINATOR_ADDRESS must be the first host's HOST:PORT, not {address!r}."
    )
  for name, value in (("JAX_NUM_PROCESSES", count), ("JAX_PROCESS_ID", number)):
    if value and not value.isdecimal():
      raise ValueError(f"{name} must be a whole number, not {value!r}.")
  if count and number and int(number) >= int(count):
    raise ValueError(
      f"JAX_PROCESS_ID is {number}, but the hosts of JAX_NUM_PROCESSES={count} are numbered from 0 "
      f"to {int(count) - 1}."
    )
  total = count or next((os.environ[name] for name in _LAUNCHED if _launched(name) > 1), "")
  logging.info("Waiting for all %s processes%s.", total, f" at {address}" if address else "")
  # JAX's runtime aborts the process, with a stack, where others do not come; this comes first.
  late = threading.Timer(timeout, _end_alone, (total, number or str(index()), timeout))
  late.daemon = True
  late.start()
  # JAX itself reads only the address of the three.
  try:
    jax.distributed.initialize(
      address or None,
      int(count) if count else None,
      int(number) if number else None,
      initialization_timeout=timeout + 10,
      heartbeat_timeout_seconds=2 * timeout,  # `watch` comes first, and says who is missing
    )
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f"The {total} processes that the environment names did not find each other "
      f"({str(error).splitlines()[0]}). Start all of them at once, or unset the variables "
      f"({', '.join((*_VARIABLES, *_LAUNCHED))}) to train on one host."
    ) from error
  finally:
    late.cancel()
  watch.start(timeout)
  # JAX's preemption service takes SIGTERM for itself, and before training nobody asks it.
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  if _alone_on_its_host() and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
    # JAX gives each process of SLURM and Open MPI one GPU, also where no other takes the rest.
    for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
      jax.config.update(name, "all")


def _end_alone(total: str, number: str, timeout: int) -> None:
  print(
    f"Error: process {number} waited {timeout} s, but not all {total} processes that the "
    "environment names came. Start all of them at once, or unset the variables "
    f"({', '.join((*_VARIABLES, *_LAUNCHED))}) to run on one host.",
    file=sys.stderr, flush=True,
  )  # fmt: skip
  os._exit(1)


def decide(ask: Callable[[], T]) -> T:
  """Broadcasts the first host's result to all hosts, which all call this at the same place.

  Args:
    ask: called on the first host only, so it must not enter a collective; returns a JSON value.

  Raises:
    HostError: on the other hosts, with the message of the error that `ask` raised on the first.
  """
  error, message = None, ""
  if shares.is_first():
    try:
      message = json.dumps({"found": ask()})
    except Exception as caught:  # any error must reach the other hosts, which wait
      error, message = caught, json.dumps({"error": shares.told(caught)})
  if jax.process_count() > 1:
    message = "".join(gather(message))
  if error is not None:
    raise error
  answer = json.loads(message)
  if "error" in answer:
    raise HostError(answer["error"])
  return answer["found"]


def everywhere(do: Callable[[], T]) -> T:
  """Runs a function on every host and raises on all if one fails; all call it at the same place.

  Args:
    do: called on every host. It must not enter a collective, where another host's error would
      leave it waiting.

  Raises:
    HostError: on the hosts without an error, with the message of another host's error.
  """
  if jax.process_count() == 1:
    return do()
  values, error, message = [], None, ""
  try:
    values.append(do())
  except Exception as caught:
    error, message = caught, f"Host {jax.process_index()}: {shares.told(caught)}"
  messages = [message for message in gather(message) if message]
  if error is not None:
    raise error
  if messages:
    raise HostError(messages[0])
  return values[0]


def agree(seen: Mapping[str, str]) -> None:
  """Checks that all hosts see the same; all call it at the same place.

  Args:
    seen: names of what a host sees -> a short text for each.

  Raises:
    HostError: a host sees something else than the first one, on all hosts; it is named.
  """
  if jax.process_count() == 1:
    return
  found = [json.loads(one) for one in gather(json.dumps([socket.gethostname(), dict(seen)]))]
  (first, expected), *others = found
  for number, (name, other) in enumerate(others, start=1):
    for key in sorted(expected.keys() | other.keys()):
      theirs, ours = (values.get(key, "absent") for values in (other, expected))
      if theirs != ours:
        raise HostError(
          f"Host {number} ({name}) has {key} {theirs}, but host 0 ({first}) has {ours}. Start the "
          "same command with the same code and data on all hosts."
        )


def lead(do: Callable[[Callable[[A], R]], T], step: Callable[[A], R]) -> T | None:
  """Runs a function on the first host alone, and the collective that it calls on all hosts.

  Args:
    do: called on the first host with a function that runs `step` on all hosts.
    step: called on all hosts with the same argument, a JSON value.

  Returns:
    The result of `do` on the first host; None on the others.

  Raises:
    HostError: on the other hosts, with the message of the error that `do` raised on the first.
  """

  def call(argument: A) -> R:
    decide(lambda: [argument])
    return step(argument)

  told: list[A]
  if not shares.is_first():
    while told := decide(list):
      step(told[0])
    return None
  try:
    found = do(call)
  except Exception as error:
    decide(functools.partial(_throw, error))
  decide(list)  # the end, for the others
  return found


def _throw(error: Exception) -> None:
  raise error


def _in_cluster() -> bool:
  """Tells whether this is a TPU pod, SLURM or Open MPI, where JAX detects what is not set."""
  return on_tpu_pod() or any(_launched(name) > 1 for name in _LAUNCHED)


def _launched(name: str) -> int:
  """Returns the number of processes in a launcher's variable, 1 if it did not start this one."""
  count = os.environ.get(name, "")
  return int(count) if count.isdecimal() and not _lacking(_LAUNCHED[name]) else 1


def _alone_on_its_host() -> bool:
  """Tells whether the launcher started one process on each host."""
  tasks, nodes = (os.environ.get(name) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_NODES"))
  of_slurm = _launched("SLURM_NTASKS") > 1 and tasks == nodes
  return of_slurm or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def _lacking(names: Sequence[str]) -> str:
  """Says why the launcher that sets these variables did not start this process; '' if it did."""
  if os.environ.get(_TERMINAL) and names[0].startswith("SLURM"):
    return "it runs in a shell of srun --pty"
  missing = [name for name in names if not os.environ.get(name)]
  return f"{', '.join(missing)} not set" if missing else ""


def gather(message: str) -> list[str]:
  """Gathers every host's message, in the same order on all hosts."""
  return [found.decode() for found in shares.gather(message.encode())]
