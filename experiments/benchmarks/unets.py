"""--mode=benchmark: compares our UNet with a PyTorch one of the same shape on CPU, one thread each.

Both networks run in one pinned process and take turns, so that the ratios hold on a busy machine.
`show` starts that process, which runs this file as a module.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import ml_collections
import numpy as np

from experiments.setup import systems

# A system's hook 'unet_benchmark' is a module with
#   require(): raises UserError where its PyTorch side cannot be imported.
#   ROWS: (name, rounds, aim of the ratio ours / theirs).
#   functions(config): heading, our functions and theirs in the order of ROWS, a remark.


def show(config: ml_collections.ConfigDict | None) -> str:
  """Measures in a fresh process of one thread and returns its table.

  Args:
    config: configuration of the system whose UNet is measured; None takes GLOBER's.

  Raises:
    UserError: the PyTorch side cannot be imported.
    RuntimeError: the process failed (its message is on the screen).
  """
  _comparison(config).require()  # reported before a process is started
  single = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
  }
  command = [sys.executable, "-m", "experiments.benchmarks.unets"]
  child = subprocess.run(
    command,
    env=os.environ | single,
    input="null" if config is None else config.to_json(),
    stdout=subprocess.PIPE,
    text=True,
  )
  if child.returncode:
    raise RuntimeError(f"The benchmark's process failed with status {child.returncode}.")
  return child.stdout.rstrip()


def measure(config: ml_collections.ConfigDict | None) -> str:
  """Makes a table of both sides' median seconds and of the median ratio of neighbouring runs."""
  from videodiff_jax.training.writers import format_table

  comparison, rows = _comparison(config), []
  heading, our_functions, their_functions, remark = comparison.functions(config)
  for (name, rounds, aim), ours, theirs in zip(comparison.ROWS, our_functions, their_functions):
    ours(), theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    ratio = np.median([a / b for a, b in pairs])
    a, b = np.median(pairs, axis=0)
    rows.append((name, f"{a:.3f}", f"{b:.3f}", f"{ratio:.2f}", f"<= {aim}"))
  table = format_table(rows, (heading, "JAX s", "PyTorch s", "ratio", "aim"))
  return f"{table}\nCPU, float32, one thread each, taking turns. {remark}".rstrip()


def _comparison(config: ml_collections.ConfigDict | None) -> ModuleType:
  return systems.by_name("glober" if config is None else config.system).hook("unet_benchmark")


def _seconds(function: Callable[[], object]) -> float:
  """Measures processor seconds, which do not include the load of other programs."""
  began = time.process_time()
  function()
  return time.process_time() - began


if __name__ == "__main__":
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  given = json.load(sys.stdin)
  print(measure(given and ml_collections.ConfigDict(given)))
