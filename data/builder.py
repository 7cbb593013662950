"""The base of every data set's TFDS builder: it writes a frame store and survives kills.

Videos are first written as parts, each an array_record file and a JSON sidecar that marks it
complete; both appear by an atomic rename, and a finished part is never made twice. The store is
then assembled from the parts in the order of the candidates, in a folder that gets its final name
at the very end. So the bytes of a store depend neither on kills nor on the engine that made the
parts (`data.parts`). Until the store is complete, the parts take as much disk as it does. Some
parts spread over the data set are made first, to estimate its size.
"""

import abc
import dataclasses
import hashlib
import inspect
import itertools
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from data import parts
from videodiff_jax import text_files
from videodiff_jax.inputs import folders, frame_store, video_io
from videodiff_jax.inputs.folders import Entry, natural_key

_RECORD_OPTIONS = "group_size:1"  # So that one record can be read without its neighbours.
_SHARD_BYTES = 256_000_000
_SAMPLE = 16  # Parts that the size of the store is estimated from.
SPLITS = ("train", "val", "test")
# This list is beside the manifest, since a Thumbs.db must not change the data set's identity.
PASSED_OVER = "passed_over.json"
CHECKSUM = "sha256"  # Key of the hash of all other metadata.


class SourceError(ValueError):
  """`--source` is not the data set; the command adds a description of the data set."""


