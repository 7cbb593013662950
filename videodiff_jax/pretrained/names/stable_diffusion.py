"""Maps names of Stable Diffusion v1's UNet and KL-VAE (CompVis layout) to our parameter trees."""

from collections.abc import Mapping
from typing import Any

from videodiff_jax.pretrained.files.state_dict import Rules, State, convert

RES_BLOCK: Rules = (
  (r"\bin_layers\.0\b", "norm_in"),
  (r"\bin_layers\.2\b", "conv_in"),
  (r"\bemb_layers\.1\b", "embed"),
  (r"\bout_layers\.0\b", "norm_out"),
  (r"\bout_layers\.3\b", "conv_out"),
  (r"\bskip_connection\b", "skip"),
)

TRANSFORMER: Rules = (
  (r"\btransformer_blocks\.(\d+)", r"block_\1"),
  (r"\battn1\b", "self_attention"),
  (r"\battn2\b", "cross_attention"),
  (r"\bto_q\b", "query"),
  (r"\bto_k\b", "key"),
  (r"\bto_v\b", "value"),
  (r"\bto_out\.0\b", "out"),
  (r"_attention\.(block_\d+)\.norm1\b", r"_attention.\1.norm_self"),
  (r"_attention\.(block_\d+)\.norm2\b", r"_attention.\1.norm_cross"),
  (r"_attention\.(block_\d+)\.norm3\b", r"_attention.\1.norm_feed"),
  (r"\bff\.net\.0\.proj\b", "feed_in"),
  (r"\bff\.net\.2\b", "feed_out"),
)

UNET: Rules = (
  (r"^time_embed\.0", "time_embed.linear_in"),
  (r"^time_embed\.2", "time_embed.linear_out"),
  (r"^input_blocks\.0\.0", "down_0_conv"),
  (r"^input_blocks\.(\d+)\.0\.op", r"down_\1_conv"),
  (r"^input_blocks\.(\d+)\.0", r"down_\1_res"),
  (r"^input_blocks\.(\d+)\.1", r"down_\1_attention"),
  (r"^middle_block\.0", "middle_res_0"),
  (r"^middle_block\.1", "middle_attention"),
  (r"^middle_block\.2", "middle_res_1"),
  # The upsampling is the block's second part, or its third where it has attention.
  (r"^output_blocks\.(\d+)\.[12]\.conv", r"up_\1_conv"),
  (r"^output_blocks\.(\d+)\.0", r"up_\1_res"),
  (r"^output_blocks\.(\d+)\.1", r"up_\1_attention"),
  (r"^out\.0", "norm_out"),
  (r"^out\.2", "conv_out"),
  *RES_BLOCK,
  *TRANSFORMER,
)

VAE_BLOCK: Rules = (
  (r"\bnorm1\b", "norm_in"),
  (r"\bconv1\b", "conv_in"),
  (r"\bnorm2\b", "norm_out"),
  (r"\bconv2\b", "conv_out"),
  (r"\b(?:nin|conv)_shortcut\b", "skip"),
)

KL_VAE: Rules = (
  (r"^quant_conv", "to_moments"),
  (r"^post_quant_conv", "from_code"),
  (r"\b(?:down|up)\.(\d+)\.block\.(\d+)", r"level_\1_block_\2"),
  (r"\b(?:down|up)\.(\d+)\.attn\.(\d+)", r"level_\1_attention_\2"),
  (r"\bdown\.(\d+)\.downsample\.conv", r"level_\1_down"),
  (r"\bup\.(\d+)\.upsample\.conv", r"level_\1_up"),
  (r"\bmid\.block_1", "middle_block_0"),
  (r"\bmid\.attn_1", "middle_attention"),
  (r"\bmid\.block_2", "middle_block_1"),
  *VAE_BLOCK,
  (r"\bq\b", "query"),
  (r"\bk\b", "key"),
  (r"\bv\b", "value"),
  (r"\bproj_out\b", "out"),
)


def unet_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts parameters of `models.unet.UNet`, named as below `model.diffusion_model.`."""
  return convert(state, UNET, shapes)


def kl_vae_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts parameters of `models.kl_vae.KLVAE`, named as below `first_stage_model.`."""
  return convert(state, KL_VAE, shapes)
