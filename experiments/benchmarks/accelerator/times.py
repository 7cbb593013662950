"""How fast an accelerator samples and trains; times are medians of blocked runs after a warm-up."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments.benchmarks.accelerator import inputs as stage_inputs
from experiments.setup import systems
from experiments.train import plan
from videodiff_jax.training import flops

_ROUNDS = 5


def sampling(
  name: str, variants: str, frames: int, published: str, **settings: Any
) -> dict[str, Any]:
  """Times one clip from noise to uint8 frames on the host, all frames at once.

  Args:
    name: name of the configuration.
    variants: variants of it.
    frames: frames of the clip.
    published: time and memory of the paper, which go into the result.
    **settings: replace entries of `config.sample`.
  """
  config, mesh = stage_inputs.config(name, variants), _mesh()
  hook = systems.of(config).hook("speed_table")
  pipeline = stage_inputs.pipeline(config, stage_inputs.constantly, mesh)
  pipeline = pipeline.with_settings(**settings)
  draw = hook.drawing(pipeline, frames)
  began = time.monotonic()
  draw(0)
  first = time.monotonic() - began
  times = [_seconds(functools.partial(draw, seed)) for seed in range(1, _ROUNDS + 1)]
  return {
    "clip_s": statistics.median(times),
    "all_s": times,
    "first_s": first,
    "frames": frames,
    "steps": hook.steps(pipeline.config),
    "published": published,
    **_about(config),
    **_memory(),
  }


def training(name: str, variants: str, stage: str, parts: int) -> dict[str, Any]:
  """Times a stage's last step on the share of the batch that a device of `parts` has.

  The model's FLOPs are those of `plan.stage_figures`: recomputation does not count.
  """
  config, mesh = stage_inputs.config(name, variants), _mesh()
  settings = config.train[stage]
  settings.batch_size = max(settings.batch_size // parts, settings.get("accumulate", 1))
  inputs = stage_inputs.make(config, stage, stage_inputs.constantly, mesh)
  began = time.monotonic()
  program = inputs.compiled()
  compiled = time.monotonic() - began
  state, frozen, batch = inputs.state, inputs.frozen, inputs.batch
  del inputs  # the first call consumes its state
  times = []
  for _ in range(_ROUNDS + 1):
    began = time.monotonic()
    state, metrics = jax.block_until_ready(program(state, frozen, batch))
    times.append(time.monotonic() - began)
  del metrics
  seconds = statistics.median(times[1:])
  cost = plan.stage_figures(config, stage).flops_per_step
  peak = flops.peak_flops(mesh.devices.flat[0])
  needed = program.memory_analysis()
  return {
    "step_s": seconds,
    "all_s": times[1:],
    "compile_s": compiled,
    "batch_size": settings.batch_size,
    "accumulate": settings.get("accumulate", 1),
    "tflop_per_step": cost / 1e12,
    "mfu": cost / seconds / peak if peak else None,
    "arguments_gb": needed.argument_size_in_bytes / 1e9,
    "temporaries_gb": needed.temp_size_in_bytes / 1e9,
    **_about(config),
    **_memory(),
  }


def _mesh() -> jax.sharding.Mesh:
  return stage_inputs.one_device(jax.devices()[0])


def _seconds(function: Callable[[], Any]) -> float:
  began = time.monotonic()
  function()
  return time.monotonic() - began


def _about(config: Any) -> dict[str, Any]:
  return {"image_size": config.data.image_size, "precision": config.precision}


def _memory() -> dict[str, float]:
  """Returns the device's peak of memory in GB so far; nothing where it does not count it."""
  stats = jax.devices()[0].memory_stats() or {}
  return (
    {"peak_gb_so_far": stats["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in stats else {}
  )
