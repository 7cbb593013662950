"""Attention: the attention function, the release's blocks over video, the UNet's transformer."""

import functools
import math
from typing import Any, Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from videodiff_jax.models import target
from videodiff_jax.models.layers import ZEROS, Dtype, GroupNorm

Tokens = Literal["spatial", "temporal", "joint"]
TextAttention = Literal["cross", "joint"]
TEXT_ATTENTIONS = ("cross", "joint")


# Logits per head (queries x keys) from which flash attention is used, where it runs: those of 512
# tokens. In full-size batches fewer logits take no more memory than the maps they come from.
_FLASH_LOGITS = 2**18
# More logits per head than this are never all in memory at once, on any device.
_MOST_LOGITS = 2**20
# Logits over rows and heads that a TPU's vector memory holds beside all else, 32 MB. More would be
# written to main memory and read again, which by the compiler's estimate takes longer than their
# arithmetic.
_TPU_LOGITS = 2**23
# TPUs that gain by it, each with the logits per head from which a gradient does. A v5p's compiler
# keeps no logits in vector memory.
_TPU_FEWEST = {"TPU v5 lite": 256**2, "TPU v6 lite": 300**2}


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes dot-product attention of q (b, n, heads, d) to k and v (b, m, heads, d).

  The softmax is float32. Where n x m is large, the matrix of logits is never in memory at once:
  cuDNN's flash attention computes it in tiles. Elsewhere queries come in chunks, which the
  backward pass recomputes. On some TPUs heads come in groups whose logits stay in vector memory.

  Returns:
    (b, n, heads, d).
  """
  chex.assert_rank([q, k, v], 4)
  dims = chex.Dimensions(M=k.shape[1])
  dims["BNHD"] = q.shape
  chex.assert_shape([k, v], dims["BMHD"])
  n, m = q.shape[1], k.shape[1]
  if n * m >= _FLASH_LOGITS and _flash(q):
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
  if n * m <= _MOST_LOGITS:
    return _in_vector_memory(q, k, v)
  chunks = -(-n * m // _MOST_LOGITS)
  size = -(-n // chunks)
  padded = jnp.pad(q, ((0, 0), (0, chunks * size - n), (0, 0), (0, 0)))
  split = jnp.moveaxis(padded.reshape(len(q), chunks, size, *q.shape[2:]), 1, 0)
  parts = lax.map(jax.checkpoint(lambda part: _attend(part, k, v)), split)
  return jnp.moveaxis(parts, 0, 1).reshape(padded.shape)[:, :n]


def _in_vector_memory(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes attention, on TPUs that gain by it for a few heads after another.

  Every device takes its own rows, as a loop over rows of all devices would gather them.
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices = 1 if mesh.empty else mesh.size
  b, heads, logits = q.shape[0], q.shape[2], q.shape[1] * k.shape[1]
  few = b * heads * logits <= _TPU_LOGITS * devices
  if few or b % devices or logits < _TPU_FEWEST.get(target.device_kind(), math.inf):
    return _attend(q, k, v)
  if mesh.empty:
    return _by_groups(q, k, v)
  rows = PartitionSpec(mesh.axis_names)
  return jax.shard_map(_by_groups, in_specs=rows, out_specs=rows, check_vma=False)(q, k, v)


def _by_groups(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes attention for groups of heads, as many as `_TPU_LOGITS` allows, one after another."""
  b, n, heads, d = q.shape
  most = max(_TPU_LOGITS // (n * k.shape[1]), 1)
  size = max(size for size in range(1, b * heads + 1) if b * heads % size == 0 and size <= most)

  def groups(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2).reshape(-1, size, x.shape[1], 1, d)

  one = jax.checkpoint(lambda group: _attend(*group))
  parts = lax.map(one, (groups(q), groups(k), groups(v)))
  return parts.reshape(b, heads, n, d).swapaxes(1, 2)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes attention with all logits at once.

  On CPU, matrix products batched over heads, with the division after the second product, are three
  times as fast as `jax.nn.dot_product_attention`, and five times with gradients.
  """
  if target.platform() != "cpu":
    return jax.nn.dot_product_attention(q, k, v)
  q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
  logits = ((q * q.shape[-1] ** -0.5) @ k.swapaxes(-1, -2)).astype(jnp.float32)
  weights = jnp.exp(logits - lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
  total = weights.sum(axis=-1, keepdims=True).astype(v.dtype)
  return ((weights.astype(v.dtype) @ v) / total).swapaxes(1, 2)


def _flash(q: jax.Array) -> bool:
  """Tells whether cuDNN's flash attention takes these: 16 bits, narrow heads, a card with it."""
  narrow = q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
  return q.dtype in (jnp.bfloat16, jnp.float16) and narrow and target.flash_attention()


def count_heads(channels: int, num_heads: int | None, num_head_channels: int | None) -> int:
  """Returns a level's heads: channels / num_head_channels if that is given, else num_heads."""
  heads = channels // num_head_channels if num_head_channels else num_heads
  if not heads or channels % heads or (num_head_channels or 0) * heads not in (0, channels):
    raise ValueError(
      f"{channels} channels do not split into heads: num_heads={num_heads}, "
      f"num_head_channels={num_head_channels}. Use a number that divides every level's channels."
    )
  return heads


class AttentionBlock(nn.Module):
  """Computes x + out(attention(qkv(norm(x)))) over a frame's pixels, a pixel's frames, or both.

  The norm's statistics cover the same tokens as the attention. qkv is laid out head by head, with
  [q | k | v] in each, as in the GLOBER release's weights.
  """

  num_heads: int
  tokens: Tokens
  zero_init: bool = True
  groups: int = 32
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Attends within (b, f, h, w, c); same shape."""
    chex.assert_rank(x, 5)
    b, f, h, w, c = x.shape
    if self.tokens == "temporal":
      y = x.transpose(0, 2, 3, 1, 4).reshape(b * h * w, f, c)
    else:
      y = x.reshape((b * f, h * w, c) if self.tokens == "spatial" else (b, f * h * w, c))
    y = y.astype(self.dtype)
    n, m = y.shape[:2]
    qkv = GroupNorm(self.groups, name="norm")(y)
    qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(qkv)
    q, k, v = jnp.moveaxis(qkv.reshape(n, m, self.num_heads, 3, c // self.num_heads), 3, 0)
    init: dict[str, Any] = {"kernel_init": ZEROS} if self.zero_init else {}
    update = nn.Dense(c, dtype=self.dtype, name="out", **init)(attend(q, k, v).reshape(y.shape))
    y += update
    if self.tokens == "temporal":
      return y.reshape(b, h, w, f, c).transpose(0, 3, 1, 2, 4)
    return y.reshape(x.shape)


class Attention(nn.Module):
  """Multi-head attention of tokens to a context; only the last projection has a bias."""

  num_heads: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
    """(b, n, d), (b, m, e) -> (b, n, d)."""
    d = x.shape[-1]

    def project(name: str, tokens: jax.Array) -> jax.Array:
      y = nn.Dense(d, use_bias=False, dtype=self.dtype, name=name)(tokens)
      return y.reshape(*tokens.shape[:2], self.num_heads, d // self.num_heads)

    y = attend(project("query", x), project("key", context), project("value", context))
    return nn.Dense(d, dtype=self.dtype, name="out")(y.reshape(x.shape))


class TransformerBlock(nn.Module):
  """Self-attention, cross-attention and a gated feed-forward layer, each after a LayerNorm.

  With text_attention 'joint' there is no cross-attention: the self-attention's keys and values are
  those of x followed by those of the context, which is then as wide as x.
  """

  num_heads: int
  text_attention: TextAttention = "cross"
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
    """(b, n, d), (b, m, e) -> (b, n, d)."""
    attention = functools.partial(Attention, self.num_heads, self.dtype)

    def norm(name: str, x: jax.Array) -> jax.Array:
      return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x)

    y = norm("norm_self", x)
    if self.text_attention == "joint":
      x += attention(name="self_attention")(y, jnp.concatenate([y, context], axis=1))
    else:
      x += attention(name="self_attention")(y, y)
      y = norm("norm_cross", x)
      x += attention(name="cross_attention")(y, context)
    y = norm("norm_feed", x)
    y = nn.Dense(8 * x.shape[-1], dtype=self.dtype, name="feed_in")(y)
    value, gate = jnp.split(y, 2, axis=-1)
    y = value * nn.gelu(gate, approximate=False)
    return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="feed_out")(y)


class SpatialTransformer(nn.Module):
  """Transformer blocks over a map's pixels that read condition tokens; they start as the identity.

  text_attention 'cross' is Stable Diffusion's wiring. 'joint' is that of GLOBER Sec. 3.1: text
  tokens are projected to the map's channels and "concatenated with flattened frame features".
  """

  num_heads: int
  depth: int = 1
  groups: int = 32
  text_attention: TextAttention = "cross"
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array) -> jax.Array:
    """Transforms a map (n, h, w, c) given tokens (n, l, e); same shape as the map."""
    chex.assert_rank([x, context], [4, 3])
    chex.assert_equal_shape_prefix([x, context], 1)
    n, h, w, c = x.shape
    y = GroupNorm(self.groups, epsilon=1e-6, name="norm")(x).reshape(n, h * w, c)
    y = nn.Dense(c, dtype=self.dtype, name="proj_in")(y)
    context = context.astype(self.dtype)
    if self.text_attention == "joint":
      context = nn.Dense(c, dtype=self.dtype, name="text_in")(context)
    settings = (self.num_heads, self.text_attention, self.dtype)
    for i in range(self.depth):
      y = TransformerBlock(*settings, name=f"block_{i}")(y, context)
    y = nn.Dense(c, kernel_init=ZEROS, dtype=self.dtype, name="proj_out")(y)
    return x + y.reshape(x.shape)
