"""What has to be settled before jax is imported: whose log lines show, how XLA compiles for CPU."""

import importlib.util
import logging as python_logging
import os
import pathlib

from absl import logging

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
# XNNPACK and YNNPACK cut a small network's backward pass into hundreds of tiny parallel calls:
# without them the digits' autoencoder step took 137 ms instead of 222 and compiled in 24 s instead
# of 34 (2 cores, jax 0.10.2, least of 20 steps, beside other work). Known to jaxlib from 0.9 on.
CPU_FLAGS = "--xla_cpu_use_xnnpack=false --xla_cpu_experimental_ynn_fusion_type="


def choose_cpu_kernels() -> None:
  """Puts `CPU_FLAGS` before what XLA_FLAGS already says, where nothing but a CPU is installed."""
  if not any(importlib.util.find_spec(name) for name in _ACCELERATORS):
    os.environ["XLA_FLAGS"] = f"{CPU_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()


def quiet_libraries() -> None:
  """Ours at INFO, everybody else's from WARNING on (orbax and jax log through absl too)."""
  logging.set_verbosity(logging.INFO)
  logging.set_stderrthreshold("info")
  handler = logging.get_absl_handler()
  handler.setFormatter(python_logging.Formatter("%(message)s"))
  handler.addFilter(
    lambda record: (
      record.levelno >= python_logging.WARNING
      or (
        pathlib.Path(record.pathname).is_relative_to(_ROOT)
        and "site-packages" not in record.pathname
      )
    )
  )
