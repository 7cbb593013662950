"""The frame store: square uint8 frames with random access, without TensorFlow.

A store is a folder that TFDS reads (`tfds.builder_from_directory`). It holds array_record files
with one record per frame, and `metadata.json` with the index of videos. Beside them lies
`manifest.json`, which lists every video with its source's size and rate, every skipped video with
the reason, and every file with its size and hash. The builders in data/ write stores.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from videodiff_jax import text_files, typed
from videodiff_jax.choices import check_choice

CODECS = ("raw", "jpeg", "png")
MANIFEST = "manifest.json"
MEMORY_LIMIT = 1_000_000_000  # bytes of decoded frames that `in_memory='auto'` keeps at most
# Huffman tables computed for each frame change no pixel, and save an eighth of the bytes of a
# 64-pixel doom frame. Pillow's buffer is too small to compute them for a large noisy frame.
_OPTIMIZED_SIDE = 128
_SKIP_DECODING = tfds.decode.SkipDecoding()


class StoreError(ValueError):
  """A store is missing, unfinished or damaged; the message says what to run."""


def resolve_codec(codec: str, size: int) -> str:
  """Returns the codec, with 'auto' resolved: raw up to 64 pixels, JPEG above.

  Raises:
    ValueError: the codec is unknown.
  """
  if codec == "auto":
    return "raw" if size <= 64 else "jpeg"
  check_choice("codec", codec, ("auto", *CODECS))
  return codec


def frame_features(size: int, channels: int, codec: str) -> tfds.features.FeaturesDict:
  """Returns the TFDS features of a record: the frame, its video's name, its index in the video."""
  shape = (size, size, channels)
  if codec == "raw":
    frame = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
  else:
    frame = tfds.features.Image(shape=shape, encoding_format=codec)
  index = tfds.features.Scalar(np.int32)
  return tfds.features.FeaturesDict({"frame": frame, "video": tfds.features.Text(), "t": index})


class RecordEncoder:
  """Encodes frames as records, with the same bytes in every process."""

  def __init__(self, features: tfds.features.FeaturesDict, codec: str):
    self._features, self._codec = features, codec
    self._serializer = ExampleSerializer(features.get_serialized_info())

  def __call__(self, frame: np.ndarray, video: str, t: int) -> bytes:
    """Encodes frame `t`, uint8 (size, size, c), of the video named `video`."""
    example = {"frame": self._compress(frame), "video": video, "t": t}
    proto = self._serializer.get_tf_example(self._features.encode_example(example))
    # By default the order of a proto map differs from process to process.
    return proto.SerializeToString(deterministic=True)

  def _compress(self, frame: np.ndarray) -> np.ndarray | io.BytesIO:
    if self._codec == "raw":
      return frame
    file = io.BytesIO()
    image = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
    options = {"quality": 95, "subsampling": 0} if self._codec == "jpeg" else {}
    if self._codec == "jpeg" and max(image.size) <= _OPTIMIZED_SIDE:
      options["optimize"] = True
    image.save(file, self._codec, **options)
    file.seek(0)
    return file


