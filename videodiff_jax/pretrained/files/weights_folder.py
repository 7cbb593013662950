"""Folders of converted weights: one safetensors file per network, and a manifest of their origin.

Tensors keep the source's numbers and types, in our names and layout. The manifest keeps the
source's names and shapes, so that `export` restores the source bit for bit.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from videodiff_jax import text_files
from videodiff_jax.pretrained.files import tensor_files
from videodiff_jax.pretrained.files.state_dict import Placed, stored
from videodiff_jax.pretrained.files.tensor_files import Tensors

_MANIFEST = "manifest.json"
_ASIDE = "aside"  # tensors that are no parameters, such as a schedule's
# The stems of weight files in a pipeline's subfolders, as their libraries name them.
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


def write(
  folder: pathlib.Path,
  networks: Mapping[str, Mapping[str, Placed]],
  aside: Tensors,
  meta: dict[str, Any],
) -> None:
  """Makes and fills a new folder.

  Args:
    folder: the folder to make.
    networks: each network's tensors by our path.
    aside: other tensors, which `export` writes back.
    meta: JSON to keep in the manifest; 'allow' lists patterns of tensors that may be missing.
  """
  folder.mkdir()
  for name, placed in networks.items():
    tensors = {path: one.tensor for path, one in placed.items()}
    tensor_files.write(file_of(folder, name), tensors)
  if aside:
    tensor_files.write(file_of(folder, _ASIDE), aside)
  origin = {
    name: {path: [one.name, one.stored_shape] for path, one in placed.items()}
    for name, placed in networks.items()
  }
  manifest = meta | {"networks": origin}
  (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def is_weights_folder(path: pathlib.Path) -> bool:
  """Tells whether `write` made this folder."""
  return (path / _MANIFEST).is_file()


def check(folder: pathlib.Path) -> None:
  """Checks that a folder is ours, and that its tensors are those of its manifest.

  Raises:
    ValueError: it is not.
  """
  for name in _manifest(folder)["networks"]:
    network(folder, name)


def file_of(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of a network's tensors."""
  return folder / f"{name}.safetensors"


def network(folder: pathlib.Path, name: str) -> tuple[dict[str, Placed], tuple[str, ...]]:
  """Returns a network's tensors by our path, and the patterns of tensors that may be missing.

  Raises:
    ValueError: the folder lacks the network, or is damaged.
  """
  manifest = _manifest(folder)
  if name not in manifest["networks"]:
    there = ", ".join(manifest["networks"])
    raise ValueError(f"{folder} holds weights of {there}, not of {name}.")
  tensors = _tensors(folder, name)
  origin = manifest["networks"][name]
  if origin.keys() != tensors.keys():
    raise ValueError(f"{folder} is damaged: its manifest and {name}.safetensors do not agree.")
  placed = {
    path: Placed(their_name, tuple(shape), tensors[path])
    for path, (their_name, shape) in origin.items()
  }
  return placed, tuple(manifest.get("allow", ()))


def export(folder: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
  """Writes the source again as safetensors, with its own names.

  Args:
    folder: a folder that `write` made.
    out: the file to make, or the folder if the source had one subfolder per network.

  Returns:
    The files written.

  Raises:
    ValueError: `folder` was not made by `write`, or is damaged.
  """
  tensors = _tensors(folder, _ASIDE) if file_of(folder, _ASIDE).is_file() else {}
  for name in _manifest(folder)["networks"]:
    for path, one in network(folder, name)[0].items():
      tensors[one.name] = stored(path, one.tensor, one.stored_shape)
  groups: dict[str, Tensors] = {}
  for key, tensor in tensors.items():
    subfolder, _, name = key.rpartition("/")
    groups.setdefault(subfolder, {})[name] = tensor
  if groups.keys() == {""}:
    tensor_files.write(out, tensors)
    return [out]
  files = []
  for subfolder, group in groups.items():
    (out / subfolder).mkdir(parents=True)
    files.append(out / subfolder / f"{_STEMS.get(subfolder, 'model')}.safetensors")
    tensor_files.write(files[-1], group)
  return files


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
  try:
    manifest = text_files.read_json(folder / _MANIFEST)
    manifest["networks"].values()
  except FileNotFoundError as error:
    raise ValueError(f"{folder} holds no converted weights: it has no {_MANIFEST}.") from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{folder / _MANIFEST} is damaged.") from error
  return manifest


def _tensors(folder: pathlib.Path, name: str) -> Tensors:
  return tensor_files.read(file_of(folder, name)).tensors
