"""Embeddings of captions and where they are kept; encoders by name."""

import json
import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy

from tests import damage
from tests.helpers import needs
from tests.inputs.tiny_text import tiny_encoder
from tests.weights import require
from videodiff_jax.models.text_encoder import CLIPText
from videodiff_jax.pretrained import clip_text
from videodiff_jax.text import embeddings, tokenizer

CAPTIONS = ["a dog", "a cat", "a dog", ""]


def test_prompts_are_encoded_alike_in_any_number():
  encoder = tiny_encoder()
  many = encoder([f"{i}" for i in range(70)])
  assert many.shape == (70, 5, 8) and many.dtype == np.float32
  np.testing.assert_allclose(many[65:66], encoder(["65"]), atol=1e-6)
  assert np.abs(many[1] - many[2]).max() > 1e-3


def test_captions_are_encoded_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
  encoder = tiny_encoder()
  first = embeddings.embed(encoder, CAPTIONS, tmp_path / "text")
  assert first.tokens.shape == (3, 5, 8) and first.rows.tolist() == [0, 1, 0, 2]
  np.testing.assert_allclose(first.of(np.array([2, 3])), encoder(["a dog", ""]), atol=1e-6)
  files = sorted((tmp_path / "text").iterdir())
  assert {file.suffix for file in files} == {".npy", ".json"} and len(files) == 2
  about = json.loads(files[0].read_text())
  assert about["captions"] == ["a dog", "a cat", ""]
  monkeypatch.setattr(embeddings.TextEncoder, "__call__", None)
  again = embeddings.embed(encoder, CAPTIONS, tmp_path / "text")
  np.testing.assert_array_equal(again.tokens, first.tokens)


def test_other_encoders_and_other_captions_get_files_of_their_own(tmp_path: pathlib.Path):
  embeddings.embed(tiny_encoder(), CAPTIONS, tmp_path)
  before = {file: file.read_bytes() for file in tmp_path.iterdir()}
  embeddings.embed(tiny_encoder(seed=1), CAPTIONS, tmp_path)
  embeddings.embed(tiny_encoder(length=4), CAPTIONS, tmp_path)
  embeddings.embed(tiny_encoder(), CAPTIONS[:2], tmp_path)
  assert len(list(tmp_path.iterdir())) == 8
  assert all(file.read_bytes() == content for file, content in before.items())


