"""Prompts to the tokens that networks are conditioned on, computed once a data set.

Embeddings of captions lie in files named by what they are of: encoder, its weights, length and
the captions. Another encoder's are never overwritten, and a finished file is only read.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from absl import logging

from videodiff_jax import text_files, typed, whole_files
from videodiff_jax.pretrained import clip_text, minilm
from videodiff_jax.text import tokenizer

ENCODERS = ("clip", "minilm")
_CHUNK = 64  # prompts encoded in one call
_FILE = "text.npz"  # in a workdir


class TextEncoder:
  """A frozen text encoder with its tokenizer.

  Attributes:
    name: of `ENCODERS`.
    shape: (l, d) of a prompt's tokens.
    fingerprint: hash of weights and length.
  """

  def __init__(
    self, name: str, model: Any, params: Any, tokenize: tokenizer.Tokenizer, sha256: str
  ):
    self.name, self._model, self._params, self._tokenize = name, model, params, tokenize
    self.shape = (tokenize.length, model.width)
    text = json.dumps([name, sha256, tokenize.length])
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

  def __call__(self, prompts: Sequence[str]) -> np.ndarray:
    """n prompts -> their last hidden states, float32 (n, l, d); '' is the null condition."""
    ids = self._tokenize(prompts)
    padded = np.concatenate([ids, np.repeat(ids[:1], -len(ids) % _CHUNK, axis=0)])
    out = [self._encode(part) for part in np.split(padded, len(padded) // _CHUNK)]
    return np.concatenate(out)[: len(ids)]

  @functools.cached_property
  def _encode(self) -> Any:
    @jax.jit
    def encode(params: Any, ids: jax.Array) -> jax.Array:
      with jax.default_matmul_precision("highest"):
        return self._model.apply({"params": params}, ids).tokens

    return lambda ids: np.asarray(encode(self._params, ids))


def load_encoder(name: str, length: int, path: str = "", vocabulary: str = "") -> TextEncoder:
  """A text encoder by name.

  Args:
    name: of `ENCODERS`.
    length: tokens a prompt.
    path: weights of 'clip', as `text_encoder.load_text` takes them; MiniLM's are installed.
    vocabulary: of 'clip'; by default a merges.txt beside the weights, or clip-anytorch's.

  Raises:
    FileNotFoundError, ModuleNotFoundError: the message says what to install or to give.
    ValueError: an unknown name, a file that is something else, or a length the model has not.
  """
  if name not in ENCODERS:
    raise ValueError(f"Unknown text encoder {name!r}; choose {', '.join(ENCODERS)}.")
  if name == "minilm":
    model, params = minilm.load()
    sha256, tokenize = minilm.WEIGHTS.sha256, tokenizer.word_pieces(length)
  else:
    if not path:
      raise FileNotFoundError(
        "Text encoder 'clip' has no weights: give config.init.text_encoder, a safetensors file "
        "or folder of a CLIP text model."
      )
    model, params, sha256 = clip_text.load_text(path)
    beside = typed.path(path) / "merges.txt"
    tokenize = tokenizer.clip(vocabulary or (beside if beside.is_file() else ""), length)
  if length > model.length:
    raise ValueError(f"Text encoder {name!r} reads {model.length} tokens, not {length}.")
  return TextEncoder(name, model, params, tokenize, sha256)


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """What each video of a store is told.

  Attributes:
    captions: one a video.
    rows: (n,) of `tokens`.
    tokens: (m, l, d) float32 of the m different captions, read from disk as needed.
  """

  captions: list[str]
  rows: np.ndarray
  tokens: np.ndarray

  def of(self, videos: np.ndarray) -> np.ndarray:
    """(b,) indices of videos -> (b, l, d)."""
    return self.tokens[self.rows[videos]]


def embed(encoder: TextEncoder, captions: list[str], folder: pathlib.Path) -> Embeddings:
  """The captions' tokens, out of `folder` where they were computed before."""
  unique = list(dict.fromkeys(captions))
  key = hashlib.sha256(json.dumps([encoder.fingerprint, unique]).encode()).hexdigest()[:16]
  file = folder / f"{encoder.name}-{key}.npy"
  if file.is_file() and not _is_whole(file):
    logging.warning("%s is damaged: it is computed again.", file)
    file.unlink()
  if not file.is_file():
    folder.mkdir(parents=True, exist_ok=True)
    about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "captions": unique}
    shape = (len(unique), *encoder.shape)
    with whole_files.written(file) as half:
      # Not mapped into memory: a disk that is full ends a process that writes into a map.
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
  """Whether captions' tokens are as they were written; of early ones nobody knows."""
  try:
    written = text_files.read_json(file.with_suffix(".json")).get("sha256")
  except (OSError, ValueError):
    return False
  return written is None or written == _sha256(file)


def _sha256(file: pathlib.Path) -> str:
  with file.open("rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def write(workdir: pathlib.Path, encoder: TextEncoder, sentence: str) -> None:
  """Keeps in a workdir what drawing needs where the encoder is not at hand: see `read`."""
  null, default = encoder(["", sentence])
  with whole_files.written(workdir / _FILE) as half:
    np.savez(half, null=null, default=default, fingerprint=encoder.fingerprint)


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
  """What `write` kept, or None.

  Returns:
    'null' (l, d), the empty prompt's tokens; 'default' (l, d), those of the one sentence for all
    videos, or again null; 'fingerprint' of their encoder.

  Raises:
    ValueError: it is not as it was written (the file's own CRC-32 tell).
  """
  file = workdir / _FILE
  if not file.is_file():
    return None
  try:
    with np.load(file) as saved:
      return {
        "null": saved["null"], "default": saved["default"], "fingerprint": str(saved["fingerprint"])
      }  # fmt: skip
  except Exception as error:  # of a torn zip, whatever zipfile, struct and numpy make of it
    raise ValueError(
      f"{file} is damaged ({error}): move it away, and --mode=train writes it anew; an exported "
      "folder has to be fetched again."
    ) from error


def class_prompt(name: str) -> str:
  """A class name as words: 'ApplyLipstick' -> 'Apply Lipstick' (GLOBER Fig. 3)."""
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").strip()
