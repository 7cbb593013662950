"""A finished run's weights as a folder that ships: read as its workdir is, and never written to.

FOLDER/
  config.json               of the run, without paths of the machine it was trained on.
  export.json               the manifest: each stage's step, and its file's size and SHA-256.
  STAGE/weights.safetensors 'ema_params/...' in bfloat16, 'statistics/...' in float32.
  text.npz                  where text is encoded: the empty prompt's tokens.
Whatever else a workdir has (metrics, evaluations, samples) may lie there too, for people to see.
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from videodiff_jax import text_files
from videodiff_jax.pretrained.files import tensor_files
from videodiff_jax.training import checksums, hosts
from videodiff_jax.training.checkpoints import CheckpointError

_MANIFEST = "export.json"
_WEIGHTS = "weights.safetensors"
_ROUNDED = "ema_params"  # to bfloat16


def is_one(folder: pathlib.Path | str) -> bool:
  """Whether a folder is an exported one; a half-made one has no manifest."""
  return (pathlib.Path(folder) / _MANIFEST).is_file()


def manifest(folder: pathlib.Path | str) -> dict[str, Any]:
  """What export.json says: 'stages' (name -> 'step', 'bytes', 'sha256') and 'code'.

  Raises:
    CheckpointError: it is not as it was written.
  """
  file = pathlib.Path(folder) / _MANIFEST
  try:
    found = text_files.read_json(file)
    for entry in found["stages"].values():
      int(entry["step"]), str(entry["sha256"])
  except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    raise CheckpointError(f"{file} is damaged ({error!r}). Fetch the folder again.") from error
  return found


def write_manifest(folder: pathlib.Path, stages: dict[str, dict[str, Any]], code: str) -> None:
  """Makes the folder an exported one; the last thing that is written to it."""
  text = json.dumps({"code": code, "stages": stages}, indent=1)
  (folder / _MANIFEST).write_text(text + "\n")


def write(folder: pathlib.Path, name: str, step: int, ema: dict[str, Any]) -> dict[str, Any]:
  """A stage's file.

  Args:
    folder: to write into.
    name: of the stage.
    step: of its checkpoint.
    ema: {'ema_params', 'statistics'}, as of `workdir.load_ema`.

  Returns:
    Its entry in the manifest.
  """
  tensors = {}
  for path, value in _flat(ema).items():
    array = np.asarray(value, np.float32)
    rounded = path.startswith(f"{_ROUNDED}/")
    tensors[path] = tensor_files.held(array.astype(jnp.bfloat16) if rounded else array)
  file = folder / name / _WEIGHTS
  file.parent.mkdir(exist_ok=True)
  tensor_files.write(file, tensors)
  return {"step": step, "bytes": file.stat().st_size, "sha256": checksums.sha256(file)}


def read(folder: pathlib.Path, name: str, target: dict[str, Any]) -> dict[str, Any]:
  """A stage's {'ema_params', 'statistics'}, float32, placed as `target` says.

  Args:
    folder: an exported one.
    name: of the stage.
    target: both, as ShapeDtypeStructs with shardings.

  Raises:
    CheckpointError: no such stage, damaged, or of other networks than the target's.
  """
  return hosts.everywhere(lambda: _read(pathlib.Path(folder), name, target))


def _read(folder: pathlib.Path, name: str, target: dict[str, Any]) -> dict[str, Any]:
  stages = manifest(folder)["stages"]
  if name not in stages:
    raise CheckpointError(f"{folder} holds no stage {name!r}; it has {', '.join(stages)}.")
  file = folder / name / _WEIGHTS
  if not file.is_file() or checksums.sha256(file) != stages[name]["sha256"]:
    raise CheckpointError(
      f"{file} is missing, or not as it was exported (its SHA-256 differs from export.json's). "
      "Fetch the folder again."
    )
  tensors, wanted = tensor_files.read(file).tensors, _flat(target)
  there = {path: tensor.shape for path, tensor in tensors.items()}
  if wrong := sorted({*there.items()} ^ {(path, x.shape) for path, x in wanted.items()}):
    raise CheckpointError(
      f"{file} does not fit this configuration's networks, for example {wrong[0][0]} of shape "
      f"{wrong[0][1]}. Use the config.json beside it."
    )
  placed = {}
  for path, x in wanted.items():
    array = tensors[path].load().astype(x.dtype)
    placed[path] = jax.make_array_from_callback(x.shape, x.sharding, array.__getitem__)
  # What has no tensors, as the statistics of the KL-VAE, leaves no trace in the file.
  return {key: {} for key in target} | traverse_util.unflatten_dict(placed, sep="/")


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep="/")
