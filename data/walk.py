"""Walks a source folder and finds everything that may be a video."""

import collections
import functools
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from data.builder import SourceOptions, Video, VideoBuilder
from videodiff_jax.inputs import folders, pictures, video_io
from videodiff_jax.inputs.folders import Entry, natural_key
from videodiff_jax.inputs.frame_store import MANIFEST
from videodiff_jax.inputs.video_io import VideoError


class Found(NamedTuple):
  """A possible video.

  Attributes:
    path: path of a file or of a folder of pictures.
    size: size of all its frames in bytes.
    fault: reason why it cannot be a video, if already known; else ''.
  """

  path: pathlib.Path
  size: int = 0
  fault: str = ""

  def open(self) -> video_io.Stream:
    """Opens it by `video_io.stream_video`; raises `VideoError` if it is no video."""
    if self.fault:
      raise VideoError(self.path, self.fault)
    of_pages = video_io.is_picture(self.path) and pictures.count_pages(self.path) > 1
    if not (os.path.isdir(self.path) or video_io.is_video(self.path) or of_pages):
      raise VideoError(self.path, f"no video by its name ({self.path.suffix or 'no suffix'})")
    return video_io.stream_video(self.path)


class FolderBuilder(VideoBuilder):
  """A data set of video files, or folders of frames, in one or several trees."""

  options: SourceOptions

  def roots(self) -> Mapping[str, pathlib.Path]:
    """Returns the trees by the prefix of their videos' names, which may be ''."""
    return {"": pathlib.Path(self.options.source)}

  @functools.cached_property
  def _found(self) -> dict[str, Found]:
    return {
      pathlib.PurePosixPath(first, name).as_posix(): found
      for first, root in self.roots().items()
      for name, found in find_videos(root, self.own_files()).items()
    }

  def candidates(self) -> Mapping[str, int]:
    return {name: found.size for name, found in self._found.items()}

  def load(self, name: str) -> Video:
    stream = self._found[name].open()
    return Video(stream.frames, stream.fps, unsure=stream.unsure)


def find_videos(root: pathlib.Path, leave: Collection[pathlib.Path] = ()) -> dict[str, Found]:
  """Finds all possible videos below a folder, by path in natural order; non-videos have a fault.

  These are files of any kind, folders that hold pictures and no video file, and empty folders.
  Hidden files and files of operating systems are skipped. A folder is entered once, under its own
  name rather than a link's; folders that contain the root, and frame stores, are not entered.

  Args:
    root: folder to search.
    leave: files and folders to skip.
  """
  passed = {os.path.realpath(path) for path in leave}
  found: dict[str, Found] = {}
  entered: set[str] = set()
  top = os.path.realpath(root)
  waiting = collections.deque([("", root)])
  links: collections.deque[tuple[str, pathlib.Path]] = collections.deque()
  while waiting or links:
    at, folder = (waiting or links).popleft()
    real = os.path.realpath(folder)
    if real in passed:
      continue
    if real in entered or top.startswith(os.path.join(real, "")):
      found[at] = Found(folder, fault="a link to a folder that is read already, or is around it")
      continue
    entered.add(real)
    try:
      listed = folders.entries(folder)
    except VideoError as error:
      found[at or "."] = Found(folder, fault=error.reason)
      continue
    inside = [entry for entry in listed if os.path.join(real, entry.path.name) not in passed]
    frames = _frames(inside)
    if frames or not listed:
      found[at or "."] = Found(folder, sum(entry.size for entry in frames))
    elif _is_store(folder, inside):
      found[at or "."] = Found(folder, fault="a frame store, or parts of one")
      continue
    taken = {entry.path.name for entry in frames}
    for entry in inside:
      name = f"{at}/{entry.name}".lstrip("/")
      if entry.path.name in taken:
        continue
      if fault := entry.fault or _fault_of_name(entry):
        found[name] = Found(entry.path, fault=fault)
      elif entry.is_folder:
        (links if entry.path.is_symlink() else waiting).append((name, entry.path))
      else:
        found[name] = Found(entry.path, entry.size)
  return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def _frames(inside: list[Entry]) -> list[Entry]:
  """Returns the pictures of a folder if they are the frames of one video, else []."""
  files = [entry for entry in inside if not entry.is_folder]
  images = [entry for entry in files if video_io.is_picture(entry.path)]
  if any(video_io.is_video(entry.path) and not entry.fault for entry in files):
    return []
  # The first picture that opens decides for all: if pictures have pages, each is a video.
  counts = (pictures.count_pages(entry.path) for entry in images if not entry.fault)
  return [] if next(filter(None, counts), 1) > 1 else images


def _fault_of_name(entry: Entry) -> str:
  return "" if entry.name == entry.path.name else "its name is no text in UTF-8"


def _is_store(folder: pathlib.Path, inside: list[Entry]) -> bool:
  names = {entry.name for entry in inside}
  of_parts = folder.name.endswith(".parts") and "request.json" in names
  return of_parts or {MANIFEST, "dataset_info.json"} <= names
