"""Writes and checks SHA256SUMS, a folder's checksums, as `sha256sum -c SHA256SUMS` reads them."""

import hashlib
import pathlib
from collections.abc import Sequence

NAME = "SHA256SUMS"


def sha256(file: pathlib.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal digits."""
  with file.open("rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def write(folder: pathlib.Path, parts: Sequence[str]) -> None:
  """Writes the checksums of all files below `parts`, folders in `folder`."""
  lines = [f"{sha256(folder / name)}  {name}\n" for name in _files(folder, parts)]
  (folder / NAME).write_text("".join(lines))


def damage(folder: pathlib.Path, parts: Sequence[str]) -> str | None:
  """Describes the first damaged file below `parts`; None where every file is as it was written.

  Raises:
    OSError: a file exists and cannot be read.
  """
  try:
    lines = (folder / NAME).read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
  except FileNotFoundError:
    return f"{NAME} is missing"
  except ValueError:
    return f"{NAME} is not as it was written"
  wanted = {name for name in listed if name.split("/")[0] in parts}
  there = set(_files(folder, parts))
  if missing := sorted(wanted - there):
    return f"{missing[0]} is missing"
  for name in sorted(there):
    if name not in listed:
      return f"{name} is not listed in its {NAME}"
    if sha256(folder / name) != listed[name]:
      return f"{name} is not as it was written (its SHA-256 differs from that in {NAME})"
  return None


def _files(folder: pathlib.Path, parts: Sequence[str]) -> list[str]:
  files = [file for part in parts for file in (folder / part).rglob("*") if file.is_file()]
  return sorted(file.relative_to(folder).as_posix() for file in files)
