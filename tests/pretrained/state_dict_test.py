import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.models.dit import DiT
from videodiff_jax.pretrained.files.state_dict import convert
from videodiff_jax.pretrained.names.dit import dit_params

RULES = ((r"^layers\.(\d+)", r"layer_\1"),)


def shapes(**leaves: tuple[int, ...]) -> dict:
  tree: dict = {}
  for path, shape in leaves.items():
    layer, leaf = path.split("__")
    tree.setdefault(layer, {})[leaf] = jax.ShapeDtypeStruct(shape, jnp.float32)
  return tree


def test_kernels_are_transposed_and_named():
  rng = np.random.default_rng(0)
  state = {
    "layers.0.weight": rng.standard_normal((5, 4, 3, 3)),
    "layers.1.weight": rng.standard_normal((5, 4, 2, 3, 3)),
    "layers.2.weight": rng.standard_normal((5, 4)),
    "layers.3.weight": rng.standard_normal((5, 4, 1, 1)),
    "layers.4.weight": rng.standard_normal((5, 4, 1)),
    "layers.5.weight": rng.standard_normal(4),
    "layers.6.weight": rng.standard_normal((5, 4)),
    "layers.2.bias": rng.standard_normal(5),
  }
  wanted = shapes(
    layer_0__kernel=(3, 3, 4, 5),
    layer_1__kernel=(2, 3, 3, 4, 5),
    layer_2__kernel=(4, 5),
    layer_3__kernel=(4, 5),
    layer_4__kernel=(4, 5),
    layer_5__scale=(4,),
    layer_6__embedding=(5, 4),
    layer_2__bias=(5,),
  )
  params = convert(state, RULES, wanted)
  assert jax.tree.structure(params) == jax.tree.structure(wanted)
  assert params["layer_0"]["kernel"][1, 2, 3, 4] == np.float32(state["layers.0.weight"][4, 3, 1, 2])
  kernel = state["layers.1.weight"]
  assert params["layer_1"]["kernel"][1, 2, 0, 3, 4] == np.float32(kernel[4, 3, 1, 2, 0])
  for i in (2, 3, 4):
    expected = state[f"layers.{i}.weight"].reshape(5, 4).T
    np.testing.assert_allclose(params[f"layer_{i}"]["kernel"], expected, rtol=1e-6)
  np.testing.assert_allclose(params["layer_6"]["embedding"], state["layers.6.weight"], rtol=1e-6)


def test_everything_that_does_not_fit_is_named_at_once():
  state = {
    "layers.0.weight": np.zeros((5, 4)),
    "layers.7.weight": np.zeros((5, 4)),
    "ema_decay": np.zeros(()),
  }
  wanted = shapes(layer_0__kernel=(4, 6), layer_1__bias=(3,))
  with pytest.raises(ValueError) as error:
    convert(state, RULES, wanted)
  message = str(error.value)
  assert "layers.7.weight has no place" in message and "ema_decay has no place" in message
  assert "layers.0.weight gives (4, 5), but layer_0.kernel is (4, 6)" in message
  assert "layer_1.bias is missing" in message


def test_a_dit_with_other_positions_is_refused():
  model = DiT(input_size=2, in_channels=1, width=8, depth=1, num_heads=1)
  inputs = jnp.zeros((1, 2, 2, 1)), jnp.zeros(1)
  wanted = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  with pytest.raises(ValueError, match="pos_embed is not the fixed sinusoid"):
    dit_params({"pos_embed": np.ones((1, 4, 8), np.float32)}, wanted)
