"""Exported folders: a finished run's weights to ship, read like a workdir and never written to.

FOLDER/
  config.json               the run's configuration, without paths of the training machine.
  export.json               the manifest: each stage's step, and its file's size and SHA-256.
  STAGE/weights.safetensors 'ema_params/...' in bfloat16, 'statistics/...' in float32.
  text.npz                  the empty prompt's tokens, if the run encodes text.
Other parts of a workdir (metrics, evaluations, samples) may lie there too, for people to read.
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from videodiff_jax import copies, storage, text_files
from videodiff_jax.pretrained.files import tensor_files
from videodiff_jax.training import checksums, hosts
from videodiff_jax.training.checkpoints import CheckpointError

MANIFEST = "export.json"
_WEIGHTS = "weights.safetensors"
_ROUNDED = "ema_params"  # this part is rounded to bfloat16


def is_exported(folder: pathlib.Path | str) -> bool:
  """Tells whether a folder is a complete export; an unfinished one has no manifest."""
  return (storage.path(folder) / MANIFEST).is_file()


def manifest(folder: pathlib.Path | str) -> dict[str, Any]:
  """Reads export.json: 'stages' (name -> 'step', 'bytes', 'sha256') and 'code'.

  Raises:
    CheckpointError: the file is damaged.
  """
  file = storage.path(folder) / MANIFEST
  try:
    found = text_files.read_json(file)
    for entry in found["stages"].values():
      int(entry["step"]), str(entry["sha256"])
  except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    raise CheckpointError(f"{file} is damaged ({error!r}). Fetch the folder again.") from error
  return found


def write_manifest(folder: pathlib.Path, stages: dict[str, dict[str, Any]], code: str) -> None:
  """Writes the manifest, the last file, which marks the folder as a complete export."""
  text = json.dumps({"code": code, "stages": stages}, indent=1)
  (folder / MANIFEST).write_text(text + "\n")


def write(folder: pathlib.Path, name: str, step: int, ema: dict[str, Any]) -> dict[str, Any]:
  """Writes a stage's weights.

  Args:
    folder: the folder to write to.
    name: the stage's name.
    step: the step of its checkpoint.
    ema: {'ema_params', 'statistics'}, as `workdir.load_ema` returns them.

  Returns:
    The stage's entry in the manifest.
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
  """Reads a stage's {'ema_params', 'statistics'} as float32, placed as `target` says.

  Args:
    folder: an exported folder.
    name: the stage's name.
    target: both trees as ShapeDtypeStructs with shardings.

  Raises:
    CheckpointError: there is no such stage, it is damaged, or its networks are not the target's.
  """
  return hosts.everywhere(lambda: _read(storage.path(folder), name, target))


def _read(folder: pathlib.Path, name: str, target: dict[str, Any]) -> dict[str, Any]:
  stages = manifest(folder)["stages"]
  if name not in stages:
    raise CheckpointError(f"{folder} holds no stage {name!r}; it has {', '.join(stages)}.")
  file = folder / name / _WEIGHTS
  if storage.is_remote(file) and file.is_file():
    file = copies.local(file)
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
  # The file has no entry for an empty tree, such as the KL-VAE's statistics.
  return {key: {} for key in target} | traverse_util.unflatten_dict(placed, sep="/")


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep="/")
