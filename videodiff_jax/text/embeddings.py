"""Encodes prompts as the tokens that condition the networks, once per data set.

Captions' embeddings lie in files named by a hash of the encoder, its weights, its length and the
captions. So another encoder's files are never overwritten, and a finished file is only read.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from absl import logging

from videodiff_jax import copies, text_files, typed, whole_files
from videodiff_jax.choices import check_choice
from videodiff_jax.chunks import in_chunks
from videodiff_jax.models.sentence_encoder import SentenceEncoder
from videodiff_jax.models.text_encoder import CLIPText
from videodiff_jax.pretrained import clip_text, minilm
from videodiff_jax.text import tokenizer

ENCODERS = ("clip", "minilm")
_CHUNK = 64  # prompts encoded in one call
_FILE = "text.npz"  # in a workdir


class TextEncoder:
  """A frozen text encoder with its tokenizer.

  Attributes:
    name: a name in `ENCODERS`.
    shape: (l, d), the shape of a prompt's tokens.
    fingerprint: hash of name, weights and length.
  """

  def __init__(
    self, name: str, model: Any, params: Any, tokenize: tokenizer.Tokenizer, sha256: str
  ):
    self.name, self._model, self._params, self._tokenize = name, model, params, tokenize
    self.shape = (tokenize.length, model.width)
    text = json.dumps([name, sha256, tokenize.length])
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

  def __call__(self, prompts: Sequence[str]) -> np.ndarray:
    """Encodes n prompts as last hidden states, float32 (n, l, d); '' is the null condition."""
    return in_chunks(self._encode, (self._tokenize(prompts),), _CHUNK)

  @functools.cached_property
  def _encode(self) -> Callable[[np.ndarray], np.ndarray]:
    @jax.jit
    def encode(params: Any, ids: jax.Array) -> jax.Array:
      with jax.default_matmul_precision("highest"):
        return self._model.apply({"params": params}, ids).tokens

    return lambda ids: np.asarray(encode(self._params, ids))


def load_encoder(name: str, length: int, path: str = "", vocabulary: str = "") -> TextEncoder:
  """Loads a text encoder by name.

  Args:
    name: a name in `ENCODERS`.
    length: tokens per prompt.
    path: weights of 'clip', as `clip_text.load_text` takes them; MiniLM's come with a package.
    vocabulary: vocabulary file of 'clip'; by default a merges.txt beside the weights, else
      clip-anytorch's.

  Raises:
    FileNotFoundError: weights or vocabulary are missing; the message says what to give or install.
    ModuleNotFoundError: a package is missing; the message says what to install.
    ValueError: the name is unknown, a file has other contents, or the model is not that long.
  """
  check_choice("text encoder", name, ENCODERS)
  model: CLIPText | SentenceEncoder
  if name == "minilm":
    model, params = minilm.load()
    sha256, tokenize = minilm.WEIGHTS.sha256, tokenizer.word_pieces(length)
  else:
    if not path:
      raise FileNotFoundError(
        "Text encoder 'clip' has no weights: set config.init.text_encoder to a safetensors file "
        "or folder of a CLIP text model."
      )
    model, params, sha256 = clip_text.load_text(path)
    beside = copies.local(typed.path(path)) / "merges.txt"
    tokenize = tokenizer.clip(vocabulary or (beside if beside.is_file() else ""), length)
  if length > model.length:
    raise ValueError(
      f"Text encoder {name!r} reads at most {model.length} tokens, not {length}: choose fewer."
    )
  return TextEncoder(name, model, params, tokenize, sha256)


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """The embedded captions of a store's n videos.

  Attributes:
    captions: one caption per video.
    rows: (n,) each video's row in `tokens`.
    tokens: (m, l, d) float32, the tokens of the m distinct captions, read from disk as needed.
  """

  captions: list[str]
  rows: np.ndarray
  tokens: np.ndarray

  def of(self, videos: np.ndarray) -> np.ndarray:
    """Returns the tokens (b, l, d) of the videos with these indices (b,)."""
    return self.tokens[self.rows[videos]]


def embed(encoder: TextEncoder, captions: list[str], folder: pathlib.Path) -> Embeddings:
  """Embeds captions, reading the tokens from `folder` where they were computed before."""
  unique = list(dict.fromkeys(captions))
  key = hashlib.sha256(json.dumps([encoder.fingerprint, unique]).encode()).hexdigest()[:16]
  file = folder / f"{encoder.name}-{key}.npy"
  if file.is_file() and not _is_whole(file):
    logging.warning("%s is damaged and is computed again.", file)
    file.unlink()
  if not file.is_file():
    folder.mkdir(parents=True, exist_ok=True)
    about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "captions": unique}
    shape = (len(unique), *encoder.shape)
    with whole_files.written(file) as half:
      # Written without a memory map: a full disk kills a process that writes to a map.
      with half.open("wb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for begin in tqdm.trange(0, len(unique), _CHUNK, desc="captions", disable=None):
          out.write(np.asarray(encoder(unique[begin : begin + _CHUNK]), "<f4").tobytes())
      about["sha256"] = _sha256(half)
      whole_files.write_text(file.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
  rows = {caption: row for row, caption in enumerate(unique)}
  return Embeddings(
    captions, np.array([rows[caption] for caption in captions]), np.load(file, mmap_mode="r")
  )


def _is_whole(file: pathlib.Path) -> bool:
  """Tells whether a file of tokens is as it was written; early files have no hash and pass."""
  try:
    written = text_files.read_json(file.with_suffix(".json")).get("sha256")
  except (OSError, ValueError):
    return False
  return written is None or written == _sha256(file)


def _sha256(file: pathlib.Path) -> str:
  with file.open("rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def write(workdir: pathlib.Path, encoder: TextEncoder, sentence: str) -> None:
  """Saves in a workdir the tokens that sampling needs without the encoder; `read` reads them."""
  null, default = encoder(["", sentence])
  with whole_files.written(workdir / _FILE) as half:
    np.savez(half, null=null, default=default, fingerprint=encoder.fingerprint)


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Reads the tokens that `write` saved, or returns None where there are none.

  Returns:
    A dict with 'null' (l, d), the empty prompt's tokens; 'default' (l, d), the tokens of the one
    sentence for all videos, or null again; and 'fingerprint', the encoder's.

  Raises:
    ValueError: the file is damaged, which its own CRC-32 shows.
  """
  file = workdir / _FILE
  if not file.is_file():
    return None
  try:
    with file.open("rb") as opened, np.load(opened) as saved:
      return {
        "null": saved["null"], "default": saved["default"], "fingerprint": str(saved["fingerprint"])
      }  # fmt: skip
  except Exception as error:  # zipfile, struct and numpy raise many kinds on a torn zip
    raise ValueError(
      f"{file} is damaged ({error}): move it away, and --mode=train writes a new one; an exported "
      "folder has to be fetched again."
    ) from error


def class_prompt(name: str) -> str:
  """Splits a class name into words: 'ApplyLipstick' -> 'Apply Lipstick' (GLOBER Fig. 3)."""
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").strip()
