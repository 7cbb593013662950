"""BERT (Devlin et al. 2019) as a sentence encoder, such as MiniLM-L6."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.layers import Dtype
from videodiff_jax.models.text_encoder import Encoded, TextAttention


class SentenceEncoder(nn.Module):
  """A post-norm transformer that sees the whole text; the defaults are MiniLM-L6-H384's.

  Ids equal to `padding` are not part of the text: nothing attends to them, and their states are 0.
  """

  vocabulary: int = 30_522
  length: int = 512
  width: int = 384
  depth: int = 6
  num_heads: int = 12
  hidden: int = 1536  # width of the MLPs
  padding: int = 0
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, ids: jax.Array) -> Encoded:
    """Encodes token ids (b, l), l <= length; `pooled` is the mean state of the text.

    Raises:
      ValueError: there are more tokens than positions.
    """
    chex.assert_rank(ids, 2)
    chex.assert_type(ids, int)
    l = ids.shape[1]
    if l > self.length:
      raise ValueError(f"{l} tokens per text, but this encoder has {self.length} positions.")
    draw = nn.initializers.normal(0.02)
    positions = self.param("positions", draw, (self.length, self.width), jnp.float32)
    # BERT has two kinds of segment; a single sentence belongs to the first.
    segments = self.param("segments", draw, (2, self.width), jnp.float32)
    embed = nn.Embed(self.vocabulary, self.width, embedding_init=draw, name="token_embed")
    mask = ids != self.padding

    def norm(name: str, x: jax.Array) -> jax.Array:
      return nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name=name)(x)

    x = norm("norm_in", embed(ids) + positions[None, :l] + segments[None, :1])
    for i in range(self.depth):
      block = _Block(self.num_heads, self.hidden, self.dtype, name=f"block_{i}")
      x = block(x, mask[:, None, None])
    x = jnp.where(mask[..., None], x, 0).astype(jnp.float32)
    return Encoded(x, mask, x.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1))


class _Block(nn.Module):
  num_heads: int
  hidden: int
  dtype: Dtype

  @nn.compact
  def __call__(self, x: jax.Array, visible: jax.Array) -> jax.Array:
    y = TextAttention(self.num_heads, self.dtype, name="attention")(x, visible)
    x = nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name="norm_attention")(x + y)
    y = nn.Dense(self.hidden, dtype=self.dtype, name="mlp_in")(x)
    y = nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(nn.gelu(y, approximate=False))
    return nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name="norm_mlp")(x + y)
