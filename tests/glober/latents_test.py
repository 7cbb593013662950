"""A step on a cache's moments is the step on the frames they were computed from."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.glober import tiny
from videodiff_jax.glober import latents, stages

pytestmark = pytest.mark.heavy


@functools.cache
def frame_moments() -> Callable[[np.ndarray], jax.Array]:
  """Frames (b, n, h, w, c) -> the KL-VAE's moments (b, n, H', W', 2 C')."""
  networks, frozen = tiny.networks(), tiny.frozen("autoencoder")

  @jax.jit
  def compute(frames: jax.Array) -> jax.Array:
    flat = frames.reshape(-1, *frames.shape[2:])
    moments = latents.frame_moments(networks, frozen, flat)
    return moments.reshape(*frames.shape[:2], *moments.shape[1:])

  return compute


def without_frames(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {name: value for name, value in batch.items() if not name.endswith("frames")}


def losses(name: str, *batches: dict) -> list[float]:
  """A stage's loss on each of the batches, with the draws of the same step."""
  stage, state = stages.make_stage(tiny.config(lambda_cra=0.0), name), tiny.state(name)
  key = jax.random.fold_in(state.key, state.step)

  @jax.jit
  def compute(frozen: dict, batches: tuple[dict, ...]) -> list[jax.Array]:
    return [stage.validate(state, frozen, batch, key)["loss"] for batch in batches]

  return [float(loss) for loss in compute(tiny.frozen(name), batches)]


def test_autoencoder_s_loss_on_moments_is_that_on_frames() -> None:
  batch = tiny.batch(4)
  cached = without_frames(batch)
  for which in ("key", "target"):
    cached[f"{which}_moments"] = frame_moments()(batch[f"{which}_frames"])
  frames, moments = losses("autoencoder", batch, cached)
  assert np.isfinite(frames) and frames > 0
  np.testing.assert_allclose(moments, frames, rtol=1e-5)


def test_generator_s_loss_on_moments_is_that_on_frames() -> None:
  """The latents of the global features are sampled with the step's key."""
  batch, state, frozen = tiny.batch(4), tiny.state("generator"), tiny.frozen("generator")

  @jax.jit
  def of_clips(batch: dict[str, jax.Array]) -> jax.Array:
    key = jax.random.split(jax.random.fold_in(state.key, state.step))[0]
    posterior = latents.global_feature(tiny.networks(), frozen, batch, jax.random.split(key)[0])
    return latents.to_moments(posterior)

  cached = without_frames(batch) | {"global_features": of_clips(batch)}
  frames, moments = losses("generator", batch, cached)
  assert np.isfinite(frames) and frames > 0
  np.testing.assert_allclose(moments, frames, rtol=1e-5)


def test_latents_are_drawn_of_the_moments() -> None:
  """And not their means; in half precision to its rounding."""
  batch, networks, frozen = tiny.batch(4), tiny.networks(), tiny.frozen("autoencoder")
  statistics = {"mean": jnp.full(4, 0.5), "std": jnp.full(4, 2.0)}

  @jax.jit
  def draw(batch: dict[str, jax.Array], seed: int) -> jax.Array:
    key = jax.random.key(seed)
    return latents.draw_latents(networks, frozen, statistics, batch, "target", key)

  frames, moments = draw(batch, 0), {"target_moments": frame_moments()(batch["target_frames"])}
  np.testing.assert_allclose(draw(moments, 0), frames, atol=1e-5)
  assert np.abs(draw(moments, 1) - frames).mean() > 0.01
  half = {"target_moments": moments["target_moments"].astype(jnp.float16)}
  np.testing.assert_allclose(draw(half, 0), frames, atol=5e-3)
