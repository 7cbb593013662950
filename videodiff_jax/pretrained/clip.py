"""Names of CLIP's text tower (transformers' CLIPTextModel) in our parameter tree."""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.models.text_encoder import CLIPText
from videodiff_jax.pretrained.state_dict import Rules, State, convert

# Newer transformers leave 'text_model.' away in memory; files have it.
_CLIP_TEXT: Rules = (
  (r"^text_model\.", ""),
  (r"^embeddings\.token_embedding", "token_embed"),
  (r"^embeddings\.position_embedding\.weight", "positions"),
  (r"^encoder\.layers\.(\d+)", r"block_\1"),
  (r"^final_layer_norm", "norm_out"),
  (r"^text_projection", "projection"),
  (r"\bself_attn\.q_proj\b", "attention.query"),
  (r"\bself_attn\.k_proj\b", "attention.key"),
  (r"\bself_attn\.v_proj\b", "attention.value"),
  (r"\bself_attn\.out_proj\b", "attention.out"),
  (r"\blayer_norm1\b", "norm_attention"),
  (r"\blayer_norm2\b", "norm_mlp"),
  (r"\bmlp\.fc1\b", "mlp_in"),
  (r"\bmlp\.fc2\b", "mlp_out"),
)

_HEAD_CHANNELS = 64
_BUFFER = "embeddings.position_ids"  # 0, 1, 2, ...: older files store it


def clip_text_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of `models.text_encoder.CLIPText`.

  Names are transformers', as below `cond_stage_model.transformer.` in Stable Diffusion v1.
  """
  state = {name: value for name, value in state.items() if not name.endswith(_BUFFER)}
  return convert(state, _CLIP_TEXT, shapes)


def load_text(path: str | pathlib.Path) -> tuple[CLIPText, dict[str, Any], str]:
  """CLIP's text tower, its parameters and its file's sha256.

  Sizes come from the tensors, heads are 64 channels wide as in every CLIP, and the activation is
  config.json's, or quick-GELU (OpenAI's) where there is none.

  Args:
    path: a safetensors file of a CLIP text model, of a whole CLIP or of Stable Diffusion v1, or
      the folder with a model.safetensors and config.json.

  Raises:
    FileNotFoundError: nothing there.
    ModuleNotFoundError: safetensors is missing (extra `text`).
    ValueError: a file that is damaged, or holds no CLIP text tower.
  """
  try:
    import safetensors
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      'CLIP\'s weights are read by safetensors: run pip install -e ".[text]".'
    ) from error
  path = pathlib.Path(path)
  file = path / "model.safetensors" if path.is_dir() else path
  if not file.is_file():
    raise FileNotFoundError(f"No file {file}: give a CLIP text model's safetensors file or folder.")
  state = {}
  try:
    with safetensors.safe_open(file, "np") as tensors:
      for name in tensors.keys():  # noqa: SIM118: it is no dict
        ours = name.removeprefix("cond_stage_model.transformer.")
        if ours.startswith("text_model."):
          state[ours] = tensors.get_tensor(name)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
  except safetensors.SafetensorError as error:
    raise ValueError(f"{file} is no safetensors file, or is damaged: {error}.") from error
  tokens, positions = (
    state.get(f"text_model.embeddings.{name}_embedding.weight") for name in ("token", "position")
  )
  hidden = state.get("text_model.encoder.layers.0.mlp.fc1.bias")
  if tokens is None or positions is None or hidden is None:
    raise ValueError(f"{file} holds no CLIP text tower: no text_model.embeddings or encoder.")
  vocabulary, width = tokens.shape
  model = CLIPText(
    vocabulary=vocabulary,
    length=len(positions),
    width=width,
    depth=1 + max(int(m[1]) for m in map(re.compile(r".*layers\.(\d+)\.").match, state) if m),
    num_heads=width // _HEAD_CHANNELS,
    hidden=len(hidden),
    activation=_activation(file.parent / "config.json") if path.is_dir() else "quick_gelu",
    end=vocabulary - 1,
  )
  ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
  return model, clip_text_params(state, shapes), sha256


def _activation(config: pathlib.Path) -> str:
  if not config.is_file():
    return "quick_gelu"
  settings = json.loads(config.read_text())
  return settings.get("text_config", settings).get("hidden_act", "quick_gelu")
