"""Networks' weights: a file becomes a folder of ours and the same file again, or nothing at all."""

import json
import pathlib
from collections.abc import Callable

import chex
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs import glober_digits, lgcvd_bair
from experiments.tools import convert
from tests.helpers import needs
from tests.pretrained import sd_names
from videodiff_jax.pretrained import architectures, clip_text, sources

UNET = {"channels": 8, "multipliers": (1, 2), "blocks": 1}
KL_VAE = {"channels": 8, "multipliers": (1, 2), "blocks": 1}


def config() -> ml_collections.ConfigDict:
  tiny = glober_digits.get_config("smoke")
  tiny.data.channels = 3
  tiny.model.kl_vae.update(**KL_VAE, z_channels=4, embed_dim=4, mid_attention=True)
  tiny.model.unet.update(**UNET, attention_rates=(2,), context_dim=6)
  tiny.model.dit.update(width=16, depth=2)
  return tiny


TEXT = {"vocabulary": 20, "length": 9, "width": 16, "depth": 2}


def full(dtype: type = np.float32) -> sd_names.State:
  """A small CompVis checkpoint of both networks, the text's encoder and the schedule."""
  unet = sd_names.unet(**UNET, rates=(2,), context=6)
  return {
    **sd_names.filled(unet, "model.diffusion_model.", dtype=dtype),
    **sd_names.filled(sd_names.kl_vae(**KL_VAE), "first_stage_model.", seed=1, dtype=dtype),
    **text("cond_stage_model.transformer."),
    **sd_names.schedule(),
    "model_ema.num_updates": np.array(7, np.int32),
  }


def text(prefix: str = "") -> sd_names.State:
  state = sd_names.filled(sd_names.clip_text(**TEXT), f"{prefix}text_model.")
  return state | {f"{prefix}text_model.embeddings.position_ids": np.arange(9)[None]}


def save_parts(
  folder: pathlib.Path, state: sd_names.State, count: int = 4, variant: str = ""
) -> None:
  """As transformers and diffusers save what is large: parts and an index."""
  folder.mkdir(exist_ok=True)
  weight_map = {}
  for i in range(count):
    name = f"model{variant}-{i + 1:05d}-of-{count:05d}.safetensors"
    part = dict(list(state.items())[i::count])
    save_file(part, folder / name)
    weight_map |= dict.fromkeys(part, name)
  index = folder / f"model.safetensors.index{variant}.json"
  index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def assert_same(found: sd_names.State, expected: sd_names.State) -> None:
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
    assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.dtype(jnp.bfloat16)])
def test_round_trip_of_a_full_checkpoint(tmp_path, dtype) -> None:
  source, out = tmp_path / "sd.safetensors", tmp_path / "runs" / "sd"
  save_file(full(dtype), source)
  converted, files = convert.convert("sd-v1", source, config(), out)
  assert {p.name for p in out.iterdir()} == {
    "manifest.json", "unet.safetensors", "kl_vae.safetensors", "text_encoder.safetensors",
    "config.json", "aside.safetensors"
  }  # fmt: skip
  files_written = convert.export(out, tmp_path / "back.safetensors")
  assert files_written == [tmp_path / "back.safetensors"]
  assert_same(load_file(tmp_path / "back.safetensors"), full(dtype))

  said = convert.report(converted, files, out)
  for part in (
    f"sd.safetensors: {source.stat().st_size:,} bytes, sha256 ",
    f"{converted.tensors} tensors",
    "kept aside, no parameters of a network: ",
    f"--config.init.unet={out}",
  ):
    assert part in said
  assert converted.tensors == len(full()) - 6
  assert converted.parameters["unet"] == sum(
    value.size for name, value in full().items() if name.startswith("model.")
  )


def test_what_is_written_fits_the_network(tmp_path) -> None:
  source, out = tmp_path / "sd.safetensors", tmp_path / "sd"
  save_file(full(), source)
  convert.convert("sd-v1", source, config(), out)
  network = architectures.PUBLISHED["sd-v1"]["unet"].clone(
    **UNET, attention_rates=(2,), context_dim=6
  )
  fit = sources.fit(sources.find("unet", out), architectures.shapes(network))
  kernel = full()["model.diffusion_model.input_blocks.0.0.weight"]
  np.testing.assert_array_equal(
    fit.placed["down_0_conv.kernel"].tensor.load(), kernel.transpose(2, 3, 1, 0)
  )
  assert len(fit.placed) == sum(name.startswith("model.") for name in full())


