import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.helpers import fill, needs
from tests.weights import require
from videodiff_jax.models.sentence_encoder import SentenceEncoder
from videodiff_jax.models.text_encoder import CLIPText, Encoded
from videodiff_jax.pretrained import minilm
from videodiff_jax.pretrained.files import restricted_pickle
from videodiff_jax.pretrained.names import clip
from videodiff_jax.text import tokenizer

END = 49
TINY = {"vocabulary": 50, "length": 12, "width": 16, "depth": 2, "num_heads": 2, "hidden": 32}
CLIP_SIZES = {
  "quick_gelu": TINY | {"end": END},
  "gelu, projected": TINY | {"end": END, "activation": "gelu", "projection": 5, "num_heads": 4},
  "one block": TINY | {"end": END, "depth": 1, "width": 24, "hidden": 40, "length": 7},
}
VIT_L = pytest.param({}, marks=pytest.mark.slow, id="ViT-L/14")


def shapes_of(model: Any) -> dict[str, Any]:
  ids = jax.ShapeDtypeStruct((1, model.length), jnp.int32)
  return jax.eval_shape(model.init, jax.random.key(0), ids)["params"]


def ragged(model: CLIPText, lengths: tuple[int, ...]) -> np.ndarray:
  """Texts of several lengths, (b, l); half of them padded with the end token, half with 0."""
  rng = np.random.default_rng(0)
  ids = np.full((len(lengths), model.length), model.end, np.int32)
  ids[::2] = 0
  for row, length in zip(ids, lengths):
    row[:length] = rng.integers(1, model.end - 1, length)
    row[length] = model.end
  return ids


def torch_state(module: Any) -> dict[str, np.ndarray]:
  return {name: value.numpy() for name, value in module.state_dict().items()}


def encode(model: Any, params: Any, ids: np.ndarray) -> Encoded:
  with jax.default_matmul_precision("highest"):
    return jax.tree.map(np.asarray, jax.jit(model.apply)({"params": params}, ids))


@functools.cache
def parity() -> tuple[ModuleType, ModuleType]:
  return needs("transformers"), needs("torch")


def their_clip(model: CLIPText) -> Any:
  """transformers' module of the same size, in which nothing is zero or one."""
  transformers, torch = parity()
  config = transformers.CLIPTextConfig(
    vocab_size=model.vocabulary,
    hidden_size=model.width,
    intermediate_size=model.hidden,
    num_hidden_layers=model.depth,
    num_attention_heads=model.num_heads,
    max_position_embeddings=model.length,
    hidden_act=model.activation,
    projection_dim=model.projection,
    eos_token_id=model.end,
    bos_token_id=model.end - 1,
    attn_implementation="eager",
  )
  kinds = transformers.CLIPTextModelWithProjection, transformers.CLIPTextModel
  theirs = kinds[not model.projection](config).eval()
  scatter(torch, theirs)
  return theirs


def scatter(torch: ModuleType, module: Any) -> None:
  torch.manual_seed(0)
  with torch.no_grad():
    for value in module.parameters():
      value.add_(0.05 * torch.randn_like(value))


@pytest.mark.parametrize(
  "options", [*(pytest.param(o, id=name) for name, o in CLIP_SIZES.items()), VIT_L]
)
def test_clip_equals_transformers(options: dict[str, Any]):
  _, torch = parity()
  model = CLIPText(**options)
  theirs = their_clip(model)
  ids = ragged(model, (0, 3, model.length - 1, 1))
  params = clip.clip_text_params(torch_state(theirs), shapes_of(model))
  ours = encode(model, params, ids)
  with torch.no_grad():
    expected = theirs(torch.from_numpy(ids))
  pooled = expected.text_embeds if model.projection else expected.pooler_output
  assert np.abs(ours.tokens - expected.last_hidden_state.numpy()).max() < 2e-5
  assert np.abs(ours.pooled - pooled.numpy()).max() < 2e-5
  assert ours.mask.sum(1).tolist() == [1, 4, model.length, 2]


