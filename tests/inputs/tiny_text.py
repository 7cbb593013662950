"""A text encoder small enough to run in every test."""

import jax
import jax.numpy as jnp

from tests.helpers import fill
from videodiff_jax.models.sentence_encoder import SentenceEncoder
from videodiff_jax.text import embeddings, tokenizer


def tiny_encoder(seed: int = 0, width: int = 8, length: int = 5) -> embeddings.TextEncoder:
  """Knows a text by its letters."""
  model = SentenceEncoder(
    vocabulary=128, length=length, width=width, depth=1, num_heads=2, hidden=8
  )
  ids = jax.ShapeDtypeStruct((1, length), jnp.int32)
  params = fill(jax.eval_shape(model.init, jax.random.key(0), ids)["params"], seed, 0.5)
  words = tokenizer.Tokenizer(lambda t: [ord(c) for c in t], length, start=1, end=2, padding=0)
  return embeddings.TextEncoder("tiny", model, params, words, f"weights {seed}")
