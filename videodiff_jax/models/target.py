"""What a function that is being traced will be compiled for.

Layers choose between forms of the same result by it. They never ask `jax.default_backend()`: a
mesh may be of devices that this machine has not got, when a step is compiled ahead for others.
"""

import re

import jax

# NVIDIA's cards before compute capability 8.0 that still compute in 16 bits: Maxwell to Turing.
_BEFORE_AMPERE = re.compile(r"NVIDIA ([KMPVT]\d|GeForce (GT|MX)|GeForce RTX 20|TITAN|Quadro)")


def device_kind() -> str:
  """As jax names it: 'cpu', 'TPU v5 lite', 'NVIDIA H100 80GB HBM3'.

  That of the mesh that is open (`jax.set_mesh`); without one, of the device jax takes by itself.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return (device or jax.devices()[0]).device_kind


def platform() -> str:
  """'cpu', 'tpu' or 'gpu'."""
  kind = device_kind()
  if kind == "cpu":
    return kind
  return "tpu" if kind.startswith("TPU") else "gpu"


def flash_attention() -> bool:
  """Whether cuDNN's flash attention runs there: on NVIDIA's cards of compute capability 8.0 on."""
  kind = device_kind()
  return kind.startswith("NVIDIA") and not _BEFORE_AMPERE.match(kind)
