"""Names of GLOBER's March-2023 modules (the paper's revision) in our parameter trees."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from videodiff_jax.pretrained.files.state_dict import Rules, State, convert
from videodiff_jax.pretrained.names.stable_diffusion import RES_BLOCK

_TRUNK: Rules = (
  (r"^input_blocks\.0\.(?=weight|bias)", "down_0_conv."),
  (r"^input_blocks\.(\d+)\.0\.op", r"down_\1_conv"),
  (r"^input_blocks\.(\d+)\.0", r"down_\1_res"),
  *RES_BLOCK,
  (r"\bproj_out\b", "out"),
)

_ENCODER: Rules = (
  *_TRUNK,
  (r"^input_blocks\.(\d+)\.1", r"down_\1_spatial"),
  (r"^input_blocks\.(\d+)\.2", r"down_\1_temporal"),
  (r"^out_vc\.0", "head_conv"),
  (r"^out_vc\.1", "head_norm"),
  (r"^out_vc\.3", "head_out"),
  (r"^video_content$", "token"),
)

_CONTROL: Rules = (
  (r"^index_embed\.0", "time_embed.linear_in"),
  (r"^index_embed\.2", "time_embed.linear_out"),
  (r"^output_blocks\.(\d+)\.0", r"down_\1_res"),
  (r"^output_blocks\.(\d+)\.1\.0", r"down_\1_out"),
  *RES_BLOCK,
)

_DISCRIMINATOR: Rules = (
  *_TRUNK,
  (r"^input_blocks\.(\d+)\.1", r"down_\1_joint"),
  (r"^out\.0", "head_conv"),
  (r"^out\.1", "head_norm"),
  (r"^out\.5", "head_out"),
  (r"^frame_embed$", "positions"),
)


def _is_control(name: str) -> bool:
  return name.startswith(("index_embed.", "output_blocks."))


def encoder_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of `models.video_encoder.VideoEncoder` from a whole `VideoContentEnc`.

  That module also holds the control branch, which `control_params` reads.
  """
  state = {name: value for name, value in state.items() if not _is_control(name)}
  if "video_content" in state:  # (c, h, w)
    state["video_content"] = np.moveaxis(state["video_content"], 0, -1)
  return convert(state, _ENCODER, shapes)


def control_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of `models.frame_control.FrameControl` from a whole `VideoContentEnc`.

  It controls the UNet's 'down' blocks only.
  """
  return convert({k: v for k, v in state.items() if _is_control(k)}, _CONTROL, shapes)


def discriminator_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of `models.discriminator.PairDiscriminator`."""
  state = dict(state)
  if "frame_embed" in state:  # (1, c, 2, h, w)
    state["frame_embed"] = np.moveaxis(state["frame_embed"][0], 0, -1)
  return convert(state, _DISCRIMINATOR, shapes)
