"""A folder of videos: files in any tree, or folders whose images are frames."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from data.builder import SourceOptions, Video, VideoBuilder
from videodiff_jax.inputs import video_io

_CAPTIONS = "captions.jsonl"


@dataclasses.dataclass(frozen=True)
class VideoFolderOptions(SourceOptions):
  """Options of `video_folder`; others as in `SourceOptions`.

  Attributes:
    size: side of the square frames in pixels.
    class_folders: the first folder of a video's path is its class.
  """

  size: int = 128
  class_folders: bool = False


class VideoFolder(VideoBuilder):
  """Videos of a folder, each in the split that its name decides.

  One video in ten is for testing, by a hash of its name, so that it stays where it is as files
  are added (a split that would stay empty takes one video). `captions.jsonl` in the folder
  holds lines `{"video": NAME, "caption": TEXT}`, NAME being the path below the folder.
  """

  OPTIONS = VideoFolderOptions
  options: VideoFolderOptions

  def __init__(self, **kwargs: object):
    super().__init__(**kwargs)
    self._root = pathlib.Path(self.options.source)
    self._captions = read_captions(self._root / _CAPTIONS)

  def candidates(self) -> Mapping[str, int]:
    found = find_videos(self._root)
    unknown = self._captions.keys() - found.keys()
    if unknown:
      logging.warning("%d captions name no video of the folder, as %r.", len(unknown), min(unknown))
    return found

  def load(self, name: str) -> Video:
    fps, frames = open_found(self._root / name)
    label = None
    if self.options.class_folders:
      label, *rest = pathlib.PurePosixPath(name).parts
      if not rest:
        raise video_io.VideoError(name, "lies in no class folder")
    caption = self._captions.get(name)
    return Video(frames, fps, label, {} if caption is None else {"caption": caption})

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    return split_by_name(names)


def find_videos(root: pathlib.Path) -> dict[str, int]:
  """What may be videos below a folder, by path, in order, with the size of each in bytes.

  These are files of any kind, folders that hold images and nothing else, and empty folders.
  """
  found: dict[str, int] = {}
  _walk(root, root, found)
  return dict(sorted(found.items(), key=lambda item: video_io.natural_key(item[0])))


def open_found(path: pathlib.Path) -> tuple[float, Iterator[np.ndarray]]:
  """`video_io.stream_video` of what `find_videos` found; `VideoError` where it is no video."""
  if path.is_file() and path.suffix.lower() not in video_io.VIDEO_SUFFIXES:
    raise video_io.VideoError(path, f"no video by its name ({path.suffix or 'no suffix'})")
  return video_io.stream_video(path)


def _walk(root: pathlib.Path, folder: pathlib.Path, found: dict[str, int]) -> None:
  entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
  folders = [p for p in entries if p.is_dir()]
  files = [p for p in entries if not p.is_dir() and p.name != _CAPTIONS]
  images = [p for p in files if p.suffix.lower() in video_io.IMAGE_SUFFIXES]
  if not entries or (images and len(images) == len(files) and not folders):
    found[folder.relative_to(root).as_posix()] = sum(p.stat().st_size for p in images)
    return
  for path in files:
    found[path.relative_to(root).as_posix()] = path.stat().st_size
  for path in folders:
    _walk(root, path, found)


def read_captions(path: pathlib.Path) -> dict[str, str]:
  """Captions by video name; none where the file is absent.

  Raises:
    ValueError: the line that is not `{"video": NAME, "caption": TEXT}`, or names one twice.
  """
  captions: dict[str, str] = {}
  if not path.exists():
    return captions
  for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
    if not line.strip():
      continue
    try:
      entry = json.loads(line)
      name, caption = entry["video"], entry["caption"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{path.name}, line {number}: expected {{"video": NAME, "caption": TEXT}}.'
      ) from error
    if name in captions:
      raise ValueError(f"{path.name}, line {number}: {name} has a caption already.")
    captions[name] = caption
  return captions


def split_by_name(names: Sequence[str]) -> dict[str, str]:
  """'test' for the tenth of all names whose hash is lowest in its range, else 'train'.

  Of two names or more, at least one is on each side.
  """
  hashes = {name: hashlib.sha256(name.encode()).digest() for name in names}
  splits = {name: "test" if hashes[name][0] < 26 else "train" for name in names}
  ordered = sorted(names, key=hashes.__getitem__)
  if len(names) > 1:
    splits[ordered[0]], splits[ordered[-1]] = "test", "train"
  return splits
