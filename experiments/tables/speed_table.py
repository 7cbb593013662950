"""--mode=benchmark --table=glober_2: seconds and memory of one clip of 16, 32, 64 and 128 frames.

  python -m experiments.main --mode=benchmark --table=glober_2 --config=configs/lgcvd_digits.py

GLOBER draws all frames of a clip at once, LGC-VD fragment after fragment. The network is that of
the configuration, its weights are all one number: what they are takes no time.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from experiments.setup import checks, glober
from experiments.tables import score_table
from experiments.tables.papers import SPEED, SPEED_CONFIG, SPEED_METHODS, SPEED_ROWS
from videodiff_jax import lgcvd
from videodiff_jax.glober import precision, stages
from videodiff_jax.glober.networks import condition_of
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.lgcvd import stages as lgcvd_stages
from videodiff_jax.training import partitioning
from videodiff_jax.training.writers import format_table

_ROUNDS = 3
_FRAMES = (*SPEED_ROWS, 128)
_WEIGHT = 0.02


def show(name: str, config: ml_collections.ConfigDict | None) -> str:
  """Measures on the first device and returns GLOBER Table 2 with a column of ours.

  Args:
    name: of the table: there is one.
    config: whose networks and `sample` are measured; by default the paper's, 256 x 256.

  Raises:
    UserError: another table.
  """
  if name != SPEED:
    raise checks.UserError(f"--mode=benchmark has --table={SPEED}; others are --mode=evaluate's.")
  config = config or score_table.load(SPEED_CONFIG)
  pipeline, rows = untrained(config), []
  for frames in _FRAMES:  # the peak of memory only grows: few frames first
    seconds, gigabytes = measure(pipeline, frames)
    published = SPEED_ROWS.get(frames, ("-",) * len(SPEED_METHODS))
    rows.append((f"F = {frames}", *published, f"{seconds:.2f}s/{gigabytes:.1f}G"))
  side = config.data.image_size
  return "\n\n".join(
    [
      "GLOBER Table 2: time and memory of one clip, 256 x 256; the paper's on a V100",
      format_table(rows, ("", *SPEED_METHODS, "here")),
      f"Here: {side} x {side}, {_steps(config)}, {config.precision}, one "
      f"{jax.devices()[0].device_kind}; the median of {_ROUNDS} clips, from noise to uint8 frames, "
      f"compiled before. Memory: the highest so far, {_memory()[1]}, parameters in float32 "
      "included.",
    ]
  )


def _steps(config: ml_collections.ConfigDict) -> str:
  sampled = config.sample
  if config.system == "lgcvd":
    return f"{sampled.sampler.num_steps} steps a fragment of {config.fragment.num_frames} frames"
  steps = f"{sampled.generator.num_steps} + {sampled.decoder.num_steps} steps"
  return f"{steps}, all frames at once"


def untrained(config: ml_collections.ConfigDict) -> Pipeline | lgcvd.Pipeline:
  """The configuration's pipeline on one device, with meaningless weights."""
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  if config.system == "lgcvd":
    stage = lgcvd_stages.make_stage(config, *lgcvd_stages.NAMES)
    params = _filled(jax.eval_shape(stage.init, jax.random.key(0)).params)
    return lgcvd.Pipeline(config, {"raw": params, "ema": params}, mesh)
  ema = {}
  for name in stages.NAMES:
    stage = stages.make_stage(config, name)
    state = jax.eval_shape(stage.init, jax.random.key(0))
    params = precision.rounded(stage, state.ema_params, config.precision)
    ema[name] = {"ema_params": params, "statistics": state.statistics}
  params: dict[str, Any] = stages.sampling_params(ema | glober.given(config))
  if condition_of(config) == "text":
    params["default_text"] = params["null_text"]
  return Pipeline(config, _filled(params), mesh)


def _filled(abstract: Any) -> Any:
  return jax.tree.map(lambda leaf: jnp.full(leaf.shape, _WEIGHT, leaf.dtype), abstract)


def measure(pipeline: Pipeline | lgcvd.Pipeline, frames: int) -> tuple[float, float]:
  """Median seconds of a clip of so many frames, and the peak of memory so far in gigabytes."""
  draw, seconds = _drawing(pipeline, frames), []
  for round_number in range(_ROUNDS + 1):
    began = time.monotonic()
    draw(round_number)
    seconds.append(time.monotonic() - began)
  return statistics.median(seconds[1:]), _memory()[0]


def _drawing(pipeline: Pipeline | lgcvd.Pipeline, frames: int) -> Callable[[int], Any]:
  """seed -> one clip of so many frames."""
  if isinstance(pipeline, lgcvd.Pipeline):
    return lambda seed: pipeline.generate(1, num_frames=frames, seed=seed)
  at_once = pipeline.with_settings(frames_per_chunk=frames)
  return lambda seed: at_once.generate(1, num_frames=frames, seed=seed)


def _memory() -> tuple[float, str]:
  """Peak in gigabytes, and of what."""
  told = jax.devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in told:
    return told["peak_bytes_in_use"] / 1e9, "of the device"
  unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else kilobytes
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, "of the process"