def test_no_token_sees_later_ones():
  model = CLIPText(**CLIP_SIZES["quick_gelu"])
  params = fill(shapes_of(model), scale=0.3)
  ids = ragged(model, (5, 5))
  ids[1, :5] = ids[0, :5]
  ids[1, 3] += 1
  tokens = encode(model, params, ids).tokens
  np.testing.assert_allclose(tokens[0, :3], tokens[1, :3], atol=1e-6)
  assert (np.abs(tokens[0, 3:6] - tokens[1, 3:6]).max(1) > 1e-3).all()


def test_every_tensor_of_clip_vit_l_finds_its_place():
  """By names and shapes, with the projection of openai/clip-vit-large-patch14."""
  transformers, torch = parity()
  config = transformers.CLIPTextConfig(
    hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768
  )
  with torch.device("meta"):
    theirs = transformers.CLIPTextModelWithProjection(config)
  state = {
    name: np.broadcast_to(np.float32(0), tuple(value.shape))
    for name, value in theirs.state_dict().items()
  }
  # As files have it: transformers 5 keeps no position_ids, older versions do.
  state["text_model.embeddings.position_ids"] = np.arange(77)[None]
  assert len(state) == 198
  shapes = shapes_of(CLIPText(projection=768))
  params = clip.clip_text_params(state, shapes)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 123_060_480 + 768 * 768
  del state["text_model.final_layer_norm.bias"]
  state["text_model.encoder.layers.12.mlp.fc1.bias"] = np.zeros(3072, np.float32)
  with pytest.raises(ValueError, match=r"layers\.12\.mlp\.fc1\.bias has no .*norm_out\.bias is m"):
    clip.clip_text_params(state, shapes)


def test_bert_equals_transformers():
  transformers, torch = parity()
  model = SentenceEncoder(**TINY)
  config = transformers.BertConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, max_position_embeddings=12, attn_implementation="eager",
  )  # fmt: skip
  theirs = transformers.BertModel(config).eval()
  scatter(torch, theirs)
  compare_bert(model, torch_state(theirs), theirs, np.array([[3, 4, 5, 0, 0], [7, 8, 9, 1, 2]]))


def compare_bert(model: Any, state: dict[str, np.ndarray], theirs: Any, ids: np.ndarray) -> None:
  _, torch = parity()
  ours = encode(model, minilm.bert_params(state, shapes_of(model)), ids)
  mask = ids != 0
  with torch.no_grad():
    expected = theirs(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
  states = expected.last_hidden_state.numpy() * mask[..., None]
  assert np.abs(ours.tokens - states).max() < 2e-5
  mean = states.sum(1) / mask.sum(1, keepdims=True)
  assert np.abs(ours.pooled - mean).max() < 2e-5
  np.testing.assert_array_equal(ours.mask, mask)


PROMPTS = (
  "",
  "robot arm pushes a red cube",
  "robotic manipulator moves a crimson block",
  "A time-lapse video of sky",
)


def test_minilm_equals_transformers():
  require(minilm.WEIGHTS)
  transformers, _ = parity()
  numpy_file = safetensors.numpy
  model, _ = minilm.load()
  file = restricted_pickle.locate(minilm.WEIGHTS)
  theirs = transformers.BertModel.from_pretrained(file.parent, attn_implementation="eager").eval()
  ids = tokenizer.word_pieces(length=12)(PROMPTS).astype(np.int64)
  compare_bert(model, numpy_file.load_file(file), theirs, ids)


def test_minilm_knows_what_words_mean():
  require(minilm.WEIGHTS)
  model, params = minilm.load()
  pooled = encode(model, params, tokenizer.word_pieces(length=12)(PROMPTS)).pooled
  pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
  assert pooled[1] @ pooled[2] > 0.5 and abs(pooled[1] @ pooled[3]) < 0.1


@pytest.mark.parametrize("model", [CLIPText(**TINY, end=END), SentenceEncoder(**TINY)])
def test_too_long_texts_are_refused(model: Any):
  ids = jax.ShapeDtypeStruct((1, 13), jnp.int32)
  with pytest.raises(ValueError, match="13 tokens per text, but this encoder has 12 positions"):
    jax.eval_shape(model.init, jax.random.key(0), ids)


def test_an_unknown_activation_is_refused():
  with pytest.raises(ValueError, match=r"'relu'\. Did you mean 'gelu'\? Choose one of: quick_gelu"):
    shapes_of(CLIPText(**TINY, end=END, activation="relu"))
