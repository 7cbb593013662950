"""BAIR robot pushing (Ebert et al., 2017): the original TFRecord files."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from data import tfrecord
from data.builder import SplitSourceOptions, Video, VideoBuilder
from videodiff_jax.inputs.video_io import VideoError

_FRAMES, _SIDE = 30, 64


@dataclasses.dataclass(frozen=True)
class BairOptions(SplitSourceOptions):
  """Options of `bair`; others as in `SplitSourceOptions`.

  Attributes:
    source: the folder softmotion30_44k, in which train and test hold *.tfrecords.
    num_frames: every video has 30 frames; no more can be asked for.
  """

  num_frames: int = _FRAMES


class Bair(VideoBuilder):
  """A Sawyer arm pushing toys about: 43,264 videos for training and 256 for testing.

  30 frames of 64x64 pixels each, stored as raw RGB, from the camera `image_aux1`: the one that
  papers on video prediction use. The second camera, actions and positions are left out.

  Get bair_robot_pushing_dataset_v0.tar (30 GB) from http://rail.eecs.berkeley.edu/datasets and
  unpack it; --source is the folder softmotion30_44k:
    train/traj_<A>_to_<B>.tfrecords   256 videos a file
    test/traj_<A>_to_<B>.tfrecords    256 videos in all
  """

  OPTIONS = BairOptions
  VIDEOS_PER_PART = 64
  PUBLISHED: ClassVar[Mapping[str, int]] = {"train": 43264, "test": 256}

  options: BairOptions

  @functools.cached_property
  def _found(self) -> dict[str, tfrecord.Record | VideoError]:
    """By name; an error stands for the first record that a file's damage hides."""
    found: dict[str, tfrecord.Record | VideoError] = {}
    for split, folder in self.options.folders().items():
      for entry in self.entries(folder):
        if entry.path.suffix != ".tfrecords":
          continue
        number, stem = 0, f"{split}/{entry.name.removesuffix('.tfrecords')}"
        try:
          if entry.fault:
            raise VideoError(entry.path, entry.fault)
          for number, record in enumerate(tfrecord.scan(entry.path), 1):
            found[f"{stem}/{number - 1}"] = record
        except VideoError as error:
          found[f"{stem}/{number}"] = error
    return found

  def candidates(self) -> Mapping[str, int]:
    return {
      name: record.checksum if isinstance(record, tfrecord.Record) else 0
      for name, record in self._found.items()
    }

  def load(self, name: str) -> Video:
    record = self._found[name]
    if isinstance(record, VideoError):
      raise record
    return Video(decode(tfrecord.read(record), name))


def decode(payload: bytes, name: str) -> np.ndarray:
  """The frames of one `tf.train.Example`, uint8 (30, 64, 64, 3).

  Raises:
    VideoError: of `name`, with what is missing.
  """
  try:
    features = tf_example_pb2.Example.FromString(payload).features.feature
  except DecodeError as error:
    raise VideoError(name, "the record holds no tf.train.Example") from error
  frames = []
  for t in range(_FRAMES):
    key = f"{t}/image_aux1/encoded"
    content = b"".join(features[key].bytes_list.value) if key in features else b""
    # "Encoded" is a misnomer: these are the pixels themselves, row by row.
    if len(content) != _SIDE * _SIDE * 3:
      raise VideoError(name, f"{key} has {len(content)} bytes, not {_SIDE} x {_SIDE} x 3")
    frames.append(np.frombuffer(content, np.uint8).reshape(_SIDE, _SIDE, 3))
  return np.stack(frames)
