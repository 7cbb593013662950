"""DiT: the transformer that generates global features (GLOBER Sec. 3.2)."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax

from videodiff_jax.models import target
from videodiff_jax.models.attention import attend
from videodiff_jax.models.layers import (
  EXACT,
  ZEROS,
  Dtype,
  PositionEmbedding,
  Remat,
  rematerialised,
)

_XAVIER = nn.initializers.xavier_uniform()
_TIME_CHANNELS = 256
PROMPT_STD = 0.1  # initial std of learned prompt tokens (the release's context_emb)


def position_table(side: int, width: int) -> np.ndarray:
  """Returns fixed 2-D sinusoids of a side x side grid: (side**2, width), float32.

  The first half of the width encodes the column, the second the row, each as [sin, cos].
  """
  if width % 4:
    raise ValueError(f"DiT's width must be divisible by 4, not {width}.")
  frequencies = 1e4 ** -(np.arange(width // 4) / (width / 4))
  angles = np.arange(side)[:, None] * frequencies
  code = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
  rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
  table = np.concatenate([code[columns.ravel()], code[rows.ravel()]], axis=-1)
  return table.astype(np.float32)


def _modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
  return x * (1 + scale[:, None]) + shift[:, None]


def _norm(x: jax.Array, dtype: Dtype) -> jax.Array:
  return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)(x)


class QKV(nn.Module):
  """Projects tokens to queries, keys and values, with the parameters of one Dense layer."""

  num_heads: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """(b, n, d) -> three arrays (b, n, heads, d / heads)."""
    d, heads = x.shape[-1], self.num_heads
    kernel = self.param("kernel", _XAVIER, (d, 3 * d), jnp.float32)
    bias = self.param("bias", ZEROS, (3 * d,), jnp.float32)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    if target.platform() != "tpu":
      y = lax.dot_general(x, kernel, (((2,), (0,)), ((), ()))) + bias[None, None]
      return [part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(y, 3, axis=-1)]

    # One product would be copied into attention's layout. Three are written in it, so that a block
    # on a v5p takes 16 % fewer cycles by the compiler's estimate.
    def project(kernel: jax.Array, bias: jax.Array) -> jax.Array:
      y = jnp.einsum("bnc,chd->bhnd", x, kernel.reshape(d, heads, -1))
      return (y + bias.reshape(1, heads, 1, -1)).swapaxes(1, 2)

    return [project(*part) for part in zip(jnp.split(kernel, 3, axis=1), jnp.split(bias, 3))]


class DiTBlock(nn.Module):
  """Attention and MLP with shifts, scales and gates from the condition (adaLN-zero)."""

  num_heads: int
  hidden: int  # width of the MLP
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
    """Transforms tokens (b, n, d) given a condition (b, d); same shape."""
    d = x.shape[-1]

    def dense(features: int, name: str) -> nn.Dense:
      return nn.Dense(features, kernel_init=_XAVIER, dtype=self.dtype, name=name)

    modulation = nn.Dense(6 * d, kernel_init=ZEROS, dtype=self.dtype, name="modulation")
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(
      modulation(nn.silu(condition)), 6, axis=-1
    )
    y = _modulate(_norm(x, self.dtype), shift_1, scale_1)
    q, k, v = QKV(self.num_heads, self.dtype, name="qkv")(y)
    x += gate_1[:, None] * dense(d, "out")(attend(q, k, v).reshape(x.shape))
    y = _modulate(_norm(x, self.dtype), shift_2, scale_2)
    y = dense(d, "mlp_out")(nn.gelu(dense(self.hidden, "mlp_in")(y), approximate=True))
    return x + gate_2[:, None] * y


class DiT(nn.Module):
  """Predicts the noise of a map from timestep, class label and text tokens.

  Text tokens are prepended to the map's own tokens; the label's embedding is added to the
  timestep's. `scan_blocks` compiles one block for all (parameters are stacked under 'blocks'). That
  suits accelerators, while on CPU its backward pass is slower.
  """

  input_size: int
  in_channels: int
  patch_size: int = 1
  width: int = 1152
  depth: int = 28
  num_heads: int = 16
  mlp_ratio: float = 4.0
  num_classes: int = 0  # 0: no labels; else index num_classes is the null class
  context_dim: int = 0  # 0: no tokens
  prompt_tokens: int = 0  # above 0: the number of learned tokens of the one prompt
  learn_sigma: bool = False
  scan_blocks: bool = False
  remat: Remat = "none"
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    t: jax.Array,
    labels: jax.Array | None = None,
    tokens: jax.Array | None = None,
  ) -> jax.Array:
    """Predicts the noise of maps.

    Args:
      x: (b, h, w, c) noisy maps, h = w = input_size.
      t: (b,) timesteps.
      labels: (b,) class indices, num_classes for the null class; None without classes.
      tokens: (b, l, context_dim) text tokens; None without text. With a learned prompt it is (b,):
        1 with the prompt, 0 without.

    Returns:
      (b, h, w, c), float32; with `learn_sigma` (b, h, w, 2c), the variance's channels last.

    Raises:
      ValueError: the map has another shape, sizes do not divide, or labels or tokens do not match
        `num_classes` and `context_dim`.
    """
    # Patches, with the text tokens before them.
    self._check(x, t, labels, tokens)
    b, _, _, c = x.shape
    p, side = self.patch_size, self.input_size // self.patch_size
    patch = nn.Conv(
      self.width, (p, p), (p, p), "VALID", kernel_init=_XAVIER, dtype=self.dtype, name="patch"
    )
    h = patch(x).reshape(b, side**2, self.width)
    h += position_table(side, self.width).astype(h.dtype)[None]
    prefix = 0
    if self.prompt_tokens and tokens is not None:
      shape = (self.prompt_tokens, self.context_dim)
      prompt = self.param("prompt", nn.initializers.normal(PROMPT_STD), shape, jnp.float32)
      tokens = tokens[:, None, None] * prompt[None]
    if tokens is not None:
      prefix = tokens.shape[1]
      embed = nn.Dense(self.width, kernel_init=_XAVIER, dtype=self.dtype, name="token_embed")
      h = jnp.concatenate([embed(tokens), h], axis=1)
    # The condition: timestep and label.
    condition = PositionEmbedding(_TIME_CHANNELS, self.width, name="time_embed")(t)
    if labels is not None:
      table = nn.Embed(
        self.num_classes + 1,
        self.width,
        embedding_init=nn.initializers.normal(0.02),
        name="label_embed",
      )
      condition += table(labels)

    # The blocks, then patches back to a map.
    h = self._blocks(h, condition)[:, prefix:]
    modulation = nn.Dense(2 * self.width, kernel_init=ZEROS, name="final_modulation", **EXACT)
    h = _modulate(_norm(h, jnp.float32), *jnp.split(modulation(nn.silu(condition)), 2, axis=-1))
    channels = 2 * c if self.learn_sigma else c
    h = nn.Dense(p * p * channels, kernel_init=ZEROS, name="final_out", **EXACT)(h)
    h = h.reshape(b, side, side, p, p, channels).swapaxes(2, 3)
    return h.reshape(b, side * p, side * p, channels)

  def _blocks(self, h: jax.Array, condition: jax.Array) -> jax.Array:
    settings = (self.num_heads, int(self.width * self.mlp_ratio), self.dtype)
    if not self.scan_blocks:
      block = rematerialised(DiTBlock, self.remat)
      for i in range(self.depth):
        h = block(*settings, name=f"block_{i}")(h, condition)
      return h
    # A scan prevents merging across iterations, so remat needs no barrier inside it.
    block = nn.remat(DiTBlock, prevent_cse=False) if self.remat == "blocks" else DiTBlock
    scan = nn.scan(
      lambda module, h, condition: (module(h, condition), None),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=self.depth,
    )
    return scan(block(*settings, name="blocks"), h, condition)[0]

  def _check(
    self, x: jax.Array, t: jax.Array, labels: jax.Array | None, tokens: jax.Array | None
  ) -> None:
    shape = (self.input_size, self.input_size, self.in_channels)
    if x.shape[1:] != shape:
      raise ValueError(f"This DiT takes maps (b, {str(shape)[1:]}, not {x.shape}.")
    if self.input_size % self.patch_size or self.width % self.num_heads:
      raise ValueError(
        f"patch_size={self.patch_size} must divide input_size={self.input_size}, and "
        f"num_heads={self.num_heads} must divide width={self.width}."
      )
    if (labels is not None) != (self.num_classes > 0):
      raise ValueError(
        f"num_classes={self.num_classes}, but labels are "
        f"{'missing' if labels is None else 'given'}: pass labels exactly where it is above 0 "
        "(index num_classes is the null class)."
      )
    if (tokens is not None) != (self.context_dim > 0):
      raise ValueError(
        f"context_dim={self.context_dim}, but tokens are "
        f"{'missing' if tokens is None else 'given'}: pass tokens exactly where it is above 0."
      )
    b = len(x)
    chex.assert_shape(t, (b,))
    if labels is not None:
      chex.assert_shape(labels, (b,))
      chex.assert_type(labels, int)
    if tokens is not None:
      chex.assert_shape(tokens, (b,) if self.prompt_tokens else (b, None, self.context_dim))
