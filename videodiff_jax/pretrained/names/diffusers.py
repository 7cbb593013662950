"""Maps names of diffusers' UNet2DConditionModel and AutoencoderKL to our parameter trees."""

import itertools
import re
from collections.abc import Collection

from videodiff_jax.pretrained.files.state_dict import Rules
from videodiff_jax.pretrained.names.stable_diffusion import TRANSFORMER, VAE_BLOCK


def unet(names: Collection[str]) -> Rules:
  """Returns the rules for a UNet2DConditionModel, which numbers blocks within each level.

  Args:
    names: all names in the source; they give the number of blocks of each level.
  """
  # Our numbers run through: the first convolution, then each level's blocks and its resampling.
  per_level = _counts(names, "down_blocks")
  down = list(itertools.accumulate((count + 1 for count in per_level), initial=1))
  up = list(itertools.accumulate(_counts(names, "up_blocks"), initial=0))

  def block(match: re.Match) -> str:
    side, level, kind, index = match.groups()
    number = (down if side == "down" else up)[int(level)] + int(index)
    return f"{side}_{number}_{'res' if kind == 'resnets' else 'attention'}"

  def resampling(match: re.Match) -> str:
    side, level = match.groups()
    return f"{side}_{(down if side == 'down' else up)[int(level) + 1] - 1}_conv"

  return (
    (r"^time_embedding\.linear_1", "time_embed.linear_in"),
    (r"^time_embedding\.linear_2", "time_embed.linear_out"),
    (r"^conv_in\b", "down_0_conv"),
    (r"^conv_norm_out\b", "norm_out"),
    (r"^(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", block),
    (r"^(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv", resampling),
    (r"^mid_block\.resnets\.(\d)", r"middle_res_\1"),
    (r"^mid_block\.attentions\.0", "middle_attention"),
    (r"\btime_emb_proj\b", "embed"),
    *((rf"^(\w+_res(?:_\d)?\.){theirs}", rf"\1{ours}") for theirs, ours in VAE_BLOCK),
    *TRANSFORMER,
  )


def kl_vae(names: Collection[str]) -> Rules:
  """Returns the rules for an AutoencoderKL, with the old and the new names of its attention.

  Args:
    names: all names in the source; they give the number of levels, as its decoder counts down.
  """
  last = len(_counts(names, r"encoder\.down_blocks")) - 1

  def level(match: re.Match) -> str:
    side, number, kind, index = match.groups()
    name = f"level_{int(number) if side == 'down' else last - int(number)}"
    if kind.endswith("samplers"):
      return f"{name}_{side}"
    return f"{name}_{'block' if kind == 'resnets' else 'attention'}_{index}"

  return (
    (r"^quant_conv", "to_moments"),
    (r"^post_quant_conv", "from_code"),
    (r"\b(down|up)_blocks\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)(?:\.conv\b)?", level),
    (r"\bmid_block\.resnets\.(\d)", r"middle_block_\1"),
    (r"\bmid_block\.attentions\.0", "middle_attention"),
    (r"\bconv_norm_out\b", "norm_out"),
    *VAE_BLOCK,
    (r"\bgroup_norm\b", "norm"),
    (r"\bto_q\b", "query"),
    (r"\bto_k\b", "key"),
    (r"\bto_v\b", "value"),
    (r"\b(?:to_out\.0|proj_attn)\b", "out"),
  )


def _counts(names: Collection[str], blocks: str) -> list[int]:
  """Counts the residual blocks of each level."""
  pattern = re.compile(rf"{blocks}\.(\d+)\.resnets\.(\d+)\.")
  found = {match.groups() for name in names if (match := pattern.match(name))}
  levels = [int(level) for level, _ in found]
  return [levels.count(level) for level in range(max(levels, default=-1) + 1)]
