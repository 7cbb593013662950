"""Whether a program fits a device's memory, and what to try where it does not."""

import dataclasses
import math
import re

from ml_collections import ConfigDict

from experiments.compiled.targets import Target

# A GPU's compiler raises no error, and counts no workspaces of cuDNN, buffers of NCCL or context of
# CUDA, about 5 GB together; JAX takes three quarters of a card by default.
_GPU_SHARE, _GPU_REST, _GPU_MOST = 0.75, 5e9, 0.9
# A TPU's compiler refuses what does not fit. Close to the limit a program may fail when it starts,
# as memory has been split into pieces.
_TPU_TIGHT = 0.9

FITS, TIGHT, TOO_LARGE = "fits", "tight", "does not fit"


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of a program on one device.

  Attributes:
    argument: arguments: the state, frozen networks, the batch.
    temporary: temporary arrays: activations, gradients.
    output: results.
    total: all of them, without what is written over an argument.
  """

  argument: int
  temporary: int
  output: int
  total: int


def of_bytes(target: Target, total: float) -> str:
  """Returns FITS, TIGHT or TOO_LARGE for a program of `total` bytes."""
  if target.clock is not None:
    return FITS if total <= _TPU_TIGHT * target.memory else TIGHT
  if total <= _GPU_SHARE * target.memory - _GPU_REST:
    return FITS
  return TIGHT if total <= _GPU_MOST * target.memory else TOO_LARGE


def refused(error: BaseException) -> float | None:
  """Returns the bytes that a program would take, if the compiler refused it for them; else None."""
  text = str(error)
  if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
    return None
  size = r"([\d.]+)([KMGT]?)"
  found = re.search(rf"Used {size} of [\d.]+[KMGT]? hbm|\({size}\) exceeds available HBM", text)
  if not found:
    return math.inf
  number, unit = found[1] or found[3], found[2] or found[4] or " "
  return float(number) * 2.0 ** (10 * " KMGT".index(unit))


def remedies(config: ConfigDict, name: str, devices: int) -> list[str]:
  """Returns flags that make a program smaller, in the order in which to try them."""
  if name not in config.train:
    key = next(key for key in ("frames_per_chunk", "videos_per_chunk") if key in config.sample)
    return [f"--config.sample.{key}={max(config.sample[key] // 2, 1)}"]
  found, train = [], config.train[name]
  if config.get("remat") == "none":
    found.append("--config.remat=blocks")
  batch, parts = train.batch_size, train.get("accumulate", 0)
  more = [n for n in range(2 * parts, batch // devices + 1) if parts and batch % (n * devices) == 0]
  if more:
    found.append(f"--config.train.{name}.accumulate={more[0]}")
  wider = [n for n in range(config.mesh.fsdp + 1, devices + 1) if devices % n == 0]
  if wider:
    found.append(f"--config.mesh.fsdp={wider[-1]}")
  if batch > devices * max(parts, 1):
    halved = batch // 2 - batch // 2 % (devices * max(parts, 1))
    found.append(f"--config.train.{name}.batch_size={max(halved, devices * max(parts, 1))}")
  return found
