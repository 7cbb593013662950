"""A folder of videos: files in any tree, or folders whose images are frames."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence

from absl import logging

from data.builder import SourceOptions, Video
from data.walk import FolderBuilder
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
  are added (a split that would stay empty takes one video). `captions.jsonl` in the folder
  holds lines `{"video": NAME, "caption": TEXT}`, NAME being the path below the folder.
  """

  OPTIONS = VideoFolderOptions
  options: VideoFolderOptions

  def __init__(self, **kwargs: object):
    super().__init__(**kwargs)
    self._captions = read_captions(self._captions_file)

  @property
  def _captions_file(self) -> pathlib.Path:
    return pathlib.Path(self.options.source) / _CAPTIONS

  def own_files(self) -> Collection[pathlib.Path]:
    return *super().own_files(), self._captions_file

  def candidates(self) -> Mapping[str, int]:
    found = super().candidates()
    unknown = self._captions.keys() - found.keys()
    if unknown:
      logging.warning("%d captions name no video of the folder, as %r.", len(unknown), min(unknown))
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
