"""The frame auto-encoder's losses by hand; its adversary is in patch_adversary_test.py."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.glober import tiny
from tests.weights import require
from videodiff_jax.glober import stages
from videodiff_jax.glober.kl_vae_stage import FrameObjective, flat_frames, make_objective
from videodiff_jax.metrics import lpips
from videodiff_jax.pretrained.lpips import WEIGHTS

SIDE = 32  # LPIPS' smallest pictures, as it is pooled


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_reconstruction_loss(norm: str, saturate: bool) -> None:
  """Summed over a frame and averaged over frames, with a distance that is counted a number."""
  rng = np.random.default_rng(0)
  x = rng.choice(np.float32([-1.0, 0.2, 1.0]), (3, 4, 4, 1))
  drawn = rng.uniform(-1.5, 1.5, x.shape).astype(np.float32)

  def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    assert a.shape == b.shape == (3, 4, 4, 3)
    return (a - b)[..., 2].max((1, 2))

  objective = FrameObjective(None, norm, 0.0, saturate, distance, 0.5)
  loss, metrics = objective.reconstruction_loss(drawn, x)
  error = (np.clip(drawn, -1, 1) if saturate else drawn) - x
  if saturate:  # only where clipping meets black or white does it count
    error = np.where(error == 0, 0, drawn - x)
  pixels = (np.abs(error) if norm == "l1" else error**2).reshape(3, 16)
  np.testing.assert_allclose(metrics["reconstruction"], pixels.sum(1).mean(), rtol=1e-6)
  far = (drawn - x).reshape(3, 16).max(1).mean()
  np.testing.assert_allclose(metrics["lpips"], far, rtol=1e-6)
  np.testing.assert_allclose(loss, pixels.sum(1).mean() + 0.5 * far * 16, rtol=1e-6)


def test_a_step_with_lpips() -> None:
  """Its gradient is that of the losses written out, of real LPIPS."""
  require(WEIGHTS["alex"])
  config = tiny.config()
  config.data.image_size = SIDE
  config.loss.kl_vae.update(reconstruction="l2", lpips=0.3, lpips_net="alex", kl=0.01)
  train = tiny.filled(config, "kl_vae")
  frames = np.zeros((1, 2, SIDE, SIDE, 1), np.uint8)
  frames[0, 1, 8:20, 4:30] = 255
  model, params = stages.build(config).kl_vae, lpips.load_params("alex")

  def written_out(weights: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    posterior = model.apply(weights, x, method="encode")
    drawn = model.apply(weights, posterior.sample(key), method="decode")
    squared = jnp.square(drawn - x).sum((1, 2, 3)).mean()
    seen = lpips.lpips(*(jnp.repeat(image, 3, -1) for image in (drawn, x)), "alex", params).mean()
    kl = jnp.square(posterior.mean) + jnp.exp(posterior.logvar) - 1 - posterior.logvar
    return squared + 0.3 * SIDE**2 * seen + 0.01 * 0.5 * kl.sum((1, 2, 3)).mean()

  @jax.jit
  def both(weights: Any) -> tuple[dict[str, Any], tuple[jax.Array, Any]]:
    x, key = flat_frames({"frames": frames}), jax.random.key(0)
    state = train.replace(params=weights)
    found = make_objective(config, stages.build(config)).gradients(state, x, key, adversarial=False)
    return found, jax.value_and_grad(written_out)(weights, x, key)

  found, (loss, slope) = both(train.params)
  assert found["metrics"]["lpips"] > 0.01
  np.testing.assert_allclose(found["metrics"]["loss"], loss, rtol=1e-5)
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), found["params"], slope
  )
