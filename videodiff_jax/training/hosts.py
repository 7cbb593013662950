"""Several hosts: how they find each other, and how one host's findings are broadcast to all.

All hosts must enter collectives (a step, a checkpoint, `jax.device_put` over all devices) in the
same order. A host that looked at its own disk to decide whether to enter one could leave the others
waiting forever. So one host looks, and all get its answer or its error.
"""

import functools
import json
import os
import pathlib
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
from absl import logging

from videodiff_jax import shares
from videodiff_jax.shares import HostError
from videodiff_jax.training import launchers, roll_call, watch

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


def join(timeout: int = 300) -> None:
  """Waits for the hosts that the environment names, before the first device is used.

  From then on this process watches the others, and ends with a message once one is gone.

  Args:
    timeout: seconds that the hosts wait for one that does not come, or gives no sign of life.

  Raises:
    ValueError: what the environment says is not complete or wrong, or other hosts did not come.
  """
  place = launchers.find(timeout)
  if place is None:
    return
  logging.info("Waiting for all %d processes at %s.", place.count, place.address)
  roll_call.wait(place, timeout)
  try:
    jax.distributed.initialize(
      place.address,
      place.count,
      place.index,
      initialization_timeout=timeout,
      heartbeat_timeout_seconds=2 * timeout,  # `watch` comes first, and says who is missing
    )
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f"JAX did not join the {place.count} processes ({str(error).splitlines()[0]}). Start all of "
      "them again."
    ) from error
  watch.start(timeout)
  # JAX's preemption service takes SIGTERM for itself, and before training nobody asks it.
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  if launchers.alone_on_its_host() and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
    # JAX gives each process of SLURM and Open MPI one GPU, also where no other takes the rest.
    for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
      jax.config.update(name, "all")


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


def share(folder: pathlib.Path) -> bool:
  """Tells whether all hosts see a folder of the first one's; all call it at the same place.

  The first host makes a file there for a moment.

  Args:
    folder: an existing folder of a disk that the first host may write to.
  """
  if jax.process_count() == 1:
    return True

  def mark() -> str:
    handle, name = tempfile.mkstemp(prefix=".seen-by-all-", dir=folder)
    os.close(handle)
    return name

  file = pathlib.Path(decide(mark))
  try:
    return all(gather("seen" if file.exists() else ""))
  finally:
    if shares.is_first():
      file.unlink()


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


def gather(message: str) -> list[str]:
  """Gathers every host's message, in the same order on all hosts."""
  return [found.decode() for found in shares.gather(message.encode())]