def test_an_interrupted_file_is_not_taken_for_a_whole_one(tmp_path: pathlib.Path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      embeddings.embed(tiny_encoder(), CAPTIONS, tmp_path)
  assert not list(tmp_path.glob("*.npy"))
  assert embeddings.embed(tiny_encoder(), CAPTIONS, tmp_path).tokens.shape == (3, 5, 8)


def test_a_workdir_keeps_what_drawing_needs(tmp_path: pathlib.Path):
  encoder = tiny_encoder()
  assert embeddings.read(tmp_path) is None
  embeddings.write(tmp_path, encoder, "a cat")
  kept = embeddings.read(tmp_path)
  assert kept["fingerprint"] == encoder.fingerprint != tiny_encoder(seed=1).fingerprint
  np.testing.assert_allclose(np.stack([kept["null"], kept["default"]]), encoder(["", "a cat"]))


def test_class_names_are_words():
  names = ["ApplyLipstick", "pull_ups", "7", "TaiChi"]
  assert [embeddings.class_prompt(n) for n in names] == [
    "Apply Lipstick",
    "pull ups",
    "7",
    "Tai Chi",
  ]


# ---- encoders by name

SMALL = CLIPText(length=9, width=64, depth=2, num_heads=1, hidden=32, vocabulary=49_408)


def write_clip(file: pathlib.Path, prefix: str = "") -> dict:
  """A small text tower beside tensors of other networks."""
  save = safetensors.numpy.save_file
  rng = np.random.default_rng(0)
  shapes = {
    "embeddings.token_embedding.weight": (49_408, 64),
    "embeddings.position_embedding.weight": (9, 64),
    "final_layer_norm.weight": (64,),
    "final_layer_norm.bias": (64,),
  }
  for layer in range(2):
    at = f"encoder.layers.{layer}"
    for norm in ("layer_norm1", "layer_norm2"):
      shapes |= {f"{at}.{norm}.weight": (64,), f"{at}.{norm}.bias": (64,)}
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
      shapes |= {f"{at}.self_attn.{part}.weight": (64, 64), f"{at}.self_attn.{part}.bias": (64,)}
    shapes |= {f"{at}.mlp.fc1.weight": (32, 64), f"{at}.mlp.fc1.bias": (32,)}
    shapes |= {f"{at}.mlp.fc2.weight": (64, 32), f"{at}.mlp.fc2.bias": (64,)}
  state = {
    f"{prefix}text_model.{name}": rng.normal(0, 0.1, shape).astype(np.float16)
    for name, shape in shapes.items()
  }
  others = {"vision_model.x": np.ones(2, np.float32), "text_projection.weight": np.ones((2, 64))}
  save(state | others, file)
  return state


def test_clip_s_sizes_come_from_its_file(tmp_path: pathlib.Path):
  require(tokenizer.CLIP_VOCABULARY)
  needs("ftfy")
  state = write_clip(tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text('{"text_config": {"hidden_act": "gelu"}}')
  model, params, _ = clip_text.load_text(tmp_path)
  assert model == SMALL.clone(activation="gelu")
  kernel = params["block_1"]["mlp_in"]["kernel"]
  np.testing.assert_array_equal(kernel, state["text_model.encoder.layers.1.mlp.fc1.weight"].T)
  alone, _, _ = clip_text.load_text(tmp_path / "model.safetensors")
  assert alone == SMALL
  write_clip(tmp_path / "sd.safetensors", "cond_stage_model.transformer.")
  assert clip_text.load_text(tmp_path / "sd.safetensors")[0] == SMALL
  encoder = embeddings.load_encoder("clip", 9, str(tmp_path))
  tokens = encoder(["a cat", ""])
  assert tokens.shape == (2, 9, 64) and np.abs(tokens[0] - tokens[1]).max() > 1e-3
  with pytest.raises(ValueError, match="reads at most 9 tokens, not 77"):
    embeddings.load_encoder("clip", 77, str(tmp_path))


def test_what_is_no_clip_is_told(tmp_path: pathlib.Path):
  save = safetensors.numpy.save_file
  with pytest.raises(FileNotFoundError, match=r"set config\.init\.text_encoder"):
    embeddings.load_encoder("clip", 77)
  with pytest.raises(FileNotFoundError, match="holds no weights"):
    clip_text.load_text(tmp_path)
  file = tmp_path / "other.safetensors"
  save({"x": np.ones(3)}, file)
  with pytest.raises(ValueError, match="holds no CLIP text tower"):
    clip_text.load_text(file)
  file.write_bytes(file.read_bytes()[:-5])
  with pytest.raises(ValueError, match="damaged or cut short"):
    clip_text.load_text(file)
  with pytest.raises(ValueError, match=r"'bert'\. Choose one of: clip, minilm"):
    embeddings.load_encoder("bert", 77)


def test_damaged_tokens_are_computed_again(tmp_path, caplog) -> None:
  encoder = tiny_encoder()
  first = np.array(embeddings.embed(encoder, CAPTIONS, tmp_path).tokens)
  for what in damage.damages(tmp_path, flips=2):
    again = embeddings.embed(encoder, CAPTIONS, tmp_path).tokens
    np.testing.assert_array_equal(again, first, err_msg=what)
  assert "is damaged and is computed again" in caplog.text


def test_no_damaged_empty_prompt_is_read(tmp_path) -> None:
  embeddings.write(tmp_path, tiny_encoder(), "a digit")
  whole = embeddings.read(tmp_path)
  for what in damage.damages(tmp_path, flips=200):
    try:
      found = embeddings.read(tmp_path)
    except ValueError as error:
      assert "text.npz is damaged" in str(error)
    else:
      assert found is None or all(np.array_equal(found[name], whole[name]) for name in whole), what
