import struct

import numpy as np
import pytest

from data import tfrecord
from tests.data.published import write_tfrecords
from videodiff_jax.inputs.video_io import VideoError


@pytest.mark.parametrize("data, crc", [
  (b"", 0),
  (b"123456789", 0xE3069283),
  (bytes(32), 0x8A9136AA),
  (b"\xff" * 32, 0x62A8AB43),
  (bytes(range(32)), 0x46DD794E),
])  # fmt: skip
def test_checksums_of_rfc_3720(data: bytes, crc: int) -> None:
  assert tfrecord.crc32c(data) == crc


def test_checksum_equals_a_loop_over_bytes_at_every_length() -> None:
  data = np.random.default_rng(0).bytes(120)
  crc = 0xFFFFFFFF
  for length, byte in enumerate(data):
    assert tfrecord.crc32c(data[:length]) == crc ^ 0xFFFFFFFF
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)


def test_records_are_found_and_read(tmp_path) -> None:
  payloads = [b"first", b"", bytes(range(256)) * 5]
  write_tfrecords(tmp_path / "a", payloads)
  assert [tfrecord.read(record) for record in tfrecord.scan(tmp_path / "a")] == payloads
  write_tfrecords(tmp_path / "b", [])
  assert list(tfrecord.scan(tmp_path / "b")) == []


def test_a_changed_payload_is_an_error_of_its_record_alone(tmp_path) -> None:
  path = tmp_path / "a"
  write_tfrecords(path, [b"first", b"second"])
  content = bytearray(path.read_bytes())
  content[14] ^= 1
  path.write_bytes(content)
  first, second = tfrecord.scan(path)
  with pytest.raises(VideoError, match="does not match its checksum"):
    tfrecord.read(first)
  assert tfrecord.read(second) == b"second"


@pytest.mark.parametrize("cut", [1, 4, 9, 10, 11, 18, 21])
def test_a_truncated_file_gives_what_is_whole(tmp_path, cut: int) -> None:
  path = tmp_path / "a"
  write_tfrecords(path, [b"first", b"second"])
  path.write_bytes(path.read_bytes()[:-cut])
  records = tfrecord.scan(path)
  assert tfrecord.read(next(records)) == b"first"
  with pytest.raises(VideoError, match="ends inside a record"):
    next(records)


def test_a_changed_length_hides_what_follows(tmp_path) -> None:
  path = tmp_path / "a"
  write_tfrecords(path, [b"first", b"second"])
  content = bytearray(path.read_bytes())
  content[21:29] = struct.pack("<Q", 3)
  path.write_bytes(content)
  records = tfrecord.scan(path)
  next(records)
  with pytest.raises(VideoError, match="length does not match its checksum"):
    next(records)
