import jax
import jax.numpy as jnp
import pytest

from tests.weights import require
from videodiff_jax.metrics.lpips import LPIPS
from videodiff_jax.pretrained import lpips


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_weights_have_the_networks_names_and_shapes(net: str):
  require(lpips.WEIGHTS[net])
  picture = jnp.zeros((1, 64, 64, 3))
  variables = jax.eval_shape(LPIPS(net).init, jax.random.key(0), picture, picture)
  loaded = jax.tree.map(lambda x: x.shape, lpips.load(net))
  assert loaded == jax.tree.map(lambda x: x.shape, variables["params"])


def test_unknown_network_lists_the_choices():
  with pytest.raises(ValueError, match=r"'squeeze'.*alex, vgg"):
    lpips.load("squeeze")
