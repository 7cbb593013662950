import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import assert_remat_changes_nothing, checkpoints, fill
from videodiff_jax.models.discriminator import PairDiscriminator

SMALL = {"image_size": 8, "channels": 4, "multipliers": (1, 2), "attention_rates": (2,)}
MODEL = PairDiscriminator(**SMALL, num_head_channels=4, norm_groups=2)
PAIR = np.random.default_rng(0).standard_normal((3, 2, 8, 8, 3)).astype(np.float32)
PARAMS = fill(jax.eval_shape(MODEL.init, jax.random.key(0), PAIR), scale=0.3)
apply = jax.jit(MODEL.apply)


def parameters(model: PairDiscriminator) -> int:
  side = model.image_size
  pair = jax.ShapeDtypeStruct((1, 2, side, side, model.in_channels), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), pair)
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameters_on_latents_at_the_papers_size():
  latents = PairDiscriminator(
    image_size=32,
    in_channels=4,
    channels=256,
    multipliers=(1, 1, 2, 2, 2),
    attention_rates=(2, 4, 8, 16),
  )
  assert round(parameters(latents) / 1e6, 3) == 40.170


def test_attention_stands_at_16x16_by_default():
  pair = jax.ShapeDtypeStruct((1, 2, 256, 256, 3), jnp.float32)
  params = jax.eval_shape(PairDiscriminator(256).init, jax.random.key(0), pair)["params"]
  assert [name for name in params if "joint" in name] == ["down_9_joint"]
  assert params["down_9_joint"]["qkv"]["kernel"].shape == (256, 768)


def test_a_logit_a_pair_by_itself():
  logits = apply(PARAMS, PAIR)
  assert logits.shape == (3,) and logits.dtype == jnp.float32
  np.testing.assert_allclose(apply(PARAMS, PAIR[1:2]), logits[1:2], atol=1e-5)


def test_the_order_of_the_pair_matters():
  assert np.abs(apply(PARAMS, PAIR[:, ::-1]) - apply(PARAMS, PAIR)).min() > 1e-4


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_position_embeddings_start_at_their_scale(scale):
  model = PairDiscriminator(16, 3, 4, (1,), attention_rates=(), position_scale=scale)
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
  positions = jax.jit(model.init)(key, jnp.zeros((1, 2, 16, 16, 3)))["params"]["positions"]
  assert positions.shape == (2, 16, 16, 3)
  np.testing.assert_allclose(positions.std(), scale, rtol=0.1)


def test_pairs_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match=r"pairs \(b, 2, 8, 8, 3\)"):
    apply(PARAMS, np.zeros((3, 3, 8, 8, 3)))


def test_remat_wraps_every_residual_and_attention_block() -> None:
  for remat, count in (("none", 0), ("blocks", 3)):
    jaxpr = jax.make_jaxpr(MODEL.clone(remat=remat).apply)(PARAMS, PAIR)
    assert checkpoints(jaxpr) == count
  assert_remat_changes_nothing(MODEL, PARAMS, PAIR)
