"""Maps names of CLIP's text tower (transformers' CLIPTextModel) to our parameter tree."""

import re
from collections.abc import Mapping
from typing import Any

from videodiff_jax.models.text_encoder import Activation, CLIPText
from videodiff_jax.pretrained.files.state_dict import Rules, State, convert

# transformers from 5.6 on omit 'text_model.', also in the files of CLIPTextModel.
CLIP_TEXT: Rules = (
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
_BUFFER = "embeddings.position_ids"  # 0, 1, 2, ..., which older files store


def clip_text_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts parameters of `models.text_encoder.CLIPText`.

  Names are transformers', as below `cond_stage_model.transformer.` in Stable Diffusion v1.
  """
  state = {name: value for name, value in state.items() if not name.endswith(_BUFFER)}
  return convert(state, CLIP_TEXT, shapes)


def architecture(shapes: Mapping[str, tuple[int, ...]], activation: Activation) -> CLIPText:
  """Builds the network of these tensors, named as below `text_model.` or by our paths.

  Heads are 64 channels wide, as in every CLIP.

  Raises:
    ValueError: the embeddings or the first block are missing.
  """

  def find(*names: str) -> tuple[int, ...]:
    if shape := next((shapes[name] for name in names if name in shapes), None):
      return shape
    raise ValueError(f"These tensors are no CLIP text tower: {names[0]} is missing.")

  vocabulary, width = find("embeddings.token_embedding.weight", "token_embed.embedding")
  blocks = map(re.compile(r"(?:encoder\.layers\.|block_)(\d+)\.").match, shapes)
  return CLIPText(
    vocabulary=vocabulary,
    length=find("embeddings.position_embedding.weight", "positions")[0],
    width=width,
    depth=1 + max((int(match[1]) for match in blocks if match), default=0),
    num_heads=max(width // _HEAD_CHANNELS, 1),
    hidden=find("encoder.layers.0.mlp.fc1.bias", "block_0.mlp_in.bias")[0],
    activation=activation,
    end=vocabulary - 1,
  )
