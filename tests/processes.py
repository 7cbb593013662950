"""Several processes on loopback, started as several hosts are: by JAX's three variables."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]


def free_port() -> int:
  """A port of this machine that nobody listens at."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def environments(count: int, devices: int = 1) -> list[dict[str, str]]:
  """The environment of each process; of one alone without JAX's variables."""
  flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
  shared = os.environ | {
    "XLA_FLAGS": flags,
    "JAX_NUM_CPU_DEVICES": str(devices),
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
  }
  if count == 1:
    return [shared]
  shared |= {
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
    "JAX_NUM_PROCESSES": str(count),
  }
  return [shared | {"JAX_PROCESS_ID": str(i)} for i in range(count)]


def run(
  module: str,
  arguments: Sequence[str],
  count: int,
  devices: int = 1,
  timeout: float = 300,
  of_last: Sequence[str] = (),
) -> list[tuple[int | None, str]]:
  """Runs a module in `count` processes of `devices` CPU devices each; 1 process sets no variable.

  The last process also gets the arguments `of_last`.

  Returns:
    (exit status, what it wrote) of each; status None where it had to be killed after `timeout`
    seconds.
  """
  # Files: a process whose pipe nobody empties would wait, and the others with it.
  written = [tempfile.TemporaryFile("w+") for _ in range(count)]
  children = [
    subprocess.Popen(
      [sys.executable, "-m", module, *arguments, *(of_last if i == count - 1 else ())],
      cwd=ROOT, stdout=file, stderr=file, env=environment,
    )
    for i, (file, environment) in enumerate(zip(written, environments(count, devices)))
  ]  # fmt: skip
  end = time.monotonic() + timeout
  results = []
  for child, file in zip(children, written):
    try:
      status = child.wait(max(end - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
      child.kill()
      child.wait()
      status = None
    file.seek(0)
    results.append((status, file.read()))
    file.close()
  return results
