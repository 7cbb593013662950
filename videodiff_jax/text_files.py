r"""Reads text and JSON files as people, editors and killed processes leave them.

Text is UTF-8, with or without a byte-order mark. A line ends only at \n (or \r\n): other
characters that str.splitlines breaks at, such as U+2028 and U+0085, are ordinary characters.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from absl import logging

from videodiff_jax import storage

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_KINDS: dict[type, str] = {dict: "object {...}", list: "array [...]"}

Path = str | os.PathLike[str]


class TextError(ValueError):
  """A file is not the text or JSON that it should be; the message names the file and the line."""


def read(file: Path) -> str:
  """Reads a whole text file.

  Raises:
    OSError: the file cannot be read.
    TextError: it is not UTF-8; the message names the first wrong line.
  """
  data = storage.path(file).read_bytes()
  return _decoded(file, 1, data.removeprefix(_BOM), data.startswith(_UTF16))


def lines(file: Path) -> list[str]:
  """Reads the lines of a text file without line ends, including blank ones; errors as `read`."""
  return _split(read(file))


def read_json(file: Path, kind: type = dict) -> Any:
  """Reads a JSON file whose root is an object or, with `kind` list, an array.

  Raises:
    OSError: the file cannot be read.
    TextError: it is not UTF-8 or not JSON, or its root has another type.
  """
  return _parsed(file, None, read(file), kind)


def read_json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
  """Reads a file with one JSON object per line as (line number from 1, object).

  Blank lines are left out.

  Raises:
    OSError: the file cannot be read.
    TextError: a line is not a JSON object; the message names the first.
  """
  numbered = enumerate(lines(file), 1)
  return [(number, _parsed(file, number, line, dict)) for number, line in numbered if line.strip()]


def read_log(
  file: Path, is_ours: Callable[[dict[str, Any]], bool] = lambda _: True
) -> list[dict[str, Any]]:
  """Reads those objects of a JSON Lines log for which `is_ours` is true.

  A killed process leaves a partial line, and people edit such files. Any other line is skipped,
  and one warning gives their number and the first of them.

  Raises:
    OSError: the file cannot be read.
  """
  found, wrong = [], []
  data = storage.path(file).read_bytes().removeprefix(_BOM)
  for number, line in enumerate(data.split(b"\n"), 1):
    if line.strip():
      try:
        entry = _parsed(file, number, _decoded(file, number, line), dict)
        if not is_ours(entry):
          raise TextError(f"{file}, line {number}: not an entry of this log.")
        found.append(entry)
      except TextError as error:
        wrong.append(error)
  if wrong:
    logging.warning("%s It is skipped (such lines in all: %d).", wrong[0], len(wrong))
  return found


def _decoded(file: Path, first: int, data: bytes, utf16: bool = False) -> str:
  """Decodes bytes as text; an error names the line, counted from `first`."""
  if utf16:
    raise TextError(f"{file} is UTF-16: save it as UTF-8.")
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as error:
    number = first + data.count(b"\n", 0, error.start)
    raise TextError(
      f"{file}, line {number}: byte 0x{data[error.start]:02x} is not UTF-8 (Latin-1, or no text at "
      "all?): save it as UTF-8."
    ) from error
  if "\0" in text:  # UTF-16 without its mark, too
    number = first + text.count("\n", 0, text.index("\0"))
    raise TextError(
      f"{file}, line {number}: a zero byte, so it is UTF-16 or no text: save it as UTF-8."
    )
  return text


def _split(text: str) -> list[str]:
  return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _parsed(file: Path, number: int | None, text: str, kind: type) -> Any:
  where = f"{file}, line {number}" if number else f"{file}"
  try:
    found = json.loads(text)
  except json.JSONDecodeError as error:
    place = f"column {error.colno}" if number else f"line {error.lineno}, column {error.colno}"
    raise TextError(f"{where}: not JSON ({error.msg} at {place}).") from error
  except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
    raise TextError(f"{where}: JSON that cannot be read ({error}).") from error
  if not isinstance(found, kind):
    raise TextError(f"{where}: expected a JSON {_KINDS[kind]}, not {type(found).__name__}.")
  return found
