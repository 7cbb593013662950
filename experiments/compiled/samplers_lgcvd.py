"""LGC-VD's sampler as a program to compile: one fragment of a video."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.compiled.programs import split
from experiments.setup import lgcvd
from videodiff_jax.lgcvd.pipeline import Pipeline
from videodiff_jax.training import partitioning

NAMES = ("sample_fragment",)


def make(config: ConfigDict, mesh: Mesh) -> list[tuple[str, int, Callable[[], Any]]]:
  """Returns (name, rows, trace), with as many rows a device as one call takes at most."""
  rows = config.sample.videos_per_chunk * mesh.size

  def trace() -> Any:
    weights = partitioning.with_shardings(lgcvd.abstract_weights(config), mesh)
    pipeline = Pipeline(config, {"raw": weights, "ema": weights}, mesh)
    networks, slots = pipeline.networks, pipeline.networks.slots
    shape = (rows, *networks.fragment_shape)
    memory = jax.eval_shape(lambda given: pipeline.rollout.start(given, shape), weights)
    given = (
      jax.ShapeDtypeStruct((rows, slots, *networks.frame_shape), jnp.float32),
      jax.ShapeDtypeStruct((rows, slots), jnp.int32),
      jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows)),
    )
    with jax.set_mesh(mesh):
      return pipeline.rollout.step.trace(pipeline.params, *split((memory, *given), mesh))

  return [("sample_fragment", rows, trace)]
