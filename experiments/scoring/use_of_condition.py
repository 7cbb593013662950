"""'Use of condition' in score files: how a trained network reacts when a condition is swapped."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from experiments.sampling import glober_samples
from experiments.setup import frame_stores
from videodiff_jax import glober, lgcvd
from videodiff_jax.chunks import in_chunks
from videodiff_jax.glober import condition_use as of_clips
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.lgcvd import condition_use as of_fragments
from videodiff_jax.metrics import condition_use
from videodiff_jax.training import means, partitioning
from videodiff_jax.training.writers import format_table

GROUP = "use_of_condition"  # group of figures in a score file
ABOUT = (
  "What changes when one condition is swapped while noise and timesteps stay, on held-out clips. "
  "change: the rms difference of the network's prediction, in units of its rms; loss_change: how "
  "much larger the denoising loss becomes, in units of the loss. A change below 0.01 is a "
  "condition that the network does not use."
)

_CLIPS = 64
_DRAWS = 2  # timesteps per clip, each with its own noise
_CHUNK = 16  # examples per device and call
_SEED = 0

Rows = dict[str, np.ndarray]
Figures = tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]


def of_lgcvd(pipeline: lgcvd.Pipeline, store: FrameStore) -> Figures:
  """Computes figures and intervals with the given frames or the encoder's fragment swapped.

  Args:
    pipeline: pipeline with the networks and weights.
    store: held-out videos. The first clip is taken from each of up to 64, since in some data sets
      only fragments that begin with the video depend on the fragment before.
  """
  networks = pipeline.networks
  length = 2 * networks.num_frames - networks.slots
  sampler = frame_stores.clip_sampler(pipeline.config, "clip", num_frames=length)
  found = _held_out(store, sampler, first=True)
  if found is None:
    return {}, {}
  with_encoder = pipeline.config.model.sequence_encoder
  rows, swaps = of_fragments.conditions(networks, found.read(), with_encoder)
  draws = [(rows | drawn, swaps) for drawn in _timesteps(len(found), networks.process)]
  predict = functools.partial(of_fragments.predict, networks, pipeline.config.objective.saturate)
  return condition_use.figures(measure(predict, pipeline.params, pipeline.mesh, draws), _SEED)


def of_glober(pipeline: glober.Pipeline, store: FrameStore) -> Figures:
  """Computes figures and intervals with the decoder's and the generator's conditions swapped.

  Global features are means of posteriors. Without a condition the generator has nothing to swap.

  Args:
    pipeline: pipeline with the networks and weights.
    store: held-out videos, as in `of_lgcvd`.
  """
  networks, times = pipeline.networks, pipeline.frame_times.astype(np.float32)
  found = _held_out(store, frame_stores.clip_sampler(pipeline.config, "clip"))
  if found is None:
    return {}, {}
  n, real = len(found), found.read()
  v = pipeline.encode(real)
  labels, prompts = glober_samples.conditions_of(pipeline, store, found.videos)
  condition = pipeline.conditions(n, labels=labels, prompts=prompts)
  own = {"v": v, "condition": condition}
  by_condition = of_clips.condition_swaps(networks, pipeline.params, condition)
  rng = np.random.default_rng(_SEED)

  def of_frames() -> Iterator[tuple[Rows, dict[str, Rows]]]:
    for drawn in _timesteps(n, networks.decoder_process):
      at = rng.integers(0, len(times), n)
      frame = {"frame": real[np.arange(n), at], "time": times[at]}
      other_times = times[(at + len(times) // 2) % len(times)]
      yield own | frame | drawn, of_clips.frame_swaps(v, other_times) | by_condition

  measured: dict[str, tuple[Callable[..., Any], Iterable[tuple[Rows, dict[str, Rows]]]]] = {
    "decoder": (of_clips.predict_frame, of_frames())
  }
  if by_condition:
    features = [(own | drawn, by_condition) for drawn in _timesteps(n, networks.generator_process)]
    measured["generator"] = of_clips.predict_feature, features
  stats: dict[str, condition_use.Stats] = {}
  for name, (predict, draws) in measured.items():
    predict = functools.partial(predict, networks)
    swapped = measure(predict, pipeline.params, pipeline.mesh, draws)
    stats |= {f"{name}: {swap}": values for swap, values in swapped.items()}
  return condition_use.figures(stats, _SEED)


def _held_out(
  store: FrameStore, sampler: clips.ClipSampler, first: bool = False
) -> clips.Places | None:
  """Picks a clip of each of up to 64 videos; logs a warning and returns None for fewer than two.

  With `first` the clips begin where their videos do.
  """
  frames = np.array([video["frames"] for video in store.videos])
  usable = int(np.count_nonzero(frames >= sampler.span))
  if usable < 2:
    logging.warning(
      "'Use of condition' is left out: it takes two held-out videos of %d frames.", sampler.span
    )
    return None
  found = clips.evaluation_places(store, sampler, min(_CLIPS, usable), _SEED)
  return dataclasses.replace(found, starts=np.zeros_like(found.starts)) if first else found


def _timesteps(count: int, process: Any) -> Iterable[Rows]:
  """Yields 't' and 'number' of `count` examples per draw; all timesteps are spread evenly."""
  total = count * _DRAWS
  even = (np.arange(total) + 0.5) / total * process.num_timesteps
  drawn = np.random.default_rng(_SEED).permutation(even.astype(np.int32)).reshape(_DRAWS, count)
  numbers = np.arange(total, dtype=np.uint32).reshape(_DRAWS, count)
  return [{"t": t, "number": number} for t, number in zip(drawn, numbers)]


def measure(
  predict: Callable[[Any, dict[str, jax.Array]], tuple[jax.Array, jax.Array]],
  params: Any,
  mesh: Mesh,
  draws: Iterable[tuple[Rows, dict[str, Rows]]],
) -> dict[str, condition_use.Stats]:
  """Computes `condition_use.compare` of every swap, averaged over draws: (n,).

  Args:
    predict: (params, rows) -> prediction and loss of each row; compiled once.
    params: first argument of `predict`.
    mesh: mesh over which rows are split.
    draws: for each draw, the rows of n clips, and swap -> the rows that replace some of them.
  """
  program = jax.jit(predict)
  found: dict[str, list[condition_use.Stats]] = {}
  with jax.set_mesh(mesh):
    for rows, swaps in draws:
      count = len(rows["t"])
      size = min(_CHUNK, -(-count // mesh.devices.size)) * mesh.devices.size

      def answer(given: Rows, size: int = size) -> condition_use.Answer:
        def call(*columns: np.ndarray) -> tuple[jax.Array, jax.Array]:
          return program(params, partitioning.put_whole(dict(zip(given, columns)), mesh))

        return in_chunks(call, tuple(given.values()), size)

      own = answer(rows)
      for name, swapped in swaps.items():
        stats = condition_use.compare(own, answer(rows | swapped))
        found.setdefault(name, []).append(stats)
  return {name: means.over(rows) for name, rows in found.items()}


def report(scores: dict[str, dict[str, float]]) -> str:
  """Formats the figures as a table."""
  rows = [
    (name, f"{row['change']:.4f}", f"{row['loss_change']:+.4f}", f"{row['loss']:.4f}")
    for name, row in scores.items()
  ]
  return format_table(rows, ("use of condition: swapped", "change", "loss change", "loss"))
