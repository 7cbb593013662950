"""--mode=benchmark --table=glober_2: time and memory to draw a clip of 16, 32, 64 or 128 frames.

  python -m experiments.main --mode=benchmark --table=glober_2 --config=configs/lgcvd_digits.py

GLOBER draws all frames of a clip at once, LGC-VD fragment after fragment. The networks are those of
the configuration. All their weights are one number, since values do not change the time.
"""

import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from experiments.setup import checks, systems
from experiments.setup import glober as glober_setup
from experiments.setup import lgcvd as lgcvd_setup
from experiments.tables import score_table
from experiments.tables.papers import SPEED, SPEED_CONFIG, SPEED_METHODS, SPEED_ROWS
from videodiff_jax import glober, lgcvd
from videodiff_jax.training import partitioning
from videodiff_jax.training.writers import format_table

_ROUNDS = 3
_FRAMES = (*SPEED_ROWS, 128)
_WEIGHT = 0.02


def show(name: str, config: ml_collections.ConfigDict | None) -> str:
  """Measures on the first device and returns GLOBER Table 2 with a column of ours.

  Args:
    name: name of the table; there is only one.
    config: configuration whose networks and `sample` are measured; None takes the paper's, 256 x
      256.

  Raises:
    UserError: the name is that of another table.
  """
  if name != SPEED:
    raise checks.UserError(
      f"--mode=benchmark has only --table={SPEED}; give others to --mode=evaluate."
    )
  config = config or score_table.load(SPEED_CONFIG)
  pipeline, rows = untrained(config), []
  for frames in _FRAMES:  # the peak of memory only grows: few frames first
    seconds, gigabytes = measure(pipeline, frames)
    published = SPEED_ROWS.get(frames, ("-",) * len(SPEED_METHODS))
    rows.append((f"F = {frames}", *published, f"{seconds:.2f}s/{gigabytes:.1f}G"))
  side = config.data.image_size
  steps = systems.of(config).hook("speed_table").steps(config)
  return "\n\n".join(
    [
      "GLOBER Table 2: time and memory of one clip, 256 x 256; the paper's on a V100",
      format_table(rows, ("", *SPEED_METHODS, "here")),
      f"Here: {side} x {side}, {steps}, {config.precision}, one "
      f"{jax.devices()[0].device_kind}; the median of {_ROUNDS} clips, from noise to uint8 frames, "
      f"compiled before. Memory: the highest so far, {_memory()[1]}, parameters in float32 "
      "included.",
    ]
  )


def untrained(config: ml_collections.ConfigDict) -> glober.Pipeline | lgcvd.Pipeline:
  """Makes the configuration's pipeline on one device, with meaningless weights."""
  return systems.of(config).hook("speed_table").untrained(config)


def _untrained_glober(config: ml_collections.ConfigDict) -> glober.Pipeline:
  weights = _filled(glober_setup.abstract_weights(config))
  return glober.Pipeline(config, weights, _one_device())


def _glober_steps(config: ml_collections.ConfigDict) -> str:
  steps = f"{config.sample.generator.num_steps} + {config.sample.decoder.num_steps} steps"
  return f"{steps}, all frames at once"


def _draw_glober(pipeline: glober.Pipeline, frames: int) -> Callable[[int], Any]:
  at_once = pipeline.with_settings(frames_per_chunk=frames)
  return lambda seed: at_once.generate(1, num_frames=frames, seed=seed)


def _untrained_lgcvd(config: ml_collections.ConfigDict) -> lgcvd.Pipeline:
  params = _filled(lgcvd_setup.abstract_weights(config))
  return lgcvd.Pipeline(config, {"raw": params, "ema": params}, _one_device())


def _lgcvd_steps(config: ml_collections.ConfigDict) -> str:
  steps = config.sample.sampler.num_steps
  return f"{steps} steps a fragment of {config.fragment.num_frames} frames"


def _draw_lgcvd(pipeline: lgcvd.Pipeline, frames: int) -> Callable[[int], Any]:
  return lambda seed: pipeline.generate(1, num_frames=frames, seed=seed)


@dataclasses.dataclass(frozen=True)
class Speed:
  """A system's row of the table.

  Attributes:
    untrained: configuration -> a pipeline with meaningless weights, on one device.
    steps: configuration -> its sampling steps, in words.
    drawing: (pipeline, frames) -> a function of a seed that draws one clip.
  """

  untrained: Callable[[ml_collections.ConfigDict], Any]
  steps: Callable[[ml_collections.ConfigDict], str]
  drawing: Callable[[Any, int], Callable[[int], Any]]


GLOBER = Speed(_untrained_glober, _glober_steps, _draw_glober)
LGCVD = Speed(_untrained_lgcvd, _lgcvd_steps, _draw_lgcvd)


def _one_device() -> jax.sharding.Mesh:
  return partitioning.make_mesh(devices=jax.devices()[:1])


def _filled(abstract: Any) -> Any:
  return jax.tree.map(lambda leaf: jnp.full(leaf.shape, _WEIGHT, leaf.dtype), abstract)


def measure(pipeline: glober.Pipeline | lgcvd.Pipeline, frames: int) -> tuple[float, float]:
  """Returns the median seconds of a clip of `frames` frames, and peak memory so far in GB."""
  system = systems.of(pipeline.config)
  draw, seconds = system.hook("speed_table").drawing(pipeline, frames), []
  for round_number in range(_ROUNDS + 1):
    began = time.monotonic()
    draw(round_number)
    seconds.append(time.monotonic() - began)
  return statistics.median(seconds[1:]), _memory()[0]


def _memory() -> tuple[float, str]:
  """Returns peak memory in gigabytes, and whether it is the device's or the process's."""
  stats = jax.devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"] / 1e9, "of the device"
  unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else kilobytes
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, "of the process"
