"""How many bytes a video file says it has: one that was cut short has fewer.

FFmpeg tells how long a file claims to be, and not always: of a cut WMV it takes the header for a
broadcast's. Bytes are exact where a container counts them, to the last frame: MP4 and QuickTime
(the sizes of atoms), AVI (of RIFF chunks), Matroska and WebM (of the segment), WMV and ASF (of the
file). A recording or a broadcast that was written without going back counts nothing.
"""

import os
import pathlib
import struct
from typing import BinaryIO

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the object of the file's properties
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_PICTURES = (b"mdat", b"moof", b"moov")  # atoms without which frames are missing


def claimed_bytes(path: pathlib.Path, kind: str) -> int | None:
  """The least bytes that a whole file has.

  Args:
    path: of the file.
    kind: its container, by FFmpeg's first name.

  Returns:
    None where the container does not count them, or its count cannot be read.
  """
  readers = {"mov": _of_mov, "avi": _of_avi, "matroska": _of_matroska, "asf": _of_asf}
  if kind not in readers:
    return None
  with path.open("rb") as file:
    try:
      return readers[kind](file, os.fstat(file.fileno()).st_size)
    except (struct.error, IndexError):  # it ends within a number
      return None


def _of_mov(file: BinaryIO, size: int) -> int | None:
  place, end = 0, None
  while place + 8 <= size:
    file.seek(place)
    length, kind = struct.unpack(">I4s", file.read(8))
    if length == 1:
      (length,) = struct.unpack(">Q", file.read(8))
    if length < 8:  # 0: to the file's end, whatever that is
      break
    place += length
    if kind in _PICTURES:
      end = place
  return end


def _of_avi(file: BinaryIO, size: int) -> int | None:
  place, end = 0, None
  while place + 8 <= size:  # a file of more than a gigabyte has several
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
  """A size of EBML, whose first set bit tells its length; None for 'unknown', all bits 1."""
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
  # After its name and its length: the file's name, its size, and further on the flags.
  (length,) = struct.unpack_from("<Q", head, found + 40)
  (flags,) = struct.unpack_from("<I", head, found + 88)
  broadcast = flags & 1
  return None if broadcast else length or None
