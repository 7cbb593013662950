"""Reads how many bytes a video file claims to have, since a truncated file has fewer.

FFmpeg reports the length that a file claims, but not always: it takes the header of a truncated WMV
for a broadcast's. Where a container counts bytes, they are exact to the last frame: MP4 and
QuickTime (sizes of atoms), AVI (of RIFF chunks), Matroska and WebM (of the segment), WMV and ASF
(of the file). A recording or broadcast that was written in one pass has no count.
"""

import os
import pathlib
import struct
from typing import BinaryIO

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the file properties object
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_PICTURES = (b"mdat", b"moof", b"moov")  # atoms without which frames are missing


def claimed_bytes(path: pathlib.Path, kind: str) -> int | None:
  """Returns the least number of bytes that a complete file has.

  Args:
    path: the file's path.
    kind: its container, by FFmpeg's first name.

  Returns:
    The count, or None where the container has none or it cannot be read.
  """
  readers = {"mov": _of_mov, "avi": _of_avi, "matroska": _of_matroska, "asf": _of_asf}
  if kind not in readers:
    return None
  with path.open("rb") as file:
    try:
      return readers[kind](file, os.fstat(file.fileno()).st_size)
    except (struct.error, IndexError):  # the file ends within a number
      return None


def _of_mov(file: BinaryIO, size: int) -> int | None:
  place, end = 0, None
  while place + 8 <= size:
    file.seek(place)
    length, kind = struct.unpack(">I4s", file.read(8))
    if length == 1:
      (length,) = struct.unpack(">Q", file.read(8))
    if length < 8:  # 0 means up to the file's end, wherever that is
      break
    place += length
    if kind in _PICTURES:
      end = place
  return end


def _of_avi(file: BinaryIO, size: int) -> int | None:
  place, end = 0, None
  while place + 8 <= size:  # a file larger than a gigabyte has several chunks
    file.seek(place)
    kind, length = struct.unpack("<4sI", file.read(8))
    if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
      break
    end = place + 8 + length
    place = end + length % 2
  return end


def _of_matroska(file: BinaryIO, size: int) -> int | None:
  del size
  if file.read(4) != _EBML or (header := _number(file)) is None:
    return None
  file.seek(header, os.SEEK_CUR)
  if file.read(4) != _SEGMENT or (length := _number(file)) is None:
    return None
  return file.tell() + length


def _number(file: BinaryIO) -> int | None:
  """Reads an EBML size, whose first set bit gives its length; None for 'unknown', all bits 1."""
  first = file.read(1)[0]
  more = 8 - first.bit_length()
  if more == 8:
    return None
  value = first & ((1 << 7 - more) - 1)
  for byte in struct.unpack(f"{more}B", file.read(more)):
    value = value << 8 | byte
  return None if value == (1 << 7 * (more + 1)) - 1 else value


def _of_asf(file: BinaryIO, size: int) -> int | None:
  del size
  head = file.read(2**16)
  found = head.find(_ASF_FILE)
  if not head.startswith(_ASF_HEADER) or found < 0:
    return None
  # After the object's name and length come the file's name, its size, and later the flags.
  (length,) = struct.unpack_from("<Q", head, found + 40)
  (flags,) = struct.unpack_from("<I", head, found + 88)
  broadcast = flags & 1
  return None if broadcast else length or None
