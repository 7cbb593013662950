"""Names and shapes of Stable Diffusion v1's tensors as CompVis's modules make them.

Written from the structure of those modules, not from our rules; full size by default.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from videodiff_jax.models.dit import position_table

Shapes = dict[str, tuple[int, ...]]
State = dict[str, np.ndarray]


def _layer(name: str, *shape: int, bias: bool = True) -> Shapes:
  return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def _join(parts: Iterator[Shapes]) -> Shapes:
  return {name: shape for part in parts for name, shape in part.items()}


def _res(name: str, c_in: int, c_out: int, time: int) -> Shapes:
  return {
    **_layer(f"{name}.in_layers.0", c_in),
    **_layer(f"{name}.in_layers.2", c_out, c_in, 3, 3),
    **_layer(f"{name}.emb_layers.1", c_out, time),
    **_layer(f"{name}.out_layers.0", c_out),
    **_layer(f"{name}.out_layers.3", c_out, c_out, 3, 3),
    **(_layer(f"{name}.skip_connection", c_out, c_in, 1, 1) if c_in != c_out else {}),
  }


def _transformer(name: str, c: int, context: int) -> Shapes:
  block = f"{name}.transformer_blocks.0"
  attention: Shapes = {}
  for number, width in ((1, c), (2, context)):
    attention |= _layer(f"{block}.attn{number}.to_q", c, c, bias=False)
    attention |= _layer(f"{block}.attn{number}.to_k", c, width, bias=False)
    attention |= _layer(f"{block}.attn{number}.to_v", c, width, bias=False)
    attention |= _layer(f"{block}.attn{number}.to_out.0", c, c)
  return {
    **_layer(f"{name}.norm", c),
    **_layer(f"{name}.proj_in", c, c, 1, 1),
    **attention,
    **_layer(f"{block}.ff.net.0.proj", 8 * c, c),
    **_layer(f"{block}.ff.net.2", c, 4 * c),
    **_join(_layer(f"{block}.norm{i}", c) for i in (1, 2, 3)),
    **_layer(f"{name}.proj_out", c, c, 1, 1),
  }


def unet(
  channels: int = 320,
  multipliers: Sequence[int] = (1, 2, 4, 4),
  blocks: int = 2,
  rates: Sequence[int] = (1, 2, 4),
  context: int = 768,
  latent: int = 4,
) -> Shapes:
  time, c = 4 * channels, channels
  shapes = _layer("time_embed.0", time, c) | _layer("time_embed.2", time, time)
  shapes |= _layer("input_blocks.0.0", c, latent, 3, 3)
  number, skips = 1, [c]
  for level, multiplier in enumerate(multipliers):
    for _ in range(blocks):
      shapes |= _res(f"input_blocks.{number}.0", c, channels * multiplier, time)
      c = channels * multiplier
      if 2**level in rates:
        shapes |= _transformer(f"input_blocks.{number}.1", c, context)
      skips.append(c)
      number += 1
    if level < len(multipliers) - 1:
      shapes |= _layer(f"input_blocks.{number}.0.op", c, c, 3, 3)
      skips.append(c)
      number += 1
  shapes |= _res("middle_block.0", c, c, time) | _transformer("middle_block.1", c, context)
  shapes |= _res("middle_block.2", c, c, time)
  number = 0
  for level in reversed(range(len(multipliers))):
    for i in range(blocks + 1):
      shapes |= _res(
        f"output_blocks.{number}.0", c + skips.pop(), channels * multipliers[level], time
      )
      c = channels * multipliers[level]
      if attends := 2**level in rates:
        shapes |= _transformer(f"output_blocks.{number}.1", c, context)
      if level > 0 and i == blocks:
        shapes |= _layer(f"output_blocks.{number}.{2 if attends else 1}.conv", c, c, 3, 3)
      number += 1
  return shapes | _layer("out.0", c) | _layer("out.2", latent, c, 3, 3)


def _vae_res(name: str, c_in: int, c_out: int) -> Shapes:
  return {
    **_layer(f"{name}.norm1", c_in),
    **_layer(f"{name}.conv1", c_out, c_in, 3, 3),
    **_layer(f"{name}.norm2", c_out),
    **_layer(f"{name}.conv2", c_out, c_out, 3, 3),
    **(_layer(f"{name}.nin_shortcut", c_out, c_in, 1, 1) if c_in != c_out else {}),
  }


def _vae_middle(name: str, c: int) -> Shapes:
  shapes = _vae_res(f"{name}.block_1", c, c) | _vae_res(f"{name}.block_2", c, c)
  shapes |= _layer(f"{name}.attn_1.norm", c)
  return shapes | _join(
    _layer(f"{name}.attn_1.{part}", c, c, 1, 1) for part in ("q", "k", "v", "proj_out")
  )


def kl_vae(
  channels: int = 128,
  multipliers: Sequence[int] = (1, 2, 4, 4),
  blocks: int = 2,
  latent: int = 4,
  image: int = 3,
) -> Shapes:
  c, last = channels, len(multipliers) - 1
  shapes = _layer("encoder.conv_in", c, image, 3, 3)
  for level, multiplier in enumerate(multipliers):
    for i in range(blocks):
      shapes |= _vae_res(f"encoder.down.{level}.block.{i}", c, channels * multiplier)
      c = channels * multiplier
    if level < last:
      shapes |= _layer(f"encoder.down.{level}.downsample.conv", c, c, 3, 3)
  shapes |= _vae_middle("encoder.mid", c) | _layer("encoder.norm_out", c)
  shapes |= _layer("encoder.conv_out", 2 * latent, c, 3, 3)
  shapes |= _layer("decoder.conv_in", c, latent, 3, 3) | _vae_middle("decoder.mid", c)
  for level in reversed(range(len(multipliers))):
    for i in range(blocks + 1):
      shapes |= _vae_res(f"decoder.up.{level}.block.{i}", c, channels * multipliers[level])
      c = channels * multipliers[level]
    if level > 0:
      shapes |= _layer(f"decoder.up.{level}.upsample.conv", c, c, 3, 3)
  shapes |= _layer("decoder.norm_out", c) | _layer("decoder.conv_out", image, c, 3, 3)
  shapes |= _layer("quant_conv", 2 * latent, 2 * latent, 1, 1)
  return shapes | _layer("post_quant_conv", latent, latent, 1, 1)


def clip_text(
  vocabulary: int = 49_408, length: int = 77, width: int = 768, depth: int = 12
) -> Shapes:
  """Names of transformers' CLIPTextModel below `text_model.`; ViT-L/14's by default."""
  shapes = {
    "embeddings.token_embedding.weight": (vocabulary, width),
    "embeddings.position_embedding.weight": (length, width),
    **_layer("final_layer_norm", width),
  }
  for i in range(depth):
    at = f"encoder.layers.{i}"
    shapes |= _join(_layer(f"{at}.{norm}", width) for norm in ("layer_norm1", "layer_norm2"))
    shapes |= _join(
      _layer(f"{at}.self_attn.{part}_proj", width, width) for part in ("q", "k", "v", "out")
    )
    shapes |= _layer(f"{at}.mlp.fc1", 4 * width, width) | _layer(f"{at}.mlp.fc2", width, 4 * width)
  return shapes


def dit(
  width: int = 1152,
  depth: int = 28,
  patch: int = 2,
  channels: int = 4,
  side: int = 32,
  classes: int = 1000,
) -> Shapes:
  """Names of facebook's DiT, XL/2 by default; its table holds a null class, too."""
  shapes = {"pos_embed": (1, (side // patch) ** 2, width)}
  shapes |= _layer("x_embedder.proj", width, channels, patch, patch)
  shapes |= _layer("t_embedder.mlp.0", width, 256) | _layer("t_embedder.mlp.2", width, width)
  shapes["y_embedder.embedding_table.weight"] = (classes + 1, width)
  for i in range(depth):
    shapes |= _layer(f"blocks.{i}.attn.qkv", 3 * width, width)
    shapes |= _layer(f"blocks.{i}.attn.proj", width, width)
    shapes |= _layer(f"blocks.{i}.mlp.fc1", 4 * width, width)
    shapes |= _layer(f"blocks.{i}.mlp.fc2", width, 4 * width)
    shapes |= _layer(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
  shapes |= _layer("final_layer.linear", patch**2 * 2 * channels, width)
  return shapes | _layer("final_layer.adaLN_modulation.1", 2 * width, width)


def filled(shapes: Shapes, prefix: str = "", seed: int = 0, dtype: type = np.float32) -> State:
  """Random tensors of those names."""
  rng = np.random.default_rng(seed)
  state = {
    prefix + name: (0.1 * rng.standard_normal(shape)).astype(dtype)
    for name, shape in shapes.items()
  }
  if "pos_embed" in state:  # a DiT's, which is fixed
    _, count, width = state["pos_embed"].shape
    state["pos_embed"] = position_table(math.isqrt(count), width)[None]
  return state


def schedule() -> State:
  """Beside the weights in CompVis's files."""
  names = (
    "betas",
    "alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
  )
  return {name: np.linspace(0, 1, 10, dtype=np.float32) for name in names}
