# ruff: noqa: RUF001
import functools
import gzip
import html
import importlib.util
import pathlib
import random
from types import ModuleType

import numpy as np
import pytest
from absl import logging

from tests.helpers import needs
from tests.weights import require
from videodiff_jax.pretrained import minilm
from videodiff_jax.pretrained.files import restricted_pickle
from videodiff_jax.text import tokenizer

START, END = 49_406, 49_407
_ALPHABETS = (
  "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " \t\n .,!?'\"-&;:",
  "äöüßéèñçøåÄÖÜÉ", "αβγδжщюя", "漢字仮名北京東", "한국어", "かなカナ", "ابجد",
  "😀🚀🎉👩‍🚀🏳️‍🌈", "½²³①Ⅻ",
  "\u00a0\u200b\u3000\ufeff\u0301", "<|>/\\&@#$%^*()[]{}~`",
)  # fmt: skip
HARD = (
  "", " ", "\n\t ", "'", "''", "...", "a", "A", "I'm", "WE'LL", "it's o'clock y'all'd've", "don't",
  "café", "cafe\u0301", "naïve façade", "Ångström", "ﬁne ﬂuﬀ", "ＦＵＬＬ　ｗｉｄｔｈ",
  "İstanbul", "ǅ",
  "straße STRASSE", "½ cup", "x²+y³", "①②", "Ⅻ", "12345", "3.14159", "1,000,000", "v2.0-beta",
  "漢字", "北京 is 東京", "日本語のテキスト", "한국어 문장", "ελληνικά", "русский",
  "العربية", "עברית", "हिन्दी",
  "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈 flag", "a😀b", "🚀🚀🚀", "☃", "©®™", "€100", "£5", "¿qué?", "«quoted»",
  "“smart” ‘quotes’", "em—dash", "ellipsis…", "&amp;", "&amp;amp;", "&lt;b&gt;", "&#39;", "&nbsp;x",
  "&eacute;", "&notanentity;", "<b>bold</b>", "<|startoftext|>", "<|endoftext|> and more",
  "<|STARTOFTEXT|>", "schÃ¶n", "â€œmojibakeâ€\x9d", "doesnâ€™t", "\x00null", "tab\tbed", "a\u00a0b",
  "zero\u200bwidth", "\ufeffbom", "soft\u00adhyphen", "\ufffd", "e\u0301\u0302\u0303", "\u0301",
  "under_score", "camelCase", "kebab-case", "a.b.c", "http://x.yz/?q=1&r=2", "me@example.com",
  "#hashtag @name", "C++ C# F#", "\\n", "`code`", "$$$", "!!!", "?!?!", "-", "--", "_", "~",
  "antidisestablishmentarianism", "a" * 60, "a" * 101, "ab" * 99, "z" * 300, "漢" * 90, "1" * 120,
  "a " * 90, "word " * 120, "A time-lapse video of sky", "Tai chi", "A video of a person",
  "a three moves down and to the left, fast", "ApplyEyeMakeup", "  leading", "trailing  ", "a  b",
  "line\nbreak", "MiXeD cAsE", "ÀÉÎÕÜ", "ĳ Ĳ", "ſ", "ß", "ẞ", "ŉ", "ﷺ", "𝓯𝓪𝓷𝓬𝔂", "𝟙𝟚𝟛", "⠃⠗", "⁇",
  "a\u2028b", "a\u0085b", "x\x1fy", "٣٤٥", "१२३", "'S", "L'été", "o''clock", "'tis", "rock'n'roll",
)  # fmt: skip


def random_texts(count: int) -> list[str]:
  rng = random.Random(0)
  texts = []
  for _ in range(count):
    alphabets = rng.sample(_ALPHABETS, rng.randint(1, 4))
    texts.append("".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randint(0, 60))))
  return texts


def hard_texts() -> list[str]:
  """200: those above, and pairs of them."""
  rng = random.Random(1)
  pairs = [f"{rng.choice(HARD)} {rng.choice(HARD)}" for _ in range(200 - len(HARD))]
  return [*HARD, *pairs]


