"""GLOBER's two samplers as programs to compile: global features, and frames from them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.compiled.programs import split
from experiments.setup import glober
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.training import partitioning

NAMES = ("sample_features", "sample_frames")


def make(config: ConfigDict, mesh: Mesh) -> list[tuple[str, int, Callable[[], Any]]]:
  """Returns (name, rows, trace) of both, with as many rows a device as one call takes at most."""
  rows = config.sample.frames_per_chunk * mesh.size

  def arguments() -> tuple[Pipeline, Any, Any, Any]:
    weights = partitioning.with_shardings(glober.abstract_weights(config), mesh)
    pipeline = Pipeline(config, weights, mesh)
    example = jax.eval_shape(pipeline.networks.condition.example)
    given = split(jax.ShapeDtypeStruct((rows, *example.shape[1:]), example.dtype), mesh)
    return pipeline, weights, given, split(jax.ShapeDtypeStruct((rows,), jnp.int32), mesh)

  def features() -> Any:
    pipeline, weights, given, numbers = arguments()
    with jax.set_mesh(mesh):
      return pipeline.features_program.trace(weights, given, numbers, 0)

  def frames() -> Any:
    pipeline, weights, given, numbers = arguments()
    v = jax.ShapeDtypeStruct((rows, *pipeline.networks.feature_shape), jnp.float32)
    times = jax.ShapeDtypeStruct((rows,), jnp.float32)
    v, times = split((v, times), mesh)
    with jax.set_mesh(mesh):
      return pipeline.frames_program.trace(weights, v, times, given, numbers, 0)

  return [("sample_features", rows, features), ("sample_frames", rows, frames)]