@dataclasses.dataclass
class Video:
  """One video as its data set yields it.

  Attributes:
    frames: iterable of frames, uint8 (h, w, c), of any size; they are cropped and resized to the
      store's size. If iteration raises `VideoError`, the video is skipped.
    fps: frames per second, 0 if unknown.
    label: class name.
    unsure: reason why completeness cannot be checked; '' if it was checked.
    extra: value of `FrameStore.extra`: a caption, or ground truth as nested lists.
  """

  frames: Iterable[np.ndarray]
  fps: float = 0.0
  label: str | None = None
  unsure: str = ""
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of every data set; the fields are flags of `python -m data.prepare`.

  Attributes:
    size: side of the square frames in pixels.
    num_frames: minimum length; shorter videos are skipped.
    codec: 'raw', 'jpeg' (quality 95, 4:4:4), 'png', or 'auto': raw up to 64 pixels, else jpeg.
  """

  size: int = 64
  num_frames: int = 16
  codec: str = "auto"

  def __post_init__(self) -> None:
    for name in ("size", "num_frames"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    frame_store.resolve_codec(self.codec, self.size)


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
  """Options of a data set that is read from disk; others as in `Options`.

  Attributes:
    source: folder of the data set; its path is not written into the store.
  """

  source: str = ""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not pathlib.Path(self.source).is_dir() or not self.source:
      raise SourceError(f"--source must be a folder of videos; {self.source!r} is no folder.")


@dataclasses.dataclass(frozen=True)
class SplitSourceOptions(SourceOptions):
  """Options of a published data set; others as in `SourceOptions`.

  Attributes:
    source: the folder that holds train, val and test, or some of them.
  """

  def __post_init__(self) -> None:
    super().__post_init__()
    if not self.folders():
      splits = ", ".join(SPLITS)
      raise SourceError(f"--source must hold folders named {splits}; {self.source} has none.")

  def folders(self) -> dict[str, pathlib.Path]:
    """Returns the folders train, val and test that exist, by name."""
    folders = {split: pathlib.Path(self.source) / split for split in SPLITS}
    return {split: folder for split, folder in folders.items() if folder.is_dir()}


class VideoBuilder(  # type: ignore[call-arg]  # TFDS's own keyword, which its bases hide
  FileReaderBuilder, skip_registration=True
):
  """A TFDS builder whose `data_dir` is the store itself and whose records are frames.

  A data set defines its candidate videos, how one is loaded, and its split. The docstring of a
  published data set says where to get it, and is shown if `--source` does not hold the data set.
  """

  VERSION = tfds.core.Version("1.0.0")
  OPTIONS: type[Options] = Options
  CHANNELS = 3
  CROP = "pillow_bicubic"  # Key of `video_io.CROPS`: how frames are cropped to squares.
  VIDEOS_PER_PART = 1
  PUBLISHED: ClassVar[Mapping[str, int]] = {}  # Split -> number of videos, if known.

  def __init__(self, *, data_dir: str | os.PathLike[str], options: Options | None = None):
    self.options = options or self.OPTIONS()
    self.codec = frame_store.resolve_codec(self.options.codec, self.options.size)
    super().__init__(data_dir=data_dir, file_format="array_record")

  @abc.abstractmethod
  def candidates(self) -> Mapping[str, int]:
    """Returns every possible video in order: name -> a number that changes with its content."""

  @abc.abstractmethod
  def load(self, name: str) -> Video:
    """Opens one candidate; raises `VideoError` with the reason if it is no video."""

  def least_frames(self, name: str) -> int:
    """Returns how many frames a candidate must have; a shorter one is skipped."""
    del name
    return self.options.num_frames

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    """Assigns 'train', 'val' or 'test' to each usable video: by default its name's first folder."""
    return {name: name.split("/")[0] for name in names}

  def class_names(self, labels: Iterable[str]) -> list[str]:
    """Returns the classes in the order of their indices, given the labels that occur."""
    return sorted(set(labels), key=natural_key)

  @classmethod
  def published(cls, options: Mapping[str, Any]) -> Mapping[str, int]:
    """Returns the published number of videos of each split; {} if unknown."""
    del options
    return cls.PUBLISHED

  @classmethod
  def request(cls, options: Options) -> dict[str, Any]:
    """Returns everything that decides a store's content, apart from its source."""
    wanted = dataclasses.asdict(options)
    wanted["codec"] = frame_store.resolve_codec(options.codec, options.size)
    wanted.pop("source", None)  # A path of this machine.
    return {"dataset": cls.name, "version": str(cls.VERSION), "options": wanted}

  @property
  def parts_path(self) -> pathlib.Path:
    """The folder of the parts until the store is complete."""
    store = pathlib.Path(self.data_dir)
    return store.with_name(f"{store.name}.parts")

  def own_files(self) -> Collection[pathlib.Path]:
    """Paths to ignore if they lie in the source: the store and its parts."""
    return pathlib.Path(self.data_dir), self.parts_path

  def entries(self, folder: pathlib.Path) -> list[Entry]:
    """Lists `folders.entries` of a source folder, without `own_files`."""
    own = {os.path.realpath(path) for path in self.own_files()}
    listed = folders.entries(folder)
    return [e for e in listed if not (e.is_folder and os.path.realpath(e.path) in own)]

  def __reduce__(self) -> tuple[Any, ...]:
    # Passes on what was found: other processes need not search the source again.
    return _restore, (type(self), self.data_dir, self.options, self.__dict__.get("_found"))

  def _build_data_dir(self, given_data_dir: str) -> tuple[str, str]:
    store = os.path.abspath(given_data_dir)
    return os.path.dirname(store), store

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=inspect.getdoc(type(self)),
      features=frame_store.frame_features(self.options.size, self.CHANNELS, self.codec),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def download_and_prepare(self, engine: parts.Engine = parts.threads) -> None:
    """Writes the store unless it exists; keeps finished parts and lets `engine` make the others.

    Replaces TFDS's own method, which handles downloads and starts over after a kill. Only one
    process may run it at a time, which `data.prepare.ensure` guarantees.
    """
    if self.data_path.exists():
      return
    unfinished = self.parts_path / "store"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    self._download_and_prepare(unfinished, engine)
    self.info.write_to_directory(unfinished)
    os.replace(unfinished, self.data_path)

  def _download_and_prepare(self, store: pathlib.Path, engine: parts.Engine) -> None:
    """Fills the folder `store` with everything except the files that TFDS writes for `info`."""
    videos, skipped = self._write_parts(engine)
    if not videos:
      shutil.rmtree(self.parts_path)  # Another attempt may use other options.
      reasons = "; ".join(f"{s['name']}: {s['reason']}" for s in skipped[:3])
      raise ValueError(
        f"None of the {len(skipped)} videos can be used ({reasons or 'none was found'})."
      )
    splits = self.assign_splits([video["name"] for video in videos])
    classes = self.class_names(v["label"] for v in videos if v["label"] is not None)
    infos, named, files = [], {}, []
    for split in SPLITS:
      if chosen := [video for video in videos if splits[video["name"]] == split]:
        info = self._write_split(store, split, chosen)
        infos.append(info)
        files += [pathlib.Path(path) for path in info.filepaths]
        self.info.metadata[split] = _index(chosen, classes)
        named[split] = [
          {key: video[key] for key in ("name", "frames", "size", "fps", "unsure") if key in video}
          for video in chosen
        ]
    self.info.set_splits(tfds.core.splits.SplitDict(infos))
    self.info.metadata.update(
      codec=self.codec,
      crop=self.CROP,
      image_size=self.options.size,
      channels=self.CHANNELS,
      classes=classes,
    )
    self.info.metadata[CHECKSUM] = index_checksum(self.info.metadata)
    manifest = self.request(self.options) | {"videos": named, "skipped": skipped}
    manifest["files"] = [
      {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
    ]
    (store / frame_store.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    if isinstance(self.options, SourceOptions):
      over = folders.passed_over(pathlib.Path(self.options.source), self.own_files())
      if over:
        (store / PASSED_OVER).write_text(json.dumps(over, indent=1) + "\n")

  def _write_parts(self, engine: parts.Engine) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Makes the missing parts; returns all usable and all skipped videos, in order."""
    for leftover in self.parts_path.glob("*.unfinished"):
      leftover.unlink()
    candidates = list(self.candidates().items())
    published = sum(self.published(dataclasses.asdict(self.options)).values())
    if published and len(candidates) != published:
      logging.warning(
        "%s: %d videos found, %d were published.", self.name, len(candidates), published
      )
    starts = range(0, len(candidates), self.VIDEOS_PER_PART)
    tasks = [
      (number, dict(candidates[start : start + self.VIDEOS_PER_PART]))
      for number, start in enumerate(starts)
    ]
    missing = [task for task in tasks if self._finished(task) is None]
    sample = missing[:: -(-len(missing) // _SAMPLE) or 1]
    done = len(candidates) - sum(len(group) for _, group in missing)
    with tqdm.tqdm(
      desc=f"Preparing {self.name}", unit="video", total=len(candidates), initial=done
    ) as progress:
      for count in parts.threads(self.write_part, sample):
        progress.update(count)
      if others := [task for task in missing if task not in sample]:
        self._check_disk(tasks)
        for count in engine(self.write_part, others):
          progress.update(count)
    made = [part for task in tasks if (part := self._finished(task)) is not None]
    return list(itertools.chain(*(part["videos"] for part in made))), list(
      itertools.chain(*(part["skipped"] for part in made))
    )

  def _check_disk(self, tasks: Sequence[parts.Task]) -> None:
    """Estimates the store's size from the finished parts; raises ValueError if it cannot fit."""
    finished = [part for task in tasks if (part := self._finished(task))]
    written = sum(video["bytes"] for part in finished for video in part["videos"])
    seen = sum(len(part["candidates"]) for part in finished)
    size = written / seen * sum(len(group) for _, group in tasks)
    needed, free = 2 * size - written, shutil.disk_usage(self.parts_path).free
    estimate = (
      f"The store will take about {size / 1e9:.3g} GB, and as much again until it is complete; "
      f"{free / 1e9:.3g} GB are free."
    )
    if needed > free:
      raise ValueError(
        f"{estimate} Choose an --out with more room, a smaller --size or another --codec. Finished "
        "parts are kept."
      )
    logging.info(estimate)

  def _stem(self, number: int) -> pathlib.Path:
    return self.parts_path / f"{number * self.VIDEOS_PER_PART:06d}"

  def _finished(self, task: parts.Task) -> dict[str, Any] | None:
    """Reads a finished part's sidecar; None if the part is not finished."""
    number, group = task
    sidecar = self._stem(number).with_suffix(".json")
    if sidecar.exists():
      part = text_files.read_json(sidecar)
      if part["candidates"] == group:
        return part
    return None

  def write_part(self, task: parts.Task) -> int:
    """Makes one part, in any process on any machine; returns the number of candidates."""
    number, group = task
    stem = self._stem(number)
    records, sidecar = stem.with_suffix(".array_record"), stem.with_suffix(".json")
    part: dict[str, Any] = {"candidates": group, "videos": [], "skipped": []}
    encode = frame_store.RecordEncoder(self.info.features, self.codec)
    # A unique name: the process of a killed command may live a moment longer.
    unfinished = stem.with_suffix(f".{uuid.uuid4().hex}.unfinished")
    writer = ArrayRecordWriter(str(unfinished), _RECORD_OPTIONS)
    written = 0
    for name in group:
      entry: dict[str, Any] = {"name": name, "part": records.name, "first": written}
      count, size = 0, 0
      try:
        video = self.load(name)
        for frame in video.frames:
          entry.setdefault("size", f"{frame.shape[1]}x{frame.shape[0]}")
          if frame.shape[:2] != (self.options.size, self.options.size):
            frame = self._square(frame, name)
          record = encode(frame, name, count)
          writer.write(record)
          count, written, size = count + 1, written + 1, size + len(record)
        if count < (least := self.least_frames(name)):
          raise video_io.VideoError(name, f"{count} frames, fewer than the {least} of a clip")
      except video_io.VideoError as error:
        # Its records stay in the part and are not copied into the store.
        part["skipped"].append({"name": name, "reason": error.reason})
        continue
      entry |= {"frames": count, "bytes": size, "fps": video.fps}
      entry |= {"unsure": video.unsure} if video.unsure else {}
      part["videos"].append(entry | {"label": video.label, "extra": dict(video.extra)})
    writer.close()
    os.replace(unfinished, records)
    unfinished.write_text(json.dumps(part))
    os.replace(unfinished, sidecar)
    return len(group)

  def _square(self, frame: np.ndarray, name: str) -> np.ndarray:
    try:
      return video_io.square_crop_resize(frame, self.options.size, self.CROP)
    except ValueError as error:
      raise video_io.VideoError(name, str(error)) from error

  def _write_split(
    self, store: pathlib.Path, split: str, videos: list[dict[str, Any]]
  ) -> tfds.core.SplitInfo:
    """Copies the videos' records into shards of whole videos, and sets each video's `first`."""
    sizes = itertools.accumulate(video["bytes"] for video in videos)
    shards = [
      list(group)
      for _, group in itertools.groupby(zip(sizes, videos), lambda x: x[0] // _SHARD_BYTES)
    ]
    template = self._get_filename_template(split).replace(data_dir=epath.Path(store))
    lengths, first = [], 0
    for number, shard in enumerate(shards):
      path = template.sharded_filepath(shard_index=number, num_shards=len(shards))
      writer = ArrayRecordWriter(str(path), _RECORD_OPTIONS)
      start = first
      for part, entries in itertools.groupby((v for _, v in shard), lambda v: v["part"]):
        reader = ArrayRecordReader(str(self.parts_path / part))
        for video in entries:
          for record in range(video["first"], video["first"] + video["frames"]):
            writer.write(reader.read([record])[0])
          video["first"] = first
          first += video["frames"]
        reader.close()
      writer.close()
      lengths.append(first - start)
    return tfds.core.SplitInfo(
      name=split,
      shard_lengths=lengths,
      num_bytes=sum(video["bytes"] for video in videos),
      filename_template=template,
    )


def index_checksum(metadata: Mapping[str, Any]) -> str:
  """Returns the hash of a store's metadata: settings, and the index with labels and captions."""
  others = {key: value for key, value in metadata.items() if key != CHECKSUM}
  return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _restore(
  builder: type[VideoBuilder], data_dir: str, options: Options, found: Any
) -> VideoBuilder:
  restored = builder(data_dir=data_dir, options=options)
  if found is not None:
    restored._found = found
  return restored


def _index(videos: list[dict[str, Any]], classes: list[str]) -> list[dict[str, Any]]:
  """Makes the entries of `FrameStore.videos`."""
  index = []
  for video in videos:
    entry = {key: video[key] for key in ("name", "first", "frames", "fps")}
    if video["label"] is not None:
      entry["label"] = classes.index(video["label"])
    index.append(entry | ({"extra": video["extra"]} if video["extra"] else {}))
  return index


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
