"""Reads LGC-VD's published checkpoints and maps their names to our parameter trees."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from videodiff_jax.pretrained.files.state_dict import Rules, State, convert
from videodiff_jax.pretrained.files.tensor_files import load_torch

# The schedule's buffers, which the run's own schedule replaces.
BUFFERS = frozenset({
  "betas",
  "alphas_cumprod",
  "alphas_cumprod_prev",
  "sqrt_alphas_cumprod",
  "sqrt_one_minus_alphas_cumprod",
  "log_one_minus_alphas_cumprod",
  "sqrt_recip_alphas_cumprod",
  "sqrt_recipm1_alphas_cumprod",
  "posterior_variance",
  "posterior_log_variance_clipped",
  "posterior_mean_coef1",
  "posterior_mean_coef2",
})  # fmt: skip
_NETWORKS = {"denoise_fn": "unet", "encoder_fn": "encoder"}

BLOCK: Rules = (
  (r"\bNIN_0\b", "query"),
  (r"\bNIN_1\b", "key"),
  (r"\bNIN_2\b", "value"),
  (r"\bNIN_3\b", "out"),
  (r"(attention(?:_\d)?|cross)\.GroupNorm_0\b", r"\1.norm"),
  (r"\bGroupNorm_0\b", "norm_in"),
  (r"\bGroupNorm_1\b", "norm_out"),
  (r"\bConv_0\b", "conv_in"),
  (r"\bConv_1\b", "conv_out"),
  (r"\bConv_2\b", "skip"),
  (r"\bDense_0\b", "embed"),
  (r"\.W$", ".weight"),
  (r"\.b$", ".bias"),
)

_NETWORK: Rules = (
  (r"^time_mlp\.1\b", "time_embed.linear_in"),
  (r"^time_mlp\.3\b", "time_embed.linear_out"),
  (r"^init_conv\b", "conv_in"),
  (r"^finial_conv\b", "conv_out"),
  (r"^midblock1\b", "middle_res_0"),
  (r"^midblock2\b", "middle_attention"),
  (r"^midblock3\b", "middle_res_1"),
  (r"^midblock4\b", "middle_cross"),
  (r"^downs\.(\d+)\.4\b", r"down_\1_conv"),
  (r"^ups\.(\d+)\.5\b", r"up_\1_conv"),
  *(
    (rf"^{theirs}\.(\d+)\.{2 * i + odd}\b", rf"{ours}_\1_{block}_{i}")
    for theirs, ours, count in (("downs", "down", 2), ("ups", "up", 3))
    for i in range(count)
    for odd, block in enumerate(("res", "attention"))
  ),
  *BLOCK,
)


def network_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts parameters of `models.lgc_unet.LGCUNet` or `SequenceEncoder`.

  Names are those below `denoise_fn.` or `encoder_fn.`. The release's UNet has attention at a
  mirrored level: it needs decoder_attention='mirrored'.
  """
  return convert(_in_torch_layout(state), _NETWORK, shapes)


def block_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts parameters of a single `StackedResBlock` or `StackedAttention`."""
  # Both kinds name their first norm alike; in ours the name before it distinguishes them.
  if "NIN_0.W" in state:
    state = {f"attention.{name}": value for name, value in state.items()}
    return convert(_in_torch_layout(state), BLOCK, {"attention": shapes})["attention"]
  return convert(state, BLOCK, shapes)


def _in_torch_layout(state: State) -> State:
  """Swaps to (out, in, ...) the kernels of NIN and of transposed convolutions, stored (in, out)."""
  swapped = re.compile(r"\.W$|^ups\.\d+\.5\.weight$")
  return {k: np.swapaxes(v, 0, 1) if swapped.search(k) else v for k, v in state.items()}


def lgcvd_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts both networks, {'unet': ..., 'encoder': ...}, of one copy of a checkpoint.

  Raises:
    ValueError: a tensor belongs to neither network nor the schedule, or as `convert`.
  """
  networks: dict[str, dict[str, np.ndarray]] = {ours: {} for ours in _NETWORKS.values()}
  strangers = []
  for name, value in state.items():
    prefix, _, rest = name.partition(".")
    if prefix in _NETWORKS and rest:
      networks[_NETWORKS[prefix]][rest] = value
    elif name not in BUFFERS:
      strangers.append(name)
  if strangers:
    raise ValueError(
      f"An LGC-VD checkpoint holds denoise_fn.*, encoder_fn.* and the schedule's buffers, not "
      f"{', '.join(strangers)}."
    )
  return {
    name: network_params(part, shapes.get(name, {}))
    for name, part in networks.items()
    if part or name in shapes
  }


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A published file's content, with arrays by PyTorch name.

  Attributes:
    step: number of training iterations.
    raw: the weights as trained ('model'), which the release uses for the encoder.
    ema: their moving average, which the release uses for the UNet.
  """

  step: int
  raw: dict[str, np.ndarray]
  ema: dict[str, np.ndarray]


def read_checkpoint(path: str | pathlib.Path) -> Checkpoint:
  """Reads a checkpoint of LGC-VD's trainer, without running any code inside it.

  Raises:
    ImportError: PyTorch, which wrote the file, is not installed.
    ValueError: the file has another layout, is damaged, or holds more than tensors.
  """
  content = load_torch(pathlib.Path(path))
  missing = {"step", "model", "ema"} - set(content if isinstance(content, dict) else ())
  if missing:
    raise ValueError(f"{path} is no LGC-VD checkpoint: it lacks {', '.join(sorted(missing))}.")
  import torch

  for copy in ("model", "ema"):
    tensors = content[copy].values() if isinstance(content[copy], dict) else [None]
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
      raise ValueError(f"{path} is no LGC-VD checkpoint: its {copy!r} is no dict of tensors.")
  raw, ema = (
    {name: np.asarray(value.float()) for name, value in content[copy].items()}
    for copy in ("model", "ema")
  )
  return Checkpoint(int(content["step"]), raw, ema)
