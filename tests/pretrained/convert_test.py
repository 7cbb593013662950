"""A published file becomes a workdir, whole or not at all."""

import json
import pathlib
import types

import chex
import jax
import ml_collections
import numpy as np
import pytest

from configs import glober_digits, lgcvd_bair
from experiments.tools import convert
from tests.helpers import needs
from tests.pretrained import lgcvd_release
from videodiff_jax.lgcvd import Pipeline, stages
from videodiff_jax.pretrained.names.lgcvd import lgcvd_params
from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.workdir import load_state, read_config

STEP = 12


@pytest.fixture(scope="module")
def torch() -> types.ModuleType:
  return needs("torch")


def config(variants: str = "release") -> ml_collections.ConfigDict:
  """The configuration of `lgcvd_release.state`: fragments of 3 grey frames, one given frame."""
  tiny = lgcvd_bair.get_config(variants)
  tiny.data.update(image_size=4, channels=1)
  tiny.fragment.update(num_frames=3, slots=1)
  tiny.model.update(channels=4, multipliers=(1, 2), attention_rates=(2,))
  return tiny


def write(torch: types.ModuleType, file: pathlib.Path, **changes: object) -> pathlib.Path:
  """A checkpoint whose average is twice its weights; `changes` replace its entries."""
  raw = lgcvd_release.state() | lgcvd_release.buffers()
  content = {"step": STEP, "model": raw, "ema": {k: 2 * v for k, v in raw.items()}} | changes
  tensors = {
    key: {k: torch.tensor(v) for k, v in value.items()} if isinstance(value, dict) else value
    for key, value in content.items()
  }
  torch.save(tensors, file)
  return file


def test_the_workdir_is_as_training_leaves_it(torch, tmp_path) -> None:
  source, out = write(torch, tmp_path / "tiny.pt"), tmp_path / "runs" / "tiny"
  converted, files = convert.convert("lgcvd", source, config(), out)
  ((_, sha256),) = files.values()
  assert [path.name for path in out.parent.iterdir()] == ["tiny"]
  assert {path.name for path in out.iterdir()} == {"config.json", "lgcvd"}
  assert read_config(out).to_json() == config().to_json()

  stage = stages.make_stage(config(), "lgcvd")
  state = load_state(config(), out, stage, partitioning.make_mesh())
  expected = lgcvd_params(lgcvd_release.state(), lgcvd_release.shapes())
  chex.assert_trees_all_equal(state.params["params"], expected)
  chex.assert_trees_all_equal(state.ema_params, jax.tree.map(lambda b: 2 * b, state.params))
  assert int(state.step) == STEP
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))

  checkpoints = Checkpoints(out / "lgcvd" / "checkpoints")
  meta = checkpoints.meta(checkpoints.latest_step())
  checkpoints.close()
  assert meta["examples"] == STEP * config().train.lgcvd.batch_size
  assert meta["source"] == {"file": "tiny.pt", "sha256": sha256}
  assert meta["config"] == json.loads(config().to_json())

  said = convert.report(converted, files, out)
  for part in (f"{source.stat().st_size:,} bytes", sha256, "step 12", f"--workdir={out}"):
    assert part in said
  assert converted.tensors == 2 * len(lgcvd_release.state())


def test_the_release_s_pairing_is_sampled(torch, tmp_path) -> None:
  out = tmp_path / "tiny"
  out.mkdir()  # an empty folder may be there
  convert.convert("lgcvd", write(torch, tmp_path / "tiny.pt"), config(), out)
  params = Pipeline.from_workdir(out).params["params"]
  raw = lgcvd_params(lgcvd_release.state(), lgcvd_release.shapes())
  chex.assert_trees_all_equal(params["encoder"], raw["encoder"])
  chex.assert_trees_all_equal(params["unet"], jax.tree.map(lambda b: 2 * b, raw["unet"]))


def less() -> dict[str, np.ndarray]:
  return {k: v for k, v in lgcvd_release.state().items() if k != "encoder_fn.init_conv.bias"}


def more() -> dict[str, np.ndarray]:
  return lgcvd_release.state() | {"denoise_fn.extra.weight": np.zeros(3)}


def wider() -> dict[str, np.ndarray]:
  return lgcvd_release.state() | {"encoder_fn.init_conv.bias": np.zeros(5)}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"ema": less()}, r"conv_in\.bias is missing"),
    ({"model": more()}, r"extra\.weight has no place"),
    ({"model": wider()}, r"init_conv\.bias gives \(5,\), but conv_in\.bias is \(4,\)"),
    ({"ema": "none"}, "its 'ema' is no dict of tensors"),
    ({"ema": lgcvd_release.Trap()}, "more than tensors"),
  ],
)
def test_a_source_that_does_not_fit_leaves_nothing(torch, tmp_path, changes, message) -> None:
  source, out = write(torch, tmp_path / "tiny.pt", **changes), tmp_path / "runs" / "tiny"
  with pytest.raises(ValueError, match=message):
    convert.convert("lgcvd", source, config(), out)
  assert not out.parent.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut", b"\xff" * 40])
def test_other_files_are_told(torch, tmp_path, content: bytes) -> None:
  (tmp_path / "other.pt").write_bytes(content)
  with pytest.raises(ValueError, match="no PyTorch file"):
    convert.convert("lgcvd", tmp_path / "other.pt", config(), tmp_path / "out")
  with pytest.raises(FileNotFoundError, match=r"No file or folder .*absent\.pt"):
    convert.convert("lgcvd", tmp_path / "absent.pt", config(), tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (config(""), r"ups\.1\.1\.NIN_0\.W has no place.*needs their variant :release"),
    (config("release,no_encoder"), r"has no place; .*; and \d+ more"),
    (glober_digits.get_config(), "of system 'glober'"),
    (None, "needs --config"),
  ],
)
def test_another_configuration_is_told(torch, tmp_path, other, message) -> None:
  with pytest.raises(ValueError, match=message) as error:
    convert.convert("lgcvd", write(torch, tmp_path / "tiny.pt"), other, tmp_path / "out")
  assert len(str(error.value)) < 1000
  assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(torch, tmp_path) -> None:
  out = tmp_path / "out"
  out.mkdir()
  (out / "precious").write_text("mine")
  with pytest.raises(FileExistsError, match="is not empty"):
    convert.convert("lgcvd", write(torch, tmp_path / "tiny.pt"), config(), out)
  assert [path.name for path in out.iterdir()] == ["precious"]


def test_stopped_while_it_writes_it_leaves_nothing(torch, tmp_path, monkeypatch) -> None:
  source, out = write(torch, tmp_path / "tiny.pt"), tmp_path / "runs" / "tiny"

  def stopped(*_: object) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(convert, "_save", stopped)
  with pytest.raises(KeyboardInterrupt):
    convert.convert("lgcvd", source, config(), out)
  assert not any(out.parent.iterdir())
