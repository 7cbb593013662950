import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import needs
from tests.pretrained.lgcvd_release import SMALL, Trap, buffers, shapes, state
from videodiff_jax.models.lgc_unet import LGCUNet, StackedAttention
from videodiff_jax.pretrained.names import lgcvd


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
