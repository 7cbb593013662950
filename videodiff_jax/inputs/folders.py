"""Lists the entries of a user's folder, by one rule for every data set and for --input."""

import errno
import os
import pathlib
import re
import stat
from collections.abc import Collection
from typing import Any, NamedTuple

from videodiff_jax.inputs.video_error import VideoError

# Files that operating systems leave in folders. Hidden files are left out as well.
_JUNK = frozenset((
  "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
  "system volume information", "lost+found",
))  # fmt: skip


class Entry(NamedTuple):
  """One entry of a folder.

  Attributes:
    path: the entry's path.
    name: its name as text; bytes that are not UTF-8 are escaped.
    is_folder: whether it is a folder, or a link to one.
    size: a file's size in bytes; 0 for a folder.
    fault: why it cannot be used; '' where no fault is known.
  """

  path: pathlib.Path
  name: str
  is_folder: bool = False
  size: int = 0
  fault: str = ""


def natural_key(name: str) -> tuple[list[Any], str]:
  """Returns a sort key that compares numbers by value: frame_2.png precedes frame_10.png."""
  # The odd places hold runs of ASCII digits; int() rejects other digits, such as a superscript 2.
  # The name itself decides between frame_1 and frame_01.
  parts = re.split(r"([0-9]+)", name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def text_of(name: str) -> str:
  """Returns a file's name as printable text; bytes that are not UTF-8 become \\xNN."""
  return os.fsencode(name).decode("utf-8", "backslashreplace")


def entries(folder: pathlib.Path) -> list[Entry]:
  """Lists a folder in natural order, without hidden files and files that systems leave there.

  A broken link, a link to itself, and anything that is neither file nor folder are listed with a
  `fault`.

  Raises:
    VideoError: the folder itself cannot be read.
  """
  try:
    names = os.listdir(folder)
  except OSError as error:
    raise VideoError(folder, f"unreadable ({error.strerror})") from error
  kept = [name for name in names if not _is_junk(name)]
  return [_entry(folder / name) for name in sorted(kept, key=natural_key)]


def passed_over(root: pathlib.Path, leave: Collection[pathlib.Path] = ()) -> list[str]:
  """Lists the paths that `entries` leaves out in all folders below `root`, in natural order.

  A folder that is left out stands for everything below it. Folders in `leave` are not entered, and
  links are not followed.
  """
  left = {os.path.realpath(path) for path in leave}
  found = []
  for base, inside, files in os.walk(root):
    names = [name for name in (*inside, *files) if _is_junk(name)]
    found += [text_of(os.path.relpath(os.path.join(base, name), root)) for name in names]
    inside[:] = [
      name
      for name in inside
      if not _is_junk(name) and os.path.realpath(os.path.join(base, name)) not in left
    ]
  return sorted(found, key=natural_key)


def _is_junk(name: str) -> bool:
  return name[0] == "." or name.lower() in _JUNK


def _entry(path: pathlib.Path) -> Entry:
  name = text_of(path.name)
  try:
    status = path.stat()
  except OSError as error:
    faults: dict[int | None, str] = {
      errno.ENOENT: "a link to nothing",
      errno.ELOOP: "a link to itself",
    }
    return Entry(path, name, fault=faults.get(error.errno, f"unreadable ({error.strerror})"))
  if stat.S_ISDIR(status.st_mode):
    return Entry(path, name, is_folder=True)
  if not stat.S_ISREG(status.st_mode):
    return Entry(path, name, fault="neither a file nor a folder")
  return Entry(path, name, size=status.st_size)
