"""Several hosts: how they find each other, and what one finds on its disk told to all.

Collectives (a step, a checkpoint, `jax.device_put` over all devices) must be entered by all hosts
in one order. A host that asked its own disk whether to enter one would leave the others waiting for
ever: so one host asks, and all learn the answer, or the error.
"""

import json
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

T = TypeVar("T")

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_MIN_WIDTH = 1024  # bytes of a message: most are as long, so that few lengths are compiled


class HostError(RuntimeError):
  """What stopped another host, in its words."""


def several() -> bool:
  """Whether the environment names several hosts: a cluster's variables, or JAX's own."""
  return _in_cluster() or any(map(os.environ.get, _VARIABLES))


def join() -> None:
  """Waits for the hosts that the environment names, before the first device is used.

  Raises:
    ValueError: JAX's variables are set by halves, or to what is no address or number.
  """
  if not several():
    return
  address, count, index = map(os.environ.get, _VARIABLES)
  missing = [name for name in _VARIABLES if not os.environ.get(name)]
  if missing and not _in_cluster():
    raise ValueError(
      f"Of {', '.join(_VARIABLES)} these are not set: {', '.join(missing)}. Several hosts need all "
      "three (HOST:PORT of the first, how many there are, and which this is, from 0 on); one host "
      "alone needs none."
    )
  if address and not address.rpartition(":")[2].isdecimal():
    raise ValueError(f"JAX_COORDINATOR_ADDRESS is {address!r}: the first host's HOST:PORT.")
  for name, value in (("JAX_NUM_PROCESSES", count), ("JAX_PROCESS_ID", index)):
    if value and not value.isdecimal():
      raise ValueError(f"{name} is {value!r}: a whole number is needed.")
  if count and index and int(index) >= int(count):
    raise ValueError(
      f"JAX_PROCESS_ID is {index}, but the hosts of JAX_NUM_PROCESSES={count} are numbered from 0 "
      f"to {int(count) - 1}."
    )
  logging.info("Waiting for all %s hosts%s.", count or "", f" at {address}" if address else "")
  # Of the three JAX itself reads the address alone.
  jax.distributed.initialize(
    address or None, int(count) if count else None, int(index) if index else None
  )


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
  workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  return (
    len(set(workers) - {"", "localhost"}) > 1
    or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    or int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
  )


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