class FrameStore:
  """One split of a store, opened by `FrameStore.open`; picklable and thread-safe.

  Attributes:
    videos: the index, one dict per video: `name`, `first` (its first record), `frames`, `fps`
      (0 where unknown) and `label` (an index into `classes`, 0 where there are none).
    classes: class names, or an empty list.
    image_size: side of a frame in pixels.
    channels: 1 or 3.
    codec: 'raw', 'jpeg' (quality 95, 4:4:4) or 'png'.
    crop: the entry of `video_io.CROPS` that made frames square; '' in old stores, which lack it.
    fingerprint: hash of the manifest and so of every frame; it identifies the data in scores.
    split: 'train', 'test' or, where the data set has one, 'val'.
    directory: the store's folder.
  """

  def __init__(self, directory: pathlib.Path, split: str, in_memory: bool | str):
    self._arguments = (directory, split, in_memory)
    manifest, info, metadata = _load(directory)
    self.split = split
    if split not in info.splits:
      raise StoreError(
        f"The store {directory} has no split {split!r}; it has {', '.join(info.splits)}. "
        "Training and scores need 'train' and 'test': prepare a store from a source with both, or "
        "from a folder without splits that has at least two usable videos."
      )
    self.directory = directory
    self._features = info.features
    self._records = ArrayRecordDataSource([str(p) for p in info.splits[split].filepaths])
    self.classes: list[str] = metadata["classes"]
    self.image_size: int = metadata["image_size"]
    self.channels: int = metadata["channels"]
    self.codec: str = metadata["codec"]
    self.crop: str = metadata["crop"]
    self.fingerprint = hashlib.sha256(manifest).hexdigest()[:16]
    self._extra = [video.get("extra", {}) for video in metadata[split]]
    self.videos: list[dict[str, Any]] = [
      {"label": 0, **{key: value for key, value in video.items() if key != "extra"}}
      for video in metadata[split]
    ]
    shape = (len(self._records), self.image_size, self.image_size, self.channels)
    keep = np.prod(shape) < MEMORY_LIMIT if in_memory == "auto" else in_memory
    self._cache = np.empty(shape, np.uint8) if keep else None
    self._cached = np.zeros(len(self._records), bool)

  @classmethod
  def open(
    cls, directory: str | pathlib.Path, split: str = "train", in_memory: bool | str = "auto"
  ) -> "FrameStore":
    """Opens one split of a prepared store.

    Args:
      directory: the folder that `python -m data.prepare --out` wrote.
      split: 'train', 'test' or, where the data set has one, 'val'.
      in_memory: if True, keeps decoded frames after their first read, so that later epochs read
        nothing from disk. 'auto' keeps them where the split takes less than 1 GB.

    Raises:
      StoreError: the folder is no usable store; the message names the command that prepares one.
    """
    return cls(typed.path(directory, "config.data.dir", on_disk=True), split, in_memory)

  def __reduce__(self) -> tuple[Any, ...]:
    return FrameStore, self._arguments

  @property
  def num_videos(self) -> int:
    return len(self.videos)

  def read(self, video: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Reads and decodes only the frames `indices` (n,) of one video: uint8 (n, h, w, c)."""
    indices = np.asarray(indices)
    frames = self.videos[video]["frames"]
    if indices.size and not 0 <= indices.min() <= indices.max() < frames:
      raise IndexError(f"Video {video} has frames 0 to {frames - 1}; asked for {indices}.")
    records = self.videos[video]["first"] + indices
    if self._cache is None:
      return self._read_frames(records)
    # Two threads may decode the same frame: they write the same bytes, and mark them afterwards.
    missing = records[~self._cached[records]]
    if missing.size:
      self._cache[missing] = self._read_frames(missing)
      self._cached[missing] = True
    return self._cache[records]

  def extra(self, video: int) -> dict[str, Any]:
    """Returns a video's further data: `caption`, or ground truth as float32 arrays."""
    return {
      key: np.asarray(value, np.float32) if isinstance(value, list) else value
      for key, value in self._extra[video].items()
    }

  @property
  def num_records(self) -> int:
    return len(self._records)

  def read_records(self, records: Sequence[int] | np.ndarray) -> list[tuple[str, int, np.ndarray]]:
    """Reads records as (video's name, frame's index in the video, frame uint8 (size, size, c)).

    Raises:
      StoreError: a record cannot be decoded, or holds no frame of this store's size.
    """
    records = [int(record) for record in records]
    try:
      # All at once: array_record takes 0.4 ms for one record, and 1 ms for fourteen.
      return [self._decode(data) for data in self._records.__getitems__(records)]
    except Exception as error:
      if len(records) == 1:
        raise StoreError(
          f"Record {records[0]} of {self.directory} ({self.split}) is damaged: move the store "
          "away and prepare it again with `python -m data.prepare`."
        ) from error
    return [self.read_records([record])[0] for record in records]  # the error names the record

  def _decode(self, data: bytes) -> tuple[str, int, np.ndarray]:
    decoders = None if self.codec == "raw" else {"frame": _SKIP_DECODING}
    example = self._features.deserialize_example_np(data, decoders=decoders)
    frame = example["frame"]
    if self.codec != "raw":
      # Always by Pillow: TFDS uses OpenCV where it is installed, and its pixels differ.
      frame = np.asarray(Image.open(io.BytesIO(frame)))
    frame = frame.reshape(self.image_size, self.image_size, self.channels)
    return example["video"].decode(), int(example["t"]), frame

  def _read_frames(self, records: np.ndarray) -> np.ndarray:
    return np.stack([frame for _, _, frame in self.read_records(records)])


def load_metadata(directory: pathlib.Path) -> dict[str, Any]:
  """Reads the metadata.json of a complete store.

  Raises:
    StoreError: as `FrameStore.open`.
  """
  _load(directory)
  return text_files.read_json(directory / "metadata.json")


def _load(directory: pathlib.Path) -> tuple[bytes, tfds.core.DatasetInfo, dict[str, Any]]:
  """Reads a complete store's manifest, TFDS information and index; else raises `StoreError`."""
  if not (directory / MANIFEST).exists():
    raise StoreError(
      f"{directory} holds no frame store. Prepare one with "
      f"`python -m data.prepare --dataset=NAME --out={directory}`."
    )
  try:
    manifest = (directory / MANIFEST).read_bytes()
    for file in json.loads(manifest)["files"]:
      found = (directory / file["name"]).stat().st_size
      if found != file["bytes"]:
        raise OSError(f"{file['name']} has {found} bytes, not {file['bytes']}")
    info = tfds.builder_from_directory(directory).info
    for split in info.splits.values():
      len(split.filepaths)  # raises if the template of their names is wrong
    keys = ("codec", "image_size", "channels", "classes", *info.splits)
    metadata = {key: info.metadata[key] for key in keys}
    return manifest, info, metadata | {"crop": info.metadata.get("crop", "")}
  except Exception as error:  # TFDS raises many kinds of exception on what it cannot parse
    raise StoreError(
      f"The frame store {directory} is damaged ({error}): move it away and prepare it again "
      "with `python -m data.prepare`."
    ) from error