def test_clip_s_text_tower(tmp_path) -> None:
  """Alone, as transformers 5 saves it, of a whole CLIP, or of Stable Diffusion: the same tower.

  Also from the folder made.
  """
  projection = {"text_projection.weight": np.zeros((4, 16), np.float32)}
  whole = {"vision_model.x": np.zeros(2), "visual_projection.weight": np.zeros(2)}
  files = {
    "alone": text(),
    "transformers_5": {key.removeprefix("text_model."): array for key, array in text().items()},
    "projected": text() | projection,
    "whole": text() | projection | whole | {"logit_scale": np.zeros(())},
    "sd": full(),
    "old_merge": {key.replace(".text_model.", "."): array for key, array in full().items()},
  }
  towers = []
  for name, state in files.items():
    (tmp_path / name).mkdir()
    save_file(state, tmp_path / name / "model.safetensors")
    settings = '{"text_config": {"hidden_act": "gelu"}}'
    (tmp_path / name / "config.json").write_text(settings, "utf-8-sig")
    out = tmp_path / f"out_{name}"
    said = convert.report(*convert.convert("clip", tmp_path / name, None, out), out)
    assert ("not of this kind, left alone: " in said) == (name in ("sd", "old_merge"))
    assert ("beside the CLIP text tower, left alone: " in said) == (name in ("projected", "whole"))
    towers += [clip_text.load_text(path) for path in (tmp_path / name, out)]
    back = tmp_path / f"{name}.safetensors"
    convert.export(out, back)
    if name == "alone":
      assert_same(load_file(back), state)
  model, params, _ = towers[0]
  assert (model.width, model.depth, model.activation) == (16, 2, "gelu")
  for other, others, _ in towers[1:]:
    assert other == model
    chex.assert_trees_all_equal(others, params)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ("[1]", "a JSON object"),
    ("{broken", "not JSON"),
    ("\xff", "not UTF-8"),
    ('{"hidden_act": 7}', "hidden_act is 7"),
    ('{"hidden_act": ["gelu"]}', "hidden_act is "),
    ('{"hidden_act": "relu"}', "hidden_act is 'relu'; known are quick_gelu and gelu"),
    ('{"text_config": 3}', "hidden_act is 3"),
  ],
)
def test_settings_beside_a_tower_that_are_none_are_told(tmp_path, settings, message) -> None:
  save_file(text(), tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text(settings, "latin-1")
  with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
    clip_text.load_text(tmp_path)


@pytest.mark.parametrize("variants", [[""], [".fp16"], ["", ".fp16"]])
def test_round_trip_of_parts(tmp_path, variants) -> None:
  """A variant's index is taken where there is no other."""
  states = [sd_names.filled(sd_names.kl_vae(**KL_VAE), seed=seed) for seed in range(2)]
  for variant, state in zip(variants, states):
    save_parts(tmp_path / "parts", state, variant=variant)
  state = states[0]
  _, files = convert.convert("kl-f4", tmp_path / "parts", config(), tmp_path / "out")
  assert len(files) == 4
  convert.export(tmp_path / "out", tmp_path / "back.safetensors")
  assert_same(load_file(tmp_path / "back.safetensors"), state)


def test_round_trip_of_a_dit(tmp_path) -> None:
  """In a folder by itself, as its config describes it: patches of 1, text, no classes."""
  state = sd_names.filled(sd_names.dit(width=16, depth=2, patch=1, channels=8, side=8, classes=10))
  state["c_embedder.weight"], state["c_embedder.bias"] = np.ones((16, 8)), np.ones(16)
  state["final_layer.linear.weight"] = np.ones((8, 16), np.float32)
  state["final_layer.linear.bias"] = np.ones(8, np.float32)
  (tmp_path / "dit").mkdir()
  save_file(state, tmp_path / "dit" / "any.safetensors")
  of_single_cells = config()
  of_single_cells.model.dit.patch_size = 1
  of_single_cells.model.video_encoder.out_channels = 8
  convert.convert("dit", tmp_path / "dit", of_single_cells, tmp_path / "out")
  convert.export(tmp_path / "out", tmp_path / "back.safetensors")
  assert_same(load_file(tmp_path / "back.safetensors"), state)


def test_round_trip_of_a_pipeline_s_folder(tmp_path) -> None:
  """unet/ and vae/ as diffusers saves them, random."""
  torch, diffusers = needs("torch"), needs("diffusers")
  torch.manual_seed(0)
  blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
  diffusers.UNet2DConditionModel(
    **blocks, cross_attention_dim=6, attention_head_dim=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
  ).save_pretrained(tmp_path / "sd" / "unet")  # fmt: skip
  diffusers.AutoencoderKL(
    **blocks, down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
  ).save_pretrained(tmp_path / "sd" / "vae")  # fmt: skip
  converted, files = convert.convert("sd-v1", tmp_path / "sd", config(), tmp_path / "out")
  assert converted.tensors == len(full()) - 6 - (len(text()) - 1)
  name = "diffusion_pytorch_model.safetensors"
  assert set(files) == {f"sd/unet/{name}", f"sd/vae/{name}"}
  written = convert.export(tmp_path / "out", tmp_path / "back")
  assert {p.relative_to(tmp_path / "back").as_posix() for p in written} == {
    f"unet/{name}", f"vae/{name}"
  }  # fmt: skip
  for part in ("unet", "vae"):
    files = [load_file(tmp_path / folder / part / name) for folder in ("sd", "back")]
    assert_same(*files)


def test_torch_s_files(tmp_path) -> None:
  """Zip and the older kind, half precision, inside a trainer's checkpoint."""
  torch = needs("torch")
  state = {k: torch.tensor(v).bfloat16() for k, v in full().items()}
  content = {"state_dict": state, "epoch": 3}
  for zipped in (True, False):
    source, out = tmp_path / f"{zipped}.ckpt", tmp_path / f"out_{zipped}"
    torch.save(content, source, _use_new_zipfile_serialization=zipped)
    convert.convert("sd-v1", source, config(), out)
    convert.export(out, tmp_path / f"{zipped}.safetensors")
    expected = {k: v.view(torch.int16).numpy().view(jnp.bfloat16) for k, v in state.items()}
    assert_same(load_file(tmp_path / f"{zipped}.safetensors"), expected)


# ---- wrong, truncated and malicious files


def refused(
  tmp_path: pathlib.Path, source: pathlib.Path, message: str, kind: str = "sd-v1", **options: object
) -> None:
  """One clear error, and nothing is written."""
  out = tmp_path / "runs" / "out"
  before = {path.name for path in tmp_path.iterdir()}
  with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
    convert.convert(kind, source, config(), out, **options)
  assert "\n" not in str(error.value) and len(str(error.value)) < 1200
  assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
  ("cut", "message"),
  [
    (lambda data: data[:-3], "damaged or cut short: .*not fully covered"),
    (lambda data: data[:2000], "damaged or cut short"),
    (lambda data: data[:5], "damaged, or neither a safetensors nor a PyTorch file"),
    (lambda data: b"", "damaged, or neither"),
    (lambda data: b"<!DOCTYPE html>" + data, "damaged, or neither"),
    (lambda data: data[:8] + b"{" + data[8:-1], "damaged or cut short"),
  ],
)
def test_truncated_safetensors(tmp_path, cut: Callable[[bytes], bytes], message: str) -> None:
  source = tmp_path / "sd.safetensors"
  save_file(full(), source)
  source.write_bytes(cut(source.read_bytes()))
  refused(tmp_path, source, message)


