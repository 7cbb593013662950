"""--mode=benchmark --inputs: measures how fast clips of a prepared store are read, and peak memory.

Every frame is read from disk and decoded again, as in a data set larger than memory. The table also
estimates how many clips a step on one H200 would consume, from the step's FLOPs.
"""

import resource
import sys
import time

import ml_collections

from data.parts import cores
from experiments.setup import checks, frame_stores, systems
from experiments.train import plan
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training.writers import format_table

_EARLY, _LATE = 500, 5000  # clips after which memory is measured
_BATCH = 10
# Peak in bf16 without sparsity, from the vendor, and the share that a step is assumed to reach.
_H200_FLOPS, _SHARE = 989e12, 0.4


def show(config: ml_collections.ConfigDict, late: int = _LATE, early: int = _EARLY) -> str:
  """Reads whole clips, then what each stage's batches hold, and returns a table.

  Args:
    config: configuration of the store and the clips.
    late: number of whole clips to read; a tenth of it for each stage.
    early: number of clips after which peak memory is measured first.

  Raises:
    UserError: the store does not match the configuration.
  """
  directory = frame_stores.open_store(config, "train").directory
  store = FrameStore.open(directory, "train", in_memory=False)
  checks.check_store(config, store)
  seconds, peaks = read(store, frame_stores.clip_sampler(config, "clip"), late, early)
  rows = [(f"whole, {config.data.num_frames} frames", *_speed(seconds), "", "")]
  for name in config.stages:
    content, other = systems.of(config).contents[name]
    seconds, _ = read(store, frame_stores.clip_sampler(config, content, **other), late // 10, early)
    rows.append((f"{name}: {content}", *_speed(seconds), *_demand(config, name, seconds)))
  first, last = (f"{peak / 1e6:.0f} MB" for peak in peaks)
  heading = ("clips", "ms a clip", "clips/s a core", "clips/s an H200 takes", "cores for it")
  side = config.data.image_size
  return "\n\n".join(
    [
      format_table(rows, heading),
      f"{directory}: {side} x {side}, {store.codec}, {store.num_records} frames, none kept in "
      f"memory. Processor time, by {cores()} threads; batches of {_BATCH}.",
      f"Peak memory of the process: {first} after {early} whole clips, {last} after {late}.",
      "What an H200 takes is an estimate: the FLOPs of a step (--mode=plan) at "
      f"{_SHARE:.0%} of {_H200_FLOPS / 1e12:.0f} TFLOP/s.",
    ]
  )


def read(
  store: FrameStore, sampler: clips.ClipSampler, count: int, early: int
) -> tuple[float, tuple[int, int]]:
  """Reads `count` clips; returns processor seconds per clip, and two peaks of memory in bytes.

  The peaks are those after `early` clips and after the last. Processor time is measured since wall
  time depends on the machine's other work.
  """
  batches = clips.batches(store, sampler, 0, _BATCH, num_threads=cores())
  next(batches)  # from here on, reading ahead keeps pace
  began, taken, first = time.process_time(), 0, 0
  while taken < count:
    next(batches)
    taken += _BATCH
    if taken <= early:
      first = _peak()
  return (time.process_time() - began) / taken, (first, _peak())


def _speed(seconds: float) -> tuple[str, str]:
  return f"{seconds * 1e3:.2f}", f"{1 / seconds:.1f}"


def _demand(config: ml_collections.ConfigDict, name: str, seconds: float) -> tuple[str, str]:
  """Estimates the clips per second that one H200 takes in a stage, and the cores to read them."""
  flops = plan.stage_figures(config, name).flops_per_step / config.train[name].batch_size
  if not flops:
    return "none: weights are given", ""
  demand = _H200_FLOPS * _SHARE / flops
  return f"{demand:.1f}", f"{demand * seconds:.1f}"


def _peak() -> int:
  unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else kilobytes
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
