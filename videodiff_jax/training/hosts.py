"""Several hosts: how they find each other, and what one finds on its disk told to all.

Collectives (a step, a checkpoint, `jax.device_put` over all devices) must be entered by all hosts
in one order. A host that asked its own disk whether to enter one would leave the others waiting for
ever: so one host asks, and all learn the answer, or the error.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

T = TypeVar("T")

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# How many processes a launcher started -> what else it sets in each of them, its number first.
_LAUNCHED = {
  "SLURM_NTASKS": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"),
  "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
_TERMINAL = "SLURM_PTY_PORT"  # of `srun --pty`: a person's shell, in the first task alone
_MIN_WIDTH = 1024  # bytes of a message: most are as long, so that few lengths are compiled


class HostError(RuntimeError):
  """What stopped another host, in its words."""


def several() -> bool:
  """Whether the environment names several hosts: a cluster's variables, or JAX's own."""
  return _in_cluster() or any(map(os.environ.get, _VARIABLES))


def index() -> int:
  """Which of several processes this is, by the environment alone; 0 where it does not say."""
  names = ("JAX_PROCESS_ID", *(others[0] for others in _LAUNCHED.values()))
  given = [value for name in names if (value := os.environ.get(name, "")).isdecimal()]
  return int(given[0]) if given and several() else 0


def on_tpu_pod() -> bool:
  """Whether the TPU is one of several hosts, none of which can use its share alone."""
  workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  return len(set(workers) - {"", "localhost"}) > 1


def join() -> None:
  """Waits for the hosts that the environment names, before the first device is used.

  A launcher's variables that are there by halves, as in a batch script that does not use srun, name
  none: a warning tells so.

  Raises:
    ValueError: JAX's variables are set by halves, a number is none, or the others did not come.
  """
  for name, others in _LAUNCHED.items():
    count = os.environ.get(name) or "1"
    if not count.isdecimal():
      raise ValueError(f"{name} is {count!r}: a whole number is needed. Unset it for one host.")
    if int(count) > 1 and (without := _lacking(others)):
      logging.warning(
        "%s is %s, but this process is alone: %s. For all %s, start them with the launcher itself "
        "(srun, mpirun).", name, count, without, count,
      )  # fmt: skip
  if not several():
    return
  address, count, number = map(os.environ.get, _VARIABLES)
  missing = [name for name in _VARIABLES if not os.environ.get(name)]
  if missing and not _in_cluster():
    raise ValueError(
      f"Of {', '.join(_VARIABLES)} these are not set: {', '.join(missing)}. Several hosts need all "
      "three (HOST:PORT of the first, how many there are, and which this is, from 0 on); one host "
      "alone needs none."
    )
  if address and not address.rpartition(":")[2].isdecimal():
    raise ValueError(f"JAX_COORDINATOR_ADDRESS is {address!r}: the first host's HOST:PORT.")
  for name, value in (("JAX_NUM_PROCESSES", count), ("JAX_PROCESS_ID", number)):
    if value and not value.isdecimal():
      raise ValueError(f"{name} is {value!r}: a whole number is needed.")
  if count and number and int(number) >= int(count):
    raise ValueError(
      f"JAX_PROCESS_ID is {number}, but the hosts of JAX_NUM_PROCESSES={count} are numbered from 0 "
      f"to {int(count) - 1}."
    )
  told = count or next((os.environ[name] for name in _LAUNCHED if _launched(name) > 1), "")
  logging.info("Waiting for all %s processes%s.", told, f" at {address}" if address else "")
  # Of the three JAX itself reads the address alone.
  try:
    jax.distributed.initialize(
      address or None, int(count) if count else None, int(number) if number else None
    )
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f"The {told} processes that the environment names did not find each other "
      f"({str(error).splitlines()[0]}). Start all of them at once, or unset the variables "
      f"({', '.join((*_VARIABLES, *_LAUNCHED))}) to train on one host."
    ) from error


def decide(ask: Callable[[], T]) -> T:
  """What the first host finds, on every host; all call it at the same place, and wait.

  Args:
    ask: called on the first host alone, so that it may enter no collective; returns JSON.

  Raises:
    HostError: on the other hosts, with the sentence of what `ask` raised on the first.
  """
  error, message = None, ""
  if jax.process_index() == 0:
    try:
      message = json.dumps({"found": ask()})
    except Exception as caught:  # whatever it is, the others wait
      error, message = caught, json.dumps({"error": _sentence(caught)})
  if jax.process_count() > 1:
    message = "".join(_gather(message))
  if error is not None:
    raise error
  told = json.loads(message)
  if "error" in told:
    raise HostError(told["error"])
  return told["found"]


def everywhere(do: Callable[[], T]) -> T:
  """What each host makes for itself; all call it at the same place, and none goes on alone.

  Args:
    do: called on every host; may enter no collective, which another's error would leave open.

  Raises:
    HostError: on the hosts that had none, the sentence of another's error.
  """
  if jax.process_count() == 1:
    return do()
  value, error, message = None, None, ""
  try:
    value = do()
  except Exception as caught:
    error, message = caught, f"Host {jax.process_index()}: {_sentence(caught)}"
  messages = [message for message in _gather(message) if message]
  if error is not None:
    raise error
  if messages:
    raise HostError(messages[0])
  return value


def _in_cluster() -> bool:
  """A TPU pod, SLURM or Open MPI, where JAX finds out by itself what is not set."""
  return on_tpu_pod() or any(_launched(name) > 1 for name in _LAUNCHED)


def _launched(name: str) -> int:
  """How many processes a launcher's variable tells of, if it did start this one."""
  count = os.environ.get(name, "")
  return int(count) if count.isdecimal() and not _lacking(_LAUNCHED[name]) else 1


def _lacking(names: Sequence[str]) -> str:
  """Why a process was not started by the launcher that sets these; '' where it was."""
  if os.environ.get(_TERMINAL) and names[0].startswith("SLURM"):
    return "it runs in a shell of srun --pty"
  missing = [name for name in names if not os.environ.get(name)]
  return f"{', '.join(missing)} not set" if missing else ""


def _gather(message: str) -> list[str]:
  """Every host's message, in one order on all."""
  text = message.encode()
  lengths = multihost_utils.process_allgather(np.int32(len(text)))
  width = max(_MIN_WIDTH, 1 << int(lengths.max() - 1).bit_length())
  padded = np.zeros(width, np.uint8)
  padded[: len(text)] = np.frombuffer(text, np.uint8)
  rows = multihost_utils.process_allgather(padded)
  return [row[:length].tobytes().decode() for row, length in zip(rows, lengths)]


def _sentence(error: Exception) -> str:
  # Other errors than of values and files are not written for people: their class says more.
  return str(error) if isinstance(error, (ValueError, OSError)) else repr(error)
