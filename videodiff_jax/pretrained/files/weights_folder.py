"""Weights of ours on disk: one safetensors file a network, and a manifest of where they come from.

Tensors keep the source's numbers and types, in our names and layout. With the names and shapes
they had, which the manifest keeps, `export` gives the source back bit for bit.
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
_ASIDE = "aside"  # what is no parameter of a network: a schedule's numbers
# Of a pipeline's subfolders, as their libraries call them.
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


def write(
  folder: pathlib.Path,
  networks: Mapping[str, Mapping[str, Placed]],
  aside: Tensors,
  meta: dict[str, Any],
) -> None:
  """Fills a folder that is not there yet.

  Args:
    folder: to make.
    networks: tensors by our path.
    aside: others, which `export` gives back.
    meta: JSON to keep; 'allow' lists patterns of what is missing by permission.
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
  """Whether `write` made this folder."""
  return (path / _MANIFEST).is_file()


def check(folder: pathlib.Path) -> None:
  """Raises ValueError where a folder is none of ours, or its tensors are not those it tells of."""
  for name in _manifest(folder)["networks"]:
    network(folder, name)


def file_of(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Where a network's tensors are."""
  return folder / f"{name}.safetensors"


def network(folder: pathlib.Path, name: str) -> tuple[dict[str, Placed], tuple[str, ...]]:
  """A network's tensors by our path, and the patterns of what may be missing.

  Raises:
    ValueError: it is not there, or the folder is damaged.
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
  """Writes the source again as safetensors, in its own names.

  Args:
    folder: made by `write`.
    out: a file to make; a folder where the source was one with a subfolder a network.

  Returns:
    The files written.

  Raises:
    ValueError: `folder` is none of ours, or damaged.
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
    raise ValueError(f"{folder} is no folder of converted weights: no {_MANIFEST}.") from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{folder / _MANIFEST} is damaged.") from error
  return manifest


def _tensors(folder: pathlib.Path, name: str) -> Tensors:
  return tensor_files.read(file_of(folder, name)).tensors
