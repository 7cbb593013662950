import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.helpers import assert_remat_changes_nothing, checkpoints, fill
from videodiff_jax.models.kl_vae import KLVAE

KEY = jax.random.key(0)


def shapes_of(vae: KLVAE, side: int) -> dict:
  return jax.eval_shape(vae.init, KEY, jnp.zeros((1, side, side, vae.in_channels)), KEY)


def test_parameters_at_the_papers_size():
  shapes = shapes_of(KLVAE(), 64)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 83_653_863


@pytest.mark.parametrize("multipliers, factor", [((1, 2), 2), ((1, 1, 2), 4), ((1, 1, 1, 2), 8)])
def test_codes_are_f_times_smaller(multipliers, factor):
  vae = KLVAE(
    in_channels=1, channels=4, multipliers=multipliers, blocks=1, z_channels=3, embed_dim=2
  )
  assert vae.factor == factor
  x = jnp.zeros((2, 16, 8, 1))
  code = jax.eval_shape(lambda: vae.init_with_output(KEY, x, KEY)[0])
  reconstruction, posterior = code
  assert reconstruction.shape == (2, 16, 8, 1)
  assert posterior.mean.shape == posterior.logvar.shape == (2, 16 // factor, 8 // factor, 2)


def test_it_encodes_samples_and_decodes():
  vae = KLVAE(in_channels=1, channels=4, multipliers=(1, 2), blocks=1, z_channels=3, embed_dim=2)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)).astype(np.float32)
  variables = fill(shapes_of(vae, 8), scale=0.3)
  reconstruction, posterior = jax.jit(vae.apply)(variables, x, KEY)
  decode = jax.jit(lambda z: vae.apply(variables, z, method="decode"))
  np.testing.assert_allclose(reconstruction, decode(posterior.sample(KEY)), atol=1e-5)
  assert np.abs(reconstruction - decode(posterior.mean)).max() > 1e-3
  assert np.abs(decode(2 * posterior.mean) - decode(posterior.mean)).max() > 1e-3


def test_attention_stands_where_it_is_asked_for():
  def attentions(**options) -> set[str]:
    vae = KLVAE(channels=4, multipliers=(1, 2), blocks=1, **options)
    paths = traverse_util.flatten_dict(shapes_of(vae, 8)["params"])
    return {f"{path[0]}.{path[1]}" for path in paths if "attention" in path[1]}

  assert attentions(mid_attention=False) == set()
  assert attentions() == {"encoder.middle_attention", "decoder.middle_attention"}
  assert attentions(mid_attention=False, attention_rates=(2,)) == {
    "encoder.level_1_attention_0",
    "decoder.level_1_attention_0",
    "decoder.level_1_attention_1",
  }


def test_nothing_starts_at_zero():
  """Zero-initialised blocks keep very small VAEs from learning."""
  vae = KLVAE(in_channels=1, channels=4, multipliers=(1,), blocks=1)
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  params = jax.jit(vae.init)(key, jnp.zeros((1, 4, 4, 1)), key)
  kernels = traverse_util.flatten_dict(params, sep=".")
  assert all(np.abs(v).max() > 0 for k, v in kernels.items() if k.endswith("kernel"))


@pytest.mark.parametrize("shape", [(1, 6, 8, 3), (1, 8, 8, 1)])
def test_frames_that_do_not_fit_are_refused(shape):
  vae = KLVAE(channels=4, multipliers=(1, 1, 1), blocks=1)
  with pytest.raises(ValueError, match=r"\(n, h, w, 3\) with sides divisible by 4"):
    jax.eval_shape(vae.init, KEY, jnp.zeros(shape), KEY)


@pytest.mark.parametrize("remat, count", [("none", 0), ("blocks", 12)])
def test_remat_wraps_every_residual_and_attention_block(remat, count):
  vae = KLVAE(channels=4, multipliers=(1, 2), blocks=1, remat=remat)
  x = jnp.zeros((1, 8, 8, 3))
  jaxpr = jax.make_jaxpr(vae.apply)(shapes_of(vae, 8), x, KEY)
  assert checkpoints(jaxpr) == count


def test_remat_changes_neither_values_nor_gradients():
  vae = KLVAE(channels=4, multipliers=(1,), blocks=1, norm_groups=2)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)
  assert_remat_changes_nothing(vae, fill(shapes_of(vae, 4)), x, KEY)
