import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import needs
from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder, StackedAttention
from videodiff_jax.pretrained.names import lgcvd

SMALL = {"channels": 4, "multipliers": (1, 2), "attention_rates": (2,), "head_channels": None}
PREFIX = {"unet": "denoise_fn", "encoder": "encoder_fn"}


@functools.cache
def shapes() -> dict:
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  unet = LGCUNet(**SMALL, decoder_attention="mirrored")
  values = f((1, 4, 4, 3)), f((1,)), f((1, 4, 4, 2)), f((1, 2, 2, 8))
  return {
    "unet": jax.eval_shape(unet.init, jax.random.key(0), *values)["params"],
    "encoder": jax.eval_shape(SequenceEncoder(**SMALL).init, jax.random.key(0), values[0])[
      "params"
    ],
  }


def block(name: str, inside: int, outside: int, embedding: int = 0) -> dict[str, tuple]:
  """Tensors of a residual block of the release."""
  of = {
    "GroupNorm_0.weight": (inside,),
    "Conv_0.weight": (outside, inside, 3, 3),
    "GroupNorm_1.weight": (outside,),
    "Conv_1.weight": (outside, outside, 3, 3),
  }
  if embedding:
    of["Dense_0.weight"] = (outside, embedding)
  if inside != outside:
    of["Conv_2.weight"] = (outside, inside, 3, 3)
  return {f"{name}.{key}": shape for key, shape in of.items()}


def attention(name: str, width: int) -> dict[str, tuple]:
  kernels = {f"{name}.NIN_{i}.W": (width, width) for i in range(4)}
  return {f"{name}.GroupNorm_0.weight": (width,), **kernels}


def released(embedding: int, frames: int) -> dict[str, tuple]:
  """Names and shapes, biases aside, of a network of two levels (4, 8) that attends at rate 2."""
  return {
    "init_conv.weight": (4, frames, 3, 3),
    **block("downs.0.0", 4, 4, embedding),
    **block("downs.0.2", 4, 4, embedding),
    "downs.0.4.weight": (4, 4, 3, 3),
    **block("downs.1.0", 4, 8, embedding),
    **attention("downs.1.1", 8),
    **block("downs.1.2", 8, 8, embedding),
    **attention("downs.1.3", 8),
    **block("midblock1", 8, 8, embedding),
    **attention("midblock2", 8),
    **block("midblock3", 8, 8, embedding),
  }


@functools.cache
def state() -> dict[str, np.ndarray]:
  """One copy of the weights as the release stores them, from its names alone."""
  unet = released(16, 5) | {
    "time_mlp.1.weight": (16, 4),
    "time_mlp.3.weight": (16, 16),
    **attention("midblock4", 8),
    **block("ups.0.0", 16, 4, 16),
    **block("ups.0.2", 4, 4, 16),
    **block("ups.0.4", 4, 4, 16),
    "ups.0.5.weight": (4, 4, 3, 3),
    **block("ups.1.0", 8, 4, 16),
    **attention("ups.1.1", 4),
    **block("ups.1.2", 4, 4, 16),
    **attention("ups.1.3", 4),
    **block("ups.1.4", 4, 4, 16),
    "finial_conv.weight": (3, 4, 3, 3),
  }
  rng = np.random.default_rng(0)
  tensors = {}
  for name, shape in {
    **{f"denoise_fn.{k}": v for k, v in unet.items()},
    **{f"encoder_fn.{k}": v for k, v in released(0, 3).items()},
  }.items():
    tensors[name] = rng.standard_normal(shape).astype(np.float32)
    stem, _, last = name.rpartition(".")
    width = shape[1] if last == "W" or name.endswith("ups.0.5.weight") else shape[0]
    bias = rng.standard_normal(width).astype(np.float32)
    tensors[f"{stem}.{'b' if last == 'W' else 'bias'}"] = bias
  return tensors


def buffers() -> dict[str, np.ndarray]:
  return {name: np.ones(10, np.float32) for name in lgcvd.BUFFERS}


