"""Maps names of DiT's release, and of GLOBER's variant with text tokens, to our parameter tree."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from videodiff_jax.models.dit import position_table
from videodiff_jax.pretrained.files.state_dict import Rules, State, convert
from videodiff_jax.pretrained.files.tensor_files import Tensor

POSITIONS = "pos_embed"  # fixed, not trained
_LABELS = "y_embedder.embedding_table.weight"

DIT: Rules = (
  (r"^x_embedder\.proj", "patch"),
  (r"^t_embedder\.mlp\.0", "time_embed.linear_in"),
  (r"^t_embedder\.mlp\.2", "time_embed.linear_out"),
  (r"^c_embedder", "token_embed"),
  (r"^y_embedder\.embedding_table", "label_embed"),
  (r"^final_layer\.adaLN_modulation\.1", "final_modulation"),
  (r"^final_layer\.linear", "final_out"),
  (r"^blocks\.(\d+)", r"block_\1"),
  (r"\battn\.qkv\b", "qkv"),
  (r"\battn\.proj\b", "out"),
  (r"\bmlp\.fc1\b", "mlp_in"),
  (r"\bmlp\.fc2\b", "mlp_out"),
  (r"\badaLN_modulation\.1\b", "modulation"),
)


def check_positions(stored: np.ndarray) -> None:
  """Checks that a stored position table (1, n, d) equals the one that we compute.

  Raises:
    ValueError: it does not.
  """
  table = position_table(math.isqrt(stored.shape[1]), stored.shape[2])
  if stored.shape[1:] != table.shape or not np.allclose(stored[0], table, atol=1e-3):
    raise ValueError(
      "pos_embed is not the fixed sinusoid of a square grid, the only table supported here."
    )


def dit_params(state: State, shapes: Mapping[str, Any]) -> dict[str, Any]:
  """Converts parameters of an unrolled `models.dit.DiT`; `stack_blocks` makes the scanned form.

  Raises:
    ValueError: as `convert`, or the stored position table differs from the one that we compute.
  """
  state = dict(state)
  if POSITIONS in state:
    check_positions(state.pop(POSITIONS))
  if _LABELS in state and "label_embed" in shapes:
    classes, width = state[_LABELS].shape
    if shapes["label_embed"]["embedding"].shape == (classes + 1, width):
      # A model trained without condition dropout has no null class; ours is zero.
      state[_LABELS] = np.concatenate([state[_LABELS], np.zeros((1, width), np.float32)])
  return convert(state, DIT, shapes)


def stack_blocks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Stacks the tensors of an unrolled DiT for `scan_blocks=True`."""
  rest: dict[str, Tensor] = {}
  layers: dict[str, dict[int, Tensor]] = {}
  for path, tensor in tensors.items():
    if match := re.fullmatch(r"block_(\d+)\.(.+)", path):
      layers.setdefault(match[2], {})[int(match[1])] = tensor
    else:
      rest[path] = tensor

  def stack(parts: Mapping[int, Tensor]) -> Tensor:
    shape, dtype = (len(parts), *parts[0].shape), parts[0].dtype
    return Tensor(shape, dtype, lambda: np.stack([parts[i].load() for i in range(len(parts))]))

  return rest | {f"blocks.{path}": stack(parts) for path, parts in layers.items()}
