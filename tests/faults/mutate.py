"""Valid bytes, JSON and values changed at random, as disks, copies, editors and hands do it."""

import json
import random
from typing import Any

# What stands where a number is expected.
NUMBERS = (
  "nan", "inf", "-inf", "-1", "0", "-0.5", "1e308", "1e-320", "2", "7", "1000000000",
  "18446744073709551616", "", "one", "None", "True", "0x10", "1_0", "\u0663", "1,5", "1 2", "1e",
)  # fmt: skip
TUPLES = (
  "()", "(0,)", "(-1,)", "('nope',)", "(1,", "[1, 2]", "None", "(1.5,)", "(nan,)", "7", "('a', 1)",
  "(1000000000,)", "((1,),)", "{}", "",
)  # fmt: skip
TEXTS = (
  "nope", "None", "../..", "~/x", "s3://bucket/x", "x" * 300, "\u00e9\n", "-1", "/dev/null",
  "/proc/self/mem", "a\tb", "'", '"', "\u202e", "%s", "{0}", "$HOME", "configs", "README.md", "",
)  # fmt: skip
FLAGS = ("maybe", "2", "None", "", "yes please")
JSONS: tuple[Any, ...] = (
  None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "nope", [], {}, [None], {"a": 1},
  10**30, "\ud800",
)  # fmt: skip


def of_bytes(rng: random.Random, whole: bytes) -> bytes:
  """One change: bits, bytes, a piece left out, doubled or written over, or the end cut off."""
  changed = bytearray(whole)
  if not changed:
    return b"\0"
  way, place = rng.randrange(8), rng.randrange(len(changed))
  length = rng.randint(1, max(len(changed) // 4, 1))
  if way == 0:
    return bytes(changed[:place])
  if way == 1:
    changed[place] ^= 1 << rng.randrange(8)
  elif way == 2:
    changed[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
  elif way == 3:
    del changed[place : place + length]
  elif way == 4:
    changed[place:place] = changed[place : place + length]
  elif way == 5:
    changed[place : place + length] = rng.randbytes(length)
  elif way == 6:  # the head, where formats keep their sizes
    changed[rng.randrange(min(64, len(changed)))] = rng.randrange(256)
  else:
    return rng.randbytes(min(len(changed), 200))
  return bytes(changed)


def of_json(rng: random.Random, text: str) -> str:
  """One value of a JSON text replaced, left out or renamed."""
  whole = json.loads(text)
  places: list[tuple[Any, Any]] = []

  def walk(tree: Any) -> None:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in entries:
      places.append((tree, key))
      if isinstance(value, (dict, list)):
        walk(value)

  if not isinstance(whole, (dict, list)) or not whole:
    return json.dumps(rng.choice(JSONS))
  walk(whole)
  tree, key = rng.choice(places)
  way = rng.randrange(6)
  if way == 0:
    del tree[key]
  elif way == 1 and isinstance(tree, dict):
    tree[f"{key}_"] = tree.pop(key)
  elif way == 2:
    return json.dumps(rng.choice(JSONS))
  else:
    tree[key] = rng.choice(JSONS)
  return json.dumps(whole)


def of_text(rng: random.Random, whole: bytes) -> bytes:
  """A JSON file or file of lines: its content, its bytes, its encoding or its line ends."""
  way = rng.randrange(6)
  if way == 0:
    return b"\xef\xbb\xbf" + whole
  if way == 1:
    return whole.decode().encode(rng.choice(("utf-16", "utf-32")))
  if way == 2:
    return whole.replace(b"\n", rng.choice((b"\r\n", b"\r", b"", b"\n\n", b"\xe2\x80\xa8")))
  if way == 3:
    return of_bytes(rng, whole)
  lines = whole.decode().splitlines()
  try:
    if len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines):
      at = rng.randrange(len(lines))
      lines[at] = of_json(rng, lines[at])
      return "\n".join(lines).encode(errors="surrogatepass")
    return of_json(rng, whole.decode()).encode(errors="surrogatepass")
  except ValueError:
    return of_bytes(rng, whole)
