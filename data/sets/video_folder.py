"""A folder of videos in any tree: files, folders of frames, and pictures of many pages."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from absl import logging

from data.builder import SourceOptions, Video
from data.walk import FolderBuilder
from videodiff_jax import text_files
from videodiff_jax.inputs.video_io import VideoError

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


class VideoFolder(FolderBuilder):
  """Videos of a folder, each in the split that its name decides.

  One video in ten is for testing, by a hash of its name, so that it stays where it is as files
  are added (a split that would stay empty takes one video). A `captions.jsonl` holds lines
  `{"video": NAME, "caption": TEXT}`, NAME being the path below the folder in which it lies: the
  source, or any below it.
  """

  OPTIONS = VideoFolderOptions
  options: VideoFolderOptions

  @functools.cached_property
  def _captions(self) -> dict[str, str]:
    captions: dict[str, str] = {}
    for name, found in self._found.items():
      if found.path.name == _CAPTIONS and not found.fault:
        read_captions(found.path, pathlib.PurePosixPath(name).parent, captions)
    return captions

  def candidates(self) -> Mapping[str, int]:
    every = super().candidates()
    found = {name: size for name, size in every.items() if name.split("/")[-1] != _CAPTIONS}
    unknown = self._captions.keys() - found.keys()
    if unknown:
      logging.warning(
        "%d captions name no video of the folder, for example %r.", len(unknown), min(unknown)
      )
    return found

  def load(self, name: str) -> Video:
    video = super().load(name)
    if self.options.class_folders:
      video.label, *rest = name.split("/")
      if not rest:
        raise VideoError(name, "lies in no class folder")
    if name in self._captions:
      video.extra = {"caption": self._captions[name]}
    return video

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    return split_by_name(names)


def read_captions(
  file: pathlib.Path, folder: pathlib.PurePosixPath, captions: dict[str, str]
) -> None:
  """Adds a file's captions to `captions` by video name; in the file, names start at `folder`.

  Raises:
    ValueError: a line is not `{"video": NAME, "caption": TEXT}`, or names a video again.
  """
  for number, entry in text_files.read_json_lines(file):
    video, caption = (_text(entry.get(key)) for key in ("video", "caption"))
    if video is None or caption is None:
      raise ValueError(
        f'{file}, line {number}: expected is {{"video": NAME, "caption": TEXT}}, both text.'
      )
    name = (folder / video).as_posix()
    if name in captions:
      raise ValueError(f"{file}, line {number}: {name} has a caption already.")
    captions[name] = caption


def _text(value: object) -> str | None:
  """Returns a string that UTF-8 can encode, else None; JSON can hold lone surrogates."""
  if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
    return None
  return value


def split_by_name(names: Sequence[str]) -> dict[str, str]:
  """Assigns 'test' to the tenth of names whose hash is lowest in its range, else 'train'.

  With two names or more, both splits get at least one.
  """
  hashes = {name: hashlib.sha256(name.encode()).digest() for name in names}
  splits = {name: "test" if hashes[name][0] < 26 else "train" for name in names}
  ordered = sorted(names, key=hashes.__getitem__)
  if len(names) > 1:
    splits[ordered[0]], splits[ordered[-1]] = "test", "train"
  return splits
