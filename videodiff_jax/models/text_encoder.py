"""CLIP's text transformer (Radford et al. 2021), whose last states condition Stable Diffusion.

The sentence encoder has the same interface: tokens (b, l) -> `Encoded`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.choices import check_choice
from videodiff_jax.models.layers import Dtype

Activation = Literal["quick_gelu", "gelu"]


class Encoded(NamedTuple):
  """The output of a text encoder for token ids (b, l).

  Attributes:
    tokens: (b, l, d) last hidden states, float32.
    mask: (b, l) bool, True for tokens of the text, False for padding.
    pooled: (b, d) one vector per text, float32.
  """

  tokens: jax.Array
  mask: jax.Array
  pooled: jax.Array


def quick_gelu(x: jax.Array) -> jax.Array:
  """Computes x sigmoid(1.702 x), the activation of OpenAI's CLIP models."""
  return x * nn.sigmoid(1.702 * x)


class TextAttention(nn.Module):
  """Multi-head self-attention with a bias in every projection; float32 softmax."""

  num_heads: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, visible: jax.Array) -> jax.Array:
    """Attends within (b, l, d); the mask `visible` broadcasts to (b, heads, queries, keys)."""
    b, l, d = x.shape

    def project(name: str) -> jax.Array:
      y = nn.Dense(d, dtype=self.dtype, name=name)(x)
      return y.reshape(b, l, self.num_heads, d // self.num_heads)

    y = jax.nn.dot_product_attention(
      project("query"), project("key"), project("value"), mask=visible
    )
    return nn.Dense(d, dtype=self.dtype, name="out")(y.reshape(x.shape))


class CLIPText(nn.Module):
  """A causal pre-norm transformer; the defaults are those of CLIP ViT-L/14.

  A text ends in the token `end`, with which it is also padded. Every position sees only itself and
  earlier ones, so padding changes nothing up to the end.
  """

  vocabulary: int = 49_408
  length: int = 77
  width: int = 768
  depth: int = 12
  num_heads: int = 12
  hidden: int = 3072  # width of the MLPs
  activation: Activation = "quick_gelu"
  projection: int = 0  # width of `pooled` after a linear layer; 0: no layer
  end: int = 49_407
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, ids: jax.Array) -> Encoded:
    """Encodes token ids (b, l), l <= length, each row with an `end`; `pooled` is the state there.

    Raises:
      ValueError: there are more tokens than positions, or the activation is unknown.
    """
    chex.assert_rank(ids, 2)
    chex.assert_type(ids, int)
    l = ids.shape[1]
    if l > self.length:
      raise ValueError(f"{l} tokens per text, but this encoder has {self.length} positions.")
    activations = {
      "quick_gelu": quick_gelu,
      "gelu": lambda x: nn.gelu(x, approximate=False),
    }
    check_choice("activation", self.activation, activations)
    activate = activations[self.activation]
    draw = nn.initializers.normal(0.02)
    positions = self.param("positions", draw, (self.length, self.width), jnp.float32)
    embed = nn.Embed(self.vocabulary, self.width, embedding_init=draw, name="token_embed")
    x = (embed(ids) + positions[None, :l]).astype(self.dtype)
    causal = jnp.tril(jnp.ones((1, 1, l, l), bool))
    for i in range(self.depth):
      x = _Block(self.num_heads, self.hidden, activate, self.dtype, name=f"block_{i}")(x, causal)
    x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_out")(x).astype(jnp.float32)

    ends = jnp.argmax(ids == self.end, axis=1)
    pooled = jnp.take_along_axis(x, ends[:, None, None], axis=1)[:, 0]
    if self.projection:
      pooled = nn.Dense(self.projection, use_bias=False, name="projection")(pooled)
    return Encoded(x, jnp.arange(l)[None] <= ends[:, None], pooled)


class _Block(nn.Module):
  num_heads: int
  hidden: int
  activate: Callable[[jax.Array], jax.Array]
  dtype: Dtype

  @nn.compact
  def __call__(self, x: jax.Array, visible: jax.Array) -> jax.Array:
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_attention")(x)
    x += TextAttention(self.num_heads, self.dtype, name="attention")(y, visible)
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_mlp")(x)
    y = self.activate(nn.Dense(self.hidden, dtype=self.dtype, name="mlp_in")(y))
    return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(y)
