import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import checkpoints, fill
from videodiff_jax.models.video_encoder import VideoEncoder

SMALL = {
  "latent_size": 4,
  "latent_channels": 2,
  "out_channels": 3,
  "channels": 8,
  "multipliers": (1, 2),
  "blocks": 1,
  "attention_rates": (2,),
  "num_head_channels": 8,
  "norm_groups": 4,
}


@functools.cache
def keyframes(k: int = 4) -> np.ndarray:
  return np.random.default_rng(0).standard_normal((2, k, 4, 4, 2)).astype(np.float32)


@functools.cache
def variables(k: int = 4, **options) -> dict:
  encoder = VideoEncoder(**SMALL, **options)
  return fill(jax.eval_shape(encoder.init, jax.random.key(0), keyframes(k)), scale=0.2)


@functools.cache
def applied(**options):
  return jax.jit(VideoEncoder(**SMALL, **options).apply)


def test_parameters_at_the_papers_size():
  keys = jax.ShapeDtypeStruct((1, 4, 32, 32, 4), jnp.float32)
  shapes = jax.eval_shape(VideoEncoder().init, jax.random.key(0), keys)["params"]
  token = shapes.pop("token")
  assert token.shape == (32, 32, 4)  # e_v; the published count leaves it out
  assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 3) == 28.374


@pytest.mark.parametrize("temporal_kernel", [1, 3])
@pytest.mark.parametrize("head", ["joint", "split_first"])
def test_the_order_of_keyframes_matters(temporal_kernel, head):
  options = {"temporal_kernel": temporal_kernel, "head": head}
  swapped = keyframes()[:, [0, 2, 1, 3]]
  v = applied(**options)(variables(**options), keyframes()).mean
  moved = applied(**options)(variables(**options), swapped).mean
  assert v.shape == (2, 2, 2, 3)
  assert np.abs(moved - v).max() > 1e-3


def test_without_a_temporal_position_2d_convolutions_are_blind_to_order():
  """Why the learned position is there: the test above can fail."""
  blind = jax.tree.map(np.copy, variables(temporal_kernel=1))
  blind["params"]["slots"][1:] = 0
  apply = applied(temporal_kernel=1)
  v = apply(blind, keyframes()).mean
  np.testing.assert_allclose(apply(blind, keyframes()[:, ::-1]).mean, v, atol=1e-5)


def test_every_keyframe_reaches_the_feature():
  v = applied()(variables(), keyframes()).mean
  for k in range(4):
    nudged = keyframes().copy()
    nudged[0, k] += 1.0
    moved = np.abs(applied()(variables(), nudged).mean - v)
    assert moved[0].max() > 1e-4 and moved[1].max() < 1e-5


def test_the_heads_share_their_parameters_but_not_their_statistics():
  joint = applied()(variables(), keyframes()).mean
  split = applied(head="split_first")(variables(), keyframes()).mean
  assert np.abs(joint - split).max() > 1e-3


def test_logvar_bias_shifts_the_log_variance_alone():
  plain = applied()(variables(), keyframes())
  sharp = applied(logvar_bias=-4.0)(variables(), keyframes())
  np.testing.assert_allclose(sharp.mean, plain.mean, atol=1e-6)
  np.testing.assert_allclose(sharp.logvar, plain.logvar - 4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_any_number_of_keyframes(k):
  assert applied()(variables(), keyframes(k)).mean.shape == (2, 2, 2, 3)


@pytest.mark.parametrize("remat, count", [("none", 0), ("blocks", 4)])
def test_remat_wraps_every_residual_and_attention_block(remat, count):
  encoder = VideoEncoder(**SMALL, remat=remat)
  jaxpr = jax.make_jaxpr(encoder.apply)(variables(), keyframes())
  assert checkpoints(jaxpr) == count


def test_bfloat16_returns_a_float32_gaussian():
  posterior = applied(dtype=jnp.bfloat16)(variables(), keyframes())
  assert posterior.mean.dtype == posterior.logvar.dtype == jnp.float32
  exact = applied()(variables(), keyframes()).mean
  assert np.abs(posterior.mean - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("shape", [(2, 4, 8, 8, 2), (2, 4, 4, 4, 3), (8, 4, 4, 2)])
def test_latents_that_do_not_fit_are_refused(shape):
  with pytest.raises(ValueError, match=r"keyframe latents \(b, k, 4, 4, 2\)"):
    applied()(variables(), np.zeros(shape))


def test_an_unknown_head_is_refused():
  with pytest.raises(ValueError, match="head must be 'joint' or 'split_first', not 'late'"):
    applied(head="late")(variables(), keyframes())
