"""The device kind that a traced function will be compiled for.

Layers choose between forms of the same result by it. They never ask `jax.default_backend()`: when
a step is compiled ahead for other machines, the mesh has devices that this machine lacks.
"""

import re

import jax

# NVIDIA's cards before compute capability 8.0 that can compute in 16 bits: Maxwell to Turing.
_BEFORE_AMPERE = re.compile(r"NVIDIA ([KMPVT]\d|GeForce (GT|MX)|GeForce RTX 20|TITAN|Quadro)")


def device_kind() -> str:
  """Returns JAX's name of the device kind: 'cpu', 'TPU v5 lite', 'NVIDIA H100 80GB HBM3'.

  It is that of the open mesh (`jax.set_mesh`), or without a mesh that of JAX's default device.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return (device or jax.devices()[0]).device_kind


def platform() -> str:
  """Returns 'cpu', 'tpu' or 'gpu'."""
  kind = device_kind()
  if kind == "cpu":
    return kind
  return "tpu" if kind.startswith("TPU") else "gpu"


def flash_attention() -> bool:
  """Tells whether cuDNN's flash attention runs there: on NVIDIA compute capability 8.0 or later."""
  kind = device_kind()
  return kind.startswith("NVIDIA") and not _BEFORE_AMPERE.match(kind)
