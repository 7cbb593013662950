"""Compiles a program and takes its figures."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax

from experiments.compiled import hlo
from experiments.compiled import verdict as verdicts
from experiments.compiled.programs import Program
from experiments.compiled.targets import Target
from videodiff_jax.training import flops


@dataclasses.dataclass(frozen=True)
class Figures:
  """What the compiler says of a program on one device of a target.

  Attributes:
    program: the program's name.
    rows: clips, frames or trajectories of one call over all devices.
    target: the target's name.
    devices: its number of devices.
    mesh: devices along 'data' and 'fsdp'.
    compiler: the compiler and its version.
    jax: JAX's version.
    verdict: 'fits', 'tight' or 'does not fit'.
    memory: the bytes; None where the compiler refused the program.
    total: bytes of the program, also where it was refused.
    capacity: bytes of the device.
    compile_seconds: processor time of the compiler.
    flops: the model's operations a device.
    cycles: the compiler's estimate with trip counts; None for GPUs.
    seconds: the cycles' time.
    share: of the device's bf16 peak.
    unestimated: executed kernels that no cycles are known of.
    collectives: (kind, count, bytes) of one call.
    dearest: (operation, share of the cycles).
  """

  program: str
  rows: int
  target: str
  devices: int
  mesh: tuple[int, int]
  compiler: str
  jax: str
  verdict: str
  memory: verdicts.Memory | None
  total: float
  capacity: float
  compile_seconds: float
  flops: float
  cycles: int | None = None
  seconds: float | None = None
  share: float | None = None
  unestimated: int = 0
  collectives: tuple[tuple[str, int, int], ...] = ()
  dearest: tuple[tuple[str, float], ...] = ()


def of(program: Program, target: Target) -> Figures:
  """Compiles a program for a target; one that does not fit is a verdict, not an error."""
  compiled, refused = None, None
  with _cudnn():
    traced = program.trace()
    lowered = traced.lower()
    began = time.process_time()
    try:
      compiled = lowered.compile(compiler_options=target.options)
    except jax.errors.JaxRuntimeError as error:
      refused = verdicts.refused(error)
      if refused is None:
        raise
  seconds = round(time.process_time() - began, 1)
  memory = None if compiled is None else _memory(compiled)
  total = memory.total if memory else refused or math.inf
  figures = Figures(
    program=program.name,
    rows=program.rows,
    target=target.name,
    devices=len(target.devices),
    mesh=tuple(program.mesh.devices.shape),
    compiler=target.compiler,
    jax=jax.__version__,
    verdict=verdicts.TOO_LARGE if memory is None else verdicts.of_bytes(target, total),
    memory=memory,
    total=total,
    capacity=target.memory,
    compile_seconds=seconds,
    flops=program.flops(traced) / len(target.devices),
  )
  return figures if compiled is None else _with_text(figures, target, compiled.as_text())


def _with_text(figures: Figures, target: Target, text: str) -> Figures:
  """Adds what the compiled program's text says."""
  module = hlo.Module(text)
  collectives = tuple((each.kind, each.count, each.size) for each in module.collectives())
  figures = dataclasses.replace(figures, collectives=collectives)
  if target.clock is None:
    return figures
  seconds, peak = module.cycles / target.clock, flops.peak_flops(target.devices[0])
  return dataclasses.replace(
    figures,
    cycles=module.cycles,
    seconds=seconds,
    share=figures.flops / seconds / peak if seconds and peak else None,
    unestimated=module.unestimated(),
    dearest=tuple((name, cycles / module.cycles) for name, cycles in module.dearest()),
  )


def _memory(compiled: Any) -> verdicts.Memory:
  found = compiled.memory_analysis()
  argument, temporary = found.argument_size_in_bytes, found.temp_size_in_bytes
  output = found.output_size_in_bytes
  total = argument + temporary + output - found.alias_size_in_bytes
  return verdicts.Memory(argument, temporary, output, total)


@contextlib.contextmanager
def _cudnn() -> Iterator[None]:
  """Answers JAX's question for cuDNN's version: tracing its attention asks a library of GPUs."""
  from jax._src.cudnn import fused_attention_stablehlo as fused  # the question has no public place

  asked = fused.check_cudnn_version
  fused.check_cudnn_version = lambda: 91002
  try:
    yield
  finally:
    fused.check_cudnn_version = asked
