"""What the environment says of the other hosts: JAX's variables, a launcher's, or a TPU slice's."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from absl import logging
from jax._src.clusters import ClusterEnv, GceTpuCluster, GkeTpuCluster  # JAX has no public way

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# A launcher's variable for the number of processes -> the others it sets, the process index first.
_LAUNCHED = {
  "SLURM_NTASKS": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"),
  "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
_TERMINAL = "SLURM_PTY_PORT"  # set by `srun --pty`: an interactive shell, in the first task only
_UNKNOWN = (
  "JAX does not find the first of the hosts that the launcher started. Set JAX_COORDINATOR_ADDRESS "
  "to its HOST:PORT on all"
)


@dataclasses.dataclass(frozen=True)
class Place:
  """A process among the others.

  Attributes:
    address: the first host's HOST:PORT, at which all meet.
    count: number of processes.
    index: this process's, from 0.
  """

  address: str
  count: int
  index: int


def several() -> bool:
  """Tells whether the environment names several hosts, by a cluster's variables or JAX's own."""
  return any(map(os.environ.get, _VARIABLES)) or _in_cluster()


def index() -> int:
  """Returns this process's index, without a word with the others; 0 where nothing says it."""
  names = ("JAX_PROCESS_ID", *(others[0] for others in _LAUNCHED.values()))
  given = [value for name in names if (value := os.environ.get(name, "")).isdecimal()]
  if given and several():
    return int(given[0])
  slice_ = _tpu_slice()
  return 0 if slice_ is None else slice_.get_process_id()


def on_tpu_pod() -> bool:
  """Tells whether this TPU host is one of several, none of which can use its share alone."""
  return _tpu_slice() is not None


def find(timeout: int) -> Place | None:
  """Returns where this process stands among the hosts that the environment names; None if alone.

  If only some of a launcher's variables are set, as in a batch script that does not use srun, they
  are ignored with a warning.

  Args:
    timeout: seconds in which the first host's name must become known to the network.

  Raises:
    ValueError: only some of JAX's variables are set, a number is wrong, or JAX does not find out
      what is not set.
  """
  for name, others in _LAUNCHED.items():
    total = os.environ.get(name) or "1"
    if not total.isdecimal():
      raise ValueError(f"{name} must be a whole number, not {total!r}. Unset it for one host.")
    if int(total) > 1 and (without := _lacking(others)):
      logging.warning(
        "%s is %s, but this process is alone: %s. For all %s, start them with the launcher itself "
        "(srun, mpirun).", name, total, without, total,
      )  # fmt: skip
  if not several():
    return None
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
  for name, others in _LAUNCHED.items():
    if _launched(name) > 1:
      count, number = count or os.environ[name], number or os.environ[others[0]]
  if address and count and number:
    return Place(address, int(count), int(number))
  found: list[Any]
  given = (address or None, int(count) if count else None, int(number) if number else None)
  try:
    *found, _ = ClusterEnv.auto_detect_unset_distributed_params(*given, None, None, timeout)
  except (RuntimeError, OSError) as error:
    raise ValueError(f"{_UNKNOWN} ({str(error).splitlines()[0]}).") from error
  if None in found:
    raise ValueError(f"{_UNKNOWN}.")
  return Place(*found)


def alone_on_its_host() -> bool:
  """Tells whether the launcher started one process on each host."""
  tasks, nodes = (os.environ.get(name) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_NODES"))
  of_slurm = _launched("SLURM_NTASKS") > 1 and tasks == nodes
  return of_slurm or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def _in_cluster() -> bool:
  """Tells whether this is SLURM, Open MPI or a TPU slice, where JAX finds out what is not set."""
  return any(_launched(name) > 1 for name in _LAUNCHED) or on_tpu_pod()


@functools.cache
def _tpu_slice() -> type[ClusterEnv] | None:
  """Returns JAX's view of the TPU slice of several hosts that this one is of, or None.

  GKE sets TPU_WORKER_HOSTNAMES. A TPU VM asks Google Cloud's metadata server, but only where TPU
  chips are attached.
  """
  if "tpu" not in os.environ.get("JAX_PLATFORMS", "tpu"):
    return None
  try:
    for cluster in (GkeTpuCluster, GceTpuCluster):
      if cluster.is_env_present():
        return cluster if cluster.get_process_count() > 1 else None
  except OSError as error:  # a machine with TPU chips, but outside of Google Cloud
    logging.warning("The metadata of this TPU host cannot be read, so it runs alone: %s", error)
  return None


def _launched(name: str) -> int:
  """Returns the number of processes in a launcher's variable, 1 if it did not start this one."""
  count = os.environ.get(name, "")
  return int(count) if count.isdecimal() and not _lacking(_LAUNCHED[name]) else 1


def _lacking(names: Sequence[str]) -> str:
  """Says why the launcher that sets these variables did not start this process; '' if it did."""
  if os.environ.get(_TERMINAL) and names[0].startswith("SLURM"):
    return "it runs in a shell of srun --pty"
  missing = [name for name in names if not os.environ.get(name)]
  return f"{', '.join(missing)} not set" if missing else ""
