import importlib.util
import os
import subprocess
import sys

import pytest

from experiments import environment


@pytest.mark.parametrize("installed", [(), ("libtpu",), ("jax_cuda13_plugin",)])
def test_kernels_are_chosen_for_cpu_alone(monkeypatch, installed) -> None:
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_xnnpack=true")
  environment.choose_cpu_kernels()
  ours = os.environ["XLA_FLAGS"].removesuffix("--xla_cpu_use_xnnpack=true")
  assert bool(ours) == (not installed)  # the user's own comes last and wins


def test_xla_knows_the_flags() -> None:
  """An unknown or malformed flag ends the process when jax makes its backend."""
  code = "import jax; print(jax.jit(lambda x: x + 1)(1))"
  env = os.environ | {"XLA_FLAGS": environment.CPU_FLAGS}
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
  assert out.stdout.strip() == "2", out.stderr