def test_there_are_200_hard_texts():
  assert len(set(HARD)) == len(HARD) and len(hard_texts()) == 200


@functools.cache
def clip_tokenizer() -> tokenizer.Tokenizer:
  needs("ftfy"), needs("regex")
  require(tokenizer.CLIP_VOCABULARY)
  return tokenizer.clip()


@functools.cache
def piece_tokenizer() -> tokenizer.Tokenizer:
  require(minilm.VOCABULARY)
  return tokenizer.word_pieces(length=64)


def published() -> ModuleType:
  """clip-anytorch's module alone: its package imports torch and torchvision."""
  folder = restricted_pickle.locate(tokenizer.CLIP_VOCABULARY).parent
  spec = importlib.util.spec_from_file_location("published", folder / "simple_tokenizer.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_byte_pairs_equal_clips():
  ours = clip_tokenizer().encode
  theirs = published().SimpleTokenizer().encode
  texts = [*random_texts(2000), *hard_texts()]
  assert [text for text in texts if ours(text) != theirs(text)] == []


def test_word_pieces_equal_berts():
  ours = piece_tokenizer().encode
  transformers = needs("transformers")
  theirs = transformers.BertTokenizer(str(restricted_pickle.locate(minilm.VOCABULARY)))
  texts = [*random_texts(2000), *hard_texts()]
  expected = theirs(texts, add_special_tokens=False, verbose=False)["input_ids"]
  assert [text for text, ids in zip(texts, expected) if ours(text) != ids] == []


def test_texts_are_framed_and_padded():
  ids = clip_tokenizer()(["", "A time-lapse video of sky"])
  assert ids.shape == (2, 77) and ids.dtype == np.int32
  assert ids[0].tolist() == [START] + 76 * [END]
  words = [320, 788, 268, 33365, 1455, 539, 2390]
  assert ids[1].tolist() == [START, *words, *(69 * [END])]


def test_pieces_are_framed_and_padded():
  ids = piece_tokenizer()(["", "a three"])
  assert ids[:, :5].tolist() == [[101, 102, 0, 0, 0], [101, 1037, 2093, 102, 0]]
  assert not ids[:, 5:].any()


def test_what_is_cut_is_told_once(monkeypatch: pytest.MonkeyPatch):
  told: list[str] = []
  monkeypatch.setattr(logging, "warning", lambda text, *values: told.append(text % values))
  short = tokenizer.Tokenizer(lambda text: [ord(c) for c in text], 5, start=1, end=2, padding=0)
  assert short(["abcd", "abc", "abcd"]).tolist() == [
    [1, 97, 98, 99, 2], [1, 97, 98, 99, 2], [1, 97, 98, 99, 2]
  ]  # fmt: skip
  assert told == ["Cut to its first 3 of 4 tokens: 'abcd'."]


def test_a_vocabulary_by_path(tmp_path: pathlib.Path):
  require(tokenizer.CLIP_VOCABULARY)
  text = gzip.decompress(restricted_pickle.read(tokenizer.CLIP_VOCABULARY)).decode()
  merges = tmp_path / "merges.txt"  # transformers' file ends where CLIP's tokens do
  merges.write_text("\n".join(["#version: 0.2", *text.split("\n")[1:48_895], ""]))
  sentence = html.escape("A <b>robot</b> & a café")
  assert tokenizer.clip(merges).encode(sentence) == clip_tokenizer().encode(sentence)


@pytest.mark.parametrize("data", [b"", b"#version\na b\n", b"\x1f\x8bdamaged", b"\xff\xfe" * 99])
def test_another_file_is_refused(tmp_path: pathlib.Path, data: bytes):
  file = tmp_path / "vocabulary.txt"
  file.write_bytes(data)
  with pytest.raises(ValueError, match=r"not CLIP's vocabulary .* merges\.txt"):
    tokenizer.clip(file)


def test_a_text_has_room_for_its_frame():
  with pytest.raises(ValueError, match="at least 2 tokens, its start and its end"):
    tokenizer.Tokenizer(lambda text: [], 1, start=1, end=2, padding=0)
