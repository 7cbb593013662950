"""Reads TFRecord files without TensorFlow: locates records and checks their content.

A file is a sequence of records: the payload's length (8 bytes, little endian), a checksum of the
length, the payload, and its checksum. Checksums are CRC-32C, rotated and shifted ('masked').
"""

import math
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from videodiff_jax.inputs.video_io import VideoError

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_ALL_ONES = 0xFFFFFFFF


class Record(NamedTuple):
  """The location of a payload, and the masked checksum that follows it."""

  path: pathlib.Path
  start: int
  length: int
  checksum: int


def scan(path: pathlib.Path) -> Iterator[Record]:
  """Yields the records of a file in order, by their lengths alone; no payload is read.

  Raises:
    VideoError: the file cannot be opened, it ends inside a record, or a length does not match its
      checksum, so that later records cannot be located.
  """
  start = 0
  try:
    size, opened = path.stat().st_size, path.open("rb")
  except OSError as error:
    raise VideoError(path, f"unreadable ({error.strerror})") from error
  with opened as file:
    while start < size:
      header = file.read(_HEADER.size)
      if len(header) < _HEADER.size:
        raise VideoError(path, "the file ends inside a record")
      length, checksum = _HEADER.unpack(header)
      if masked_crc32c(header[:8]) != checksum:
        raise VideoError(path, "the length does not match its checksum, so that the rest is lost")
      start += _HEADER.size
      if start + length + _FOOTER.size > size:
        raise VideoError(path, "the file ends inside a record")
      file.seek(start + length)
      yield Record(path, start, length, *_FOOTER.unpack(file.read(_FOOTER.size)))
      start += length + _FOOTER.size


def read(record: Record) -> bytes:
  """Reads the payload of a record.

  Raises:
    VideoError: the payload does not match its checksum.
  """
  with record.path.open("rb") as file:
    file.seek(record.start)
    payload = file.read(record.length)
  if masked_crc32c(payload) != record.checksum:
    raise VideoError(record.path, "the record does not match its checksum")
  return payload


def masked_crc32c(data: bytes) -> int:
  """Computes the checksum of TFRecord files; it is masked since a CRC over CRCs would be weak."""
  crc = crc32c(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ALL_ONES


def crc32c(data: bytes) -> int:
  """CRC-32C, of Castagnoli's polynomial (RFC 3720); 0xE3069283 for b"123456789".

  A loop over the bytes would take far longer than reading them. Instead the data are split into
  rows whose CRCs are updated together, a column at a time, from a state of 0. Then the rows' CRCs
  are combined: CRC is linear, so shifting a state past n zeros is a 32x32 bit matrix.
  """
  width = max(1, math.isqrt(len(data)))
  head = len(data) % width
  crc = _ALL_ONES
  for byte in data[:head]:
    crc = int(_TABLE[(crc ^ byte) & 0xFF]) ^ crc >> 8
  rows = np.frombuffer(data, np.uint8, offset=head).reshape(-1, width)
  states = np.concatenate([np.zeros(len(rows), np.uint32), np.uint32(1) << _BITS])
  columns = np.zeros((width, len(states)), np.uint8)
  columns[:, : len(rows)] = rows.T
  for column in columns:
    states = _TABLE[(states ^ column) & 0xFF] ^ states >> 8
  images: list[int] = states[len(rows) :].tolist()
  for state in states[: len(rows)].tolist():
    for image in images:
      if crc & 1:
        state ^= image
      crc >>= 1
    crc = state
  return crc ^ _ALL_ONES


def _byte_table() -> np.ndarray:
  """Returns the table (256,) uint32 of the update for each lowest byte of a state."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = table >> 1 ^ (table & 1) * np.uint32(0x82F63B78)
  return table


_TABLE = _byte_table()
_BITS = np.arange(32, dtype=np.uint32)
