r"""Files of text and JSON as people, editors and killed processes leave them: read here alone.

Text is UTF-8, with or without a byte-order mark. A line ends at \n (or \r\n) and nowhere else:
other characters that str.splitlines breaks at, such as U+2028 and U+0085, are letters.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from absl import logging

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_KINDS = {dict: "object {...}", list: "array [...]"}

Path = str | os.PathLike[str]


class TextError(ValueError):
  """A file is not the text or JSON that it should be; names the file and the line."""


def read(file: Path) -> str:
  """A whole text file.

  Raises:
    OSError: it cannot be read.
    TextError: it is no UTF-8; names the first line that is not.
  """
  data = pathlib.Path(file).read_bytes()
  return _decoded(file, 1, data.removeprefix(_BOM), data.startswith(_UTF16))


def lines(file: Path) -> list[str]:
  """The lines of a text file without their ends, blank ones too; errors as `read`."""
  return _split(read(file))


def read_json(file: Path, kind: type = dict) -> Any:
  """A JSON file with an object at its root, or a list.

  Raises:
    OSError: it cannot be read.
    TextError: no UTF-8, no JSON, or something of another type at its root.
  """
  return _parsed(file, None, read(file), kind)


def read_json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
  """(line number from 1, object) of a file with one JSON object a line; blank lines are left out.

  Raises:
    OSError: it cannot be read.
    TextError: the first line that is no object.
  """
  numbered = enumerate(lines(file), 1)
  return [(number, _parsed(file, number, line, dict)) for number, line in numbered if line.strip()]


def read_log(
  file: Path, is_ours: Callable[[dict[str, Any]], bool] = lambda _: True
) -> list[dict[str, Any]]:
  """The objects of a JSON Lines file that our processes append to, and that `is_ours` is true of.

  A killed process leaves half a line, and people write into such files: any other line is passed
  over, and one warning tells how many and the first of them.

  Raises:
    OSError: it cannot be read.
  """
  found, wrong = [], []
  for number, line in enumerate(pathlib.Path(file).read_bytes().removeprefix(_BOM).split(b"\n"), 1):
    if line.strip():
      try:
        entry = _parsed(file, number, _decoded(file, number, line), dict)
        if not is_ours(entry):
          raise TextError(f"{file}, line {number}: not what is written there.")
        found.append(entry)
      except TextError as error:
        wrong.append(error)
  if wrong:
    logging.warning("%s It is passed over (lines like that: %d).", wrong[0], len(wrong))
  return found


def _decoded(file: Path, first: int, data: bytes, utf16: bool = False) -> str:
  """Bytes as text; an error names the line, counted from `first`."""
  if utf16:
    raise TextError(f"{file} is UTF-16: save it as UTF-8.")
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as error:
    number = first + data.count(b"\n", 0, error.start)
    raise TextError(
      f"{file}, line {number}: byte 0x{data[error.start]:02x} is no UTF-8 (Latin-1, or no text at "
      "all?): save it as UTF-8."
    ) from error
  if "\0" in text:  # UTF-16 without its mark, too
    number = first + text.count("\n", 0, text.index("\0"))
    raise TextError(f"{file}, line {number}: a zero byte, so it is UTF-16 or no text.")
  return text


def _split(text: str) -> list[str]:
  return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _parsed(file: Path, number: int | None, text: str, kind: type) -> Any:
  where = f"{file}, line {number}" if number else f"{file}"
  try:
    found = json.loads(text)
  except json.JSONDecodeError as error:
    place = f"column {error.colno}" if number else f"line {error.lineno}, column {error.colno}"
    raise TextError(f"{where}: no JSON ({error.msg} at {place}).") from error
  except (ValueError, RecursionError) as error:  # thousands of digits, thousands of brackets
    raise TextError(f"{where}: no JSON that can be read ({error}).") from error
  if not isinstance(found, kind):
    raise TextError(f"{where}: a JSON {_KINDS[kind]} is expected, not {type(found).__name__}.")
  return found
