"""Loads CLIP's text tower from any file that holds its weights."""

import hashlib
import pathlib
from typing import Any, get_args

import numpy as np
from flax import traverse_util

from videodiff_jax import copies, text_files, typed
from videodiff_jax.models.text_encoder import Activation, CLIPText
from videodiff_jax.pretrained import architectures, sources
from videodiff_jax.pretrained.names import clip

CONFIG = "config.json"  # transformers' settings, beside the weights


def load_text(path: str | pathlib.Path) -> tuple[CLIPText, dict[str, Any], str]:
  """Loads CLIP's text tower, its float32 parameters and its files' sha256.

  Sizes come from the tensors. The activation comes from config.json; without one it is quick-GELU
  (OpenAI's).

  Args:
    path: a file of a CLIP text model, of a whole CLIP or of Stable Diffusion v1; a folder with such
      a file or with a subfolder text_encoder; or a folder that pretrained/convert.py made.

  Raises:
    FileNotFoundError: as `tensor_files.read`.
    ImportError: as `tensor_files.read`.
    ValueError: the file is damaged, or holds no CLIP text tower.
  """
  path = copies.local(typed.path(path, "config.init.text_encoder"))
  found = sources.find("text_encoder", path)
  model = clip.architecture(found.shapes, activation(path))
  fit = sources.fit(found, architectures.shapes(model))
  arrays = {key: np.asarray(one.tensor.load(), np.float32) for key, one in fit.placed.items()}
  return model, traverse_util.unflatten_dict(arrays, sep="."), _digest(found.files)


def activation(path: pathlib.Path) -> Activation:
  """Reads the activation from a folder's config.json, or its text_encoder's; else quick-GELU."""
  for file in (path / CONFIG, path / "text_encoder" / CONFIG):
    if file.is_file():
      settings = text_files.read_json(file)
      settings = settings.get("text_config", settings)
      known = get_args(Activation)
      found = settings.get("hidden_act", "quick_gelu") if isinstance(settings, dict) else settings
      if found not in known:
        raise ValueError(
          f"{file} says that hidden_act is {found!r}; known are {' and '.join(known)}."
        )
      return found
  return "quick_gelu"


def _digest(files: tuple[pathlib.Path, ...]) -> str:
  digests = []
  for path in files:
    with path.open("rb") as file:
      digests.append(hashlib.file_digest(file, "sha256"))
  if len(digests) == 1:
    return digests[0].hexdigest()
  return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