class Trap:
  """Leaves a file where it is unpickled."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self) -> tuple:
    return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("sd.ckpt", "holds more than tensors and numbers"),
    ("sd.bin", "holds more than tensors and numbers"),
    ("sd.safetensors", "damaged, or neither a safetensors nor a PyTorch file"),
  ],
)
def test_a_pickle_that_runs_code(tmp_path, zipped: bool, name: str, message: str) -> None:
  """Whatever it calls itself."""
  torch = needs("torch")
  state = {k: torch.tensor(v) for k, v in full().items()}
  content = {"state_dict": state, "callbacks": Trap(tmp_path / "trapped")}
  torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
  refused(tmp_path, tmp_path / name, message)
  assert not (tmp_path / "trapped").exists()


def test_the_trap_is_one(tmp_path) -> None:
  torch = needs("torch")
  torch.save(Trap(tmp_path / "trapped"), tmp_path / "sd.ckpt")
  torch.load(tmp_path / "sd.ckpt", weights_only=False)
  assert (tmp_path / "trapped").exists()


@pytest.mark.parametrize("content", [{"state_dict": {"a": 1.0}}, {"a": [1]}, {}, 3])
def test_a_pickle_of_something_else(tmp_path, content: object) -> None:
  torch = needs("torch")
  torch.save(content, tmp_path / "sd.ckpt")
  refused(tmp_path, tmp_path / "sd.ckpt", "holds no dict of tensors")


def test_a_cut_torch_file(tmp_path) -> None:
  torch = needs("torch")
  source = tmp_path / "sd.ckpt"
  torch.save({k: torch.tensor(v) for k, v in full().items()}, source)
  source.write_bytes(source.read_bytes()[:-100])
  refused(tmp_path, source, "damaged, or no PyTorch file")


def test_wrong_shapes(tmp_path) -> None:
  state = full()
  name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
  state[name] = np.zeros((9, 8, 3, 3), np.float32)
  save_file(state, tmp_path / "sd.safetensors")
  refused(tmp_path, tmp_path / "sd.safetensors", r"conv_in\.kernel is \(3, 3, 8, 8\)")


@pytest.mark.parametrize(("kind", "title"), [("dit", "DiT"), ("sd-v1", "UNet")])
def test_wrong_kind(tmp_path, kind: str, title: str) -> None:
  save_file(sd_names.filled(sd_names.kl_vae(**KL_VAE)), tmp_path / "sd.safetensors")
  refused(tmp_path, tmp_path / "sd.safetensors", f"holds no {title} in a known naming", kind)


def test_half_the_parts_are_missing(tmp_path) -> None:
  save_parts(tmp_path / "parts", full())
  for number in (2, 4):
    (tmp_path / "parts" / f"model-{number:05d}-of-00004.safetensors").unlink()
  refused(tmp_path, tmp_path / "parts", r"2 of the 4 parts .* are missing: model-00002-of-00004")


@pytest.mark.parametrize(
  ("weight_map", "message"),
  [
    ({"a": "../../secret.safetensors"}, "names '../../secret.safetensors', which is no file"),
    ({"a": "/etc/passwd"}, "which is no file beside it"),
    ({"extra": "model-00001-of-00004.safetensors"}, "do not agree"),
    ([1], "is damaged, or no index"),
  ],
)
def test_an_index_that_lies(tmp_path, weight_map: object, message: str) -> None:
  save_parts(tmp_path / "parts", full())
  index = tmp_path / "parts" / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  refused(tmp_path, tmp_path / "parts", message)


def test_missing_and_left_over_tensors_are_allowed_by_name_alone(tmp_path) -> None:
  state = full() | {"model_ema.diffusion_modelout2bias": np.zeros(3, np.float32)}
  del state["first_stage_model.quant_conv.bias"]
  source = tmp_path / "sd.safetensors"
  save_file(state, source)
  refused(tmp_path, source, r"to_moments\.bias is missing")
  refused(tmp_path, source, r"model_ema\.diffusion_modelout2bias", allow=["to_moments.bias"])
  allow = ["to_moments.bias", "model_ema.*"]
  converted, files = convert.convert("sd-v1", source, config(), tmp_path / "out", allow)
  said = convert.report(converted, files, tmp_path / "out")
  assert "allowed: to_moments.bias is missing" in said
  assert "allowed: model_ema.diffusion_modelout2bias is left over" in said
  convert.export(tmp_path / "out", tmp_path / "back.safetensors")
  assert load_file(tmp_path / "back.safetensors").keys() == state.keys() - {
    "model_ema.diffusion_modelout2bias"
  }


def test_folders_without_weights_are_told(tmp_path) -> None:
  (tmp_path / "empty").mkdir()
  refused(tmp_path, tmp_path / "empty", "holds no weights: no ")
  refused(tmp_path, tmp_path / "absent", "No file or folder")
  for name in ("a", "b"):
    save_file({"x": np.zeros(1)}, tmp_path / "empty" / f"{name}.safetensors")
  refused(tmp_path, tmp_path / "empty", r"several weight files \(a.safetensors, b.safetensors\)")


def test_export_refuses_what_is_none_of_ours(tmp_path) -> None:
  source, out = tmp_path / "sd.safetensors", tmp_path / "out"
  save_file(full(), source)
  with pytest.raises(ValueError, match=r"holds no converted weights"):
    convert.export(tmp_path, tmp_path / "back")
  convert.convert("sd-v1", source, config(), out)
  with pytest.raises(FileExistsError, match="is not empty"):
    convert.export(out, source)
  data = (out / "unet.safetensors").read_bytes()
  (out / "unet.safetensors").write_bytes(data[:-1])
  with pytest.raises(ValueError, match="damaged or cut short"):
    convert.export(out, tmp_path / "back")
  (out / "manifest.json").write_text("{}")
  with pytest.raises(ValueError, match="is damaged"):
    convert.export(out, tmp_path / "back")
  assert not (tmp_path / "back").exists()


def test_stopped_while_it_writes_it_leaves_nothing(tmp_path, monkeypatch) -> None:
  save_file(full(), tmp_path / "sd.safetensors")

  def stopped(*_: object) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(convert.tensor_files, "write", stopped)
  with pytest.raises(KeyboardInterrupt):
    convert.convert("sd-v1", tmp_path / "sd.safetensors", config(), tmp_path / "runs" / "out")
  assert not any((tmp_path / "runs").iterdir())


def test_a_configuration_of_the_other_system_is_told(tmp_path) -> None:
  save_file(full(), tmp_path / "sd.safetensors")
  with pytest.raises(ValueError, match="is for GLOBER"):
    convert.convert("sd-v1", tmp_path / "sd.safetensors", lgcvd_bair.get_config(), tmp_path / "out")