def test_every_tensor_finds_its_place():
  params = lgcvd.lgcvd_params(state() | buffers(), shapes())
  assert jax.tree.structure(params) == jax.tree.structure(shapes())
  # NIN's W and a transposed convolution have their input axis first.
  up = state()["denoise_fn.ups.0.5.weight"]
  np.testing.assert_array_equal(params["unet"]["up_0_conv"]["kernel"][1, 2], up[:, :, 1, 2])
  nin = state()["encoder_fn.midblock2.NIN_1.W"]
  np.testing.assert_array_equal(params["encoder"]["middle_attention"]["key"]["kernel"], nin)
  conv = state()["denoise_fn.downs.0.4.weight"]
  np.testing.assert_array_equal(params["unet"]["down_0_conv"]["kernel"][1, 2], conv[:, :, 1, 2].T)


def test_missing_and_unexpected_tensors_are_errors():
  less = {k: v for k, v in state().items() if k != "encoder_fn.init_conv.bias"}
  with pytest.raises(ValueError, match=r"conv_in\.bias is missing"):
    lgcvd.lgcvd_params(less, shapes())
  more = state() | {"denoise_fn.extra.weight": np.zeros(3)}
  with pytest.raises(ValueError, match=r"extra\.weight has no place"):
    lgcvd.lgcvd_params(more, shapes())
  with pytest.raises(ValueError, match=r"not null_feature"):
    lgcvd.lgcvd_params(state() | {"null_feature": np.zeros(3)}, shapes())


def test_a_network_of_matched_levels_refuses_the_release_s_weights():
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  values = f((1, 4, 4, 3)), f((1,)), f((1, 4, 4, 2)), f((1, 2, 2, 8))
  matched = jax.eval_shape(LGCUNet(**SMALL).init, jax.random.key(0), *values)["params"]
  with pytest.raises(ValueError, match=r"ups\.1\.1\.NIN_0\.W has no place"):
    lgcvd.lgcvd_params(state(), shapes() | {"unet": matched})


def test_a_block_alone():
  x = jnp.zeros((1, 2, 2, 8))
  wanted = jax.eval_shape(StackedAttention(None).init, jax.random.key(0), x)["params"]
  prefix = "encoder_fn.midblock2."
  one = {k.removeprefix(prefix): v for k, v in state().items() if k.startswith(prefix)}
  params = lgcvd.block_params(one, wanted)
  assert jax.tree.structure(params) == jax.tree.structure(wanted)


def test_both_copies_are_read(tmp_path):
  torch = needs("torch")
  raw = {name: torch.tensor(value) for name, value in (state() | buffers()).items()}
  ema = {name: 2 * value for name, value in raw.items()}
  content = {"step": 12, "model": raw, "ema": ema, "scaler": {"scale": 65536.0}}
  torch.save(content, tmp_path / "tiny.pt")
  checkpoint = lgcvd.read_checkpoint(tmp_path / "tiny.pt")
  assert checkpoint.step == 12
  name = "encoder_fn.init_conv.weight"
  np.testing.assert_array_equal(checkpoint.raw[name], state()[name])
  np.testing.assert_array_equal(checkpoint.ema[name], 2 * state()[name])


class Trap:
  def __reduce__(self):
    return print, ("run",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
  torch = needs("torch")
  torch.save({"step": 1, "model": Trap(), "ema": {}}, tmp_path / "trap.pt")
  with pytest.raises(ValueError, match="more than tensors"):
    lgcvd.read_checkpoint(tmp_path / "trap.pt")
  (tmp_path / "bare.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
  with pytest.raises(ValueError, match="more than tensors"):
    lgcvd.read_checkpoint(tmp_path / "bare.pt")
  assert "run" not in capsys.readouterr().out


def test_another_layout_is_named(tmp_path):
  torch = needs("torch")
  torch.save({"state_dict": {}}, tmp_path / "other.pt")
  with pytest.raises(ValueError, match="lacks ema, model, step"):
    lgcvd.read_checkpoint(tmp_path / "other.pt")
