"""Published data sets in small: folders in their layouts, for the tests of their builders."""

import pathlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from data import tfrecord


def write_tfrecords(path: pathlib.Path, payloads: Sequence[bytes]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("wb") as file:
    for payload in payloads:
      length = struct.pack("<Q", len(payload))
      file.write(length + struct.pack("<I", tfrecord.masked_crc32c(length)))
      file.write(payload + struct.pack("<I", tfrecord.masked_crc32c(payload)))


def bair_example(frames: Mapping[int, np.ndarray]) -> bytes:
  """A record of BAIR, with another picture where the second camera's are."""
  example = tf_example_pb2.Example()
  for t, frame in frames.items():
    for camera, pixels in (("image_aux1", frame), ("image_main", 255 - frame)):
      feature = example.features.feature[f"{t}/{camera}/encoded"]
      feature.bytes_list.value.append(pixels.tobytes())
    example.features.feature[f"{t}/action"].float_list.value.extend([0.0] * 4)
  return example.SerializeToString()


def write_city(folder: pathlib.Path, drive: str, frames: Mapping[int, np.ndarray]) -> None:
  """Frames of a drive, as CITY_000000, by their numbers."""
  folder.mkdir(parents=True, exist_ok=True)
  for number, frame in frames.items():
    Image.fromarray(frame).save(folder / f"{drive}_{number:06d}_leftImg8bit.png")
