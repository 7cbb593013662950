"""Names of CLIP's text tower (transformers' CLIPTextModel) in our parameter tree."""

from collections.abc import Mapping
from typing import Any

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

_BUFFER = "embeddings.position_ids"  # 0, 1, 2, ...: older files store it


def clip_text_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of `models.text_encoder.CLIPText`.

  Names are transformers', as below `cond_stage_model.transformer.` in Stable Diffusion v1.
  """
  state = {name: value for name, value in state.items() if not name.endswith(_BUFFER)}
  return convert(state, _CLIP_TEXT, shapes)
