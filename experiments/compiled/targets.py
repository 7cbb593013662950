"""What can be compiled for without having it: slices of TPUs and machines of NVIDIA GPUs, by name.

TPUs need the package libtpu, which holds their compiler, and GPUs two packages of JAX's. Devices of
a target stand in a mesh like those at hand; nothing can be put on them.
"""

import dataclasses
import importlib.metadata
import os
import re
from typing import Any

import jax
import jaxlib
from jax.experimental import topologies

from experiments.compiled.cards import CARDS, description
from experiments.setup.errors import UserError, as_user_error
from videodiff_jax.choices import check_choice

_GIB = 2**30
_GPUS_A_HOST = 8


@dataclasses.dataclass(frozen=True)
class _Chip:
  """A kind of TPU.

  Attributes:
    slices: the shapes of its slices.
    memory: bytes a program may use on a chip, as the compiler reports them.
    clock: cycles a second, with which the compiler's estimates of large products are plausible.
    settings: what the topology is asked for beside its shape.
  """

  slices: tuple[str, ...]
  memory: float
  clock: float
  settings: dict[str, Any] = dataclasses.field(default_factory=dict)


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
_CHIPS = {
  "v4": _Chip(_DEEP, 30.75 * _GIB, 1.05e9, {"chip_config_name": "megacore"}),
  "v5e": _Chip(_FLAT, 15.75 * _GIB, 1.5e9),
  "v5p": _Chip(_DEEP, 95.74 * _GIB, 1.75e9, {"chip_config_name": "megacore"}),
  "v6e": _Chip(_FLAT, 31.25 * _GIB, 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Devices to compile for.

  Attributes:
    name: 'v5e:2x4' or 'h100:8'.
    devices: the devices, which cannot be used.
    memory: bytes of a device's memory: on a TPU those that a program may use, on a GPU all.
    clock: cycles a second of a TPU; None for a GPU, whose compiler estimates none.
    compiler: the compiler and its version.
  """

  name: str
  devices: tuple[jax.Device, ...]
  memory: float
  clock: float | None
  compiler: str

  @property
  def options(self) -> dict[str, Any] | None:
    """Options of the compiler."""
    # Without a card nothing can be tuned, and untuned Triton products take longer to compile.
    return None if self.clock else {"xla_gpu_enable_triton_gemm": False}


def names() -> list[str]:
  """Lists what may be asked for; of GPUs those of one machine."""
  tpus = [f"{kind}:{shape}" for kind, chip in _CHIPS.items() for shape in chip.slices]
  return [*tpus, *(f"{card}:{_GPUS_A_HOST}" for card in CARDS)]


def find(name: str) -> Target:
  """Finds the target of a name, such as 'v5e:2x4'.

  Raises:
    UserError: there is none, or its compiler is not installed.
  """
  kind, _, shape = name.partition(":")
  if kind in CARDS and re.fullmatch(r"[1-9]\d{0,3}", shape):
    return _gpus(name, kind, int(shape))
  with as_user_error():
    check_choice("--compile", name, names())
  return _slice(name, kind, shape)


def _slice(name: str, kind: str, shape: str) -> Target:
  if not (version := _version("libtpu")):
    raise UserError(
      f"--compile={name} needs the compiler for TPUs, which is not installed: "
      f"pip install --no-deps '{libtpu()}' (220 MB; no TPU is needed). The extra tpu has it, too."
    )
  _prepare()
  chip = _CHIPS[kind]
  bounds = (1, 1, 1) if shape == "1x1" else (2, 2, 1)
  found = topologies.get_topology_desc(
    name, platform="tpu", chips_per_host_bounds=bounds, **chip.settings
  )
  return Target(name, tuple(found.devices), chip.memory, chip.clock, f"libtpu {version}")


def _gpus(name: str, kind: str, count: int) -> Target:
  if count > _GPUS_A_HOST and count % _GPUS_A_HOST:
    raise UserError(
      f"--compile={name}: {count} GPUs do not fill machines of {_GPUS_A_HOST}; take a multiple."
    )
  version = jaxlib.version.__version__
  if not (_version("jax-cuda12-pjrt") or _version("jax-cuda13-pjrt")):
    raise UserError(
      f"--compile={name} needs XLA's compiler for NVIDIA GPUs, which is not installed: "
      f"pip install --no-deps jax-cuda12-pjrt=={version} jax-cuda12-plugin=={version} (200 MB; no "
      "GPU or driver is needed)."
    )
  _prepare()
  hosts = max(1, count // _GPUS_A_HOST)
  found = topologies.get_topology_desc(
    platform="cuda",
    topology=f"1x{hosts}x{count // hosts}",
    target_config=description(CARDS[kind]),
  )
  return Target(name, tuple(found.devices), CARDS[kind].memory, None, f"jaxlib {version}")


def _prepare() -> None:
  """Keeps JAX from looking for accelerators at hand, which planning does not need."""
  jax.config.update("jax_platforms", "cpu")
  os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read by JAX's package for GPUs
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no question to a cloud's metadata server
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")  # two compilations side by side
  # Else the library complains that it does not know which machine it is on.
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")


def _version(package: str) -> str:
  """Returns an installed package's version; '' where there is none."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ""


def libtpu() -> str:
  """Returns the requirement of the libtpu that belongs to the installed JAX."""
  lines = importlib.metadata.requires("jax") or []
  return next((line.partition(";")[0] for line in lines if line.startswith("libtpu")), "libtpu")
