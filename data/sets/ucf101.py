"""UCF-101 (Soomro et al., 2012): the avi files of UCF101.rar and the lists of their splits."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from data.builder import SourceError, SourceOptions, Video
from data.walk import FolderBuilder
from videodiff_jax import text_files
from videodiff_jax.inputs.video_io import VideoError

_VIDEOS, _LISTS, _CLASSES = "UCF-101", "ucfTrainTestlist", "classInd.txt"


@dataclasses.dataclass(frozen=True)
class Ucf101Options(SourceOptions):
  """Options of `ucf101`; others as in `SourceOptions`.

  Attributes:
    source: the folder that holds UCF-101 and ucfTrainTestlist.
    size: side of the square frames in pixels.
    fold: which of the three splits of the data set, 1 to 3.
  """

  size: int = 256
  fold: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.fold not in (1, 2, 3):
      raise ValueError(f"fold is {self.fold}; the splits of UCF-101 are 1, 2 and 3.")
    for path in (self.root / _VIDEOS, self.list_of("train"), self.list_of("test"), self.classes):
      if not path.exists():
        raise SourceError(
          f"--source must hold {path.relative_to(self.root)}; {self.source} does not."
        )

  @property
  def root(self) -> pathlib.Path:
    return pathlib.Path(self.source)

  @property
  def classes(self) -> pathlib.Path:
    """The file that numbers the classes from 1."""
    return self.root / _LISTS / _CLASSES

  def list_of(self, split: str) -> pathlib.Path:
    """The file that lists the videos of 'train' or 'test'."""
    return self.root / _LISTS / f"{split}list{self.fold:02d}.txt"


class Ucf101(FolderBuilder):
  """People in 101 actions: 13,320 videos, 9,537 of them for training in the first split.

  Get UCF101.rar (6.5 GB) and UCF101TrainTestSplits-RecognitionTask.zip from
  https://www.crcv.ucf.edu/data/UCF101.php and unpack both in one folder; --source is that folder:
    UCF-101/<Class>/v_<Class>_g01_c01.avi   101 classes, 320x240 pixels, 25 frames a second
    ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt and so on for 02 and 03
  --fold chooses the split, 1 by default. The label of a video is its class, and its
  caption the class's name in words: 'apply eye makeup'.
  """

  OPTIONS = Ucf101Options
  VIDEOS_PER_PART = 8
  FOLDS: ClassVar[Mapping[int, Mapping[str, int]]] = {
    1: {"train": 9537, "test": 3783},
    2: {"train": 9586, "test": 3734},
    3: {"train": 9624, "test": 3696},
  }

  options: Ucf101Options

  @classmethod
  def published(cls, options: Mapping[str, Any]) -> Mapping[str, int]:
    return cls.FOLDS[options["fold"]]

  @functools.cached_property
  def _splits(self) -> dict[str, str]:
    """By the name that the lists give a video: 'Class/v_Class_g01_c01.avi'."""
    return {
      line.split()[0]: split
      for split in ("train", "test")
      for line in text_files.lines(self.options.list_of(split))
      if line.strip()
    }

  @functools.cached_property
  def _classes(self) -> list[str]:
    """All classes in the data set's own order, whether or not they have a video here."""
    numbered: list[tuple[int, str]] = []
    for number, line in enumerate(text_files.lines(self.options.classes), 1):
      if line.strip():
        entry = re.fullmatch(r"\s*([0-9]+)\s+(\S+)\s*", line)
        if entry is None:
          raise SourceError(f"{self.options.classes}, line {number}: expected is NUMBER CLASS.")
        numbered.append((int(entry[1]), entry[2]))
    return [name for _, name in sorted(numbered)]

  def roots(self) -> Mapping[str, pathlib.Path]:
    return {"": self.options.root / _VIDEOS}

  def candidates(self) -> Mapping[str, int]:
    found = super().candidates()
    return dict(found) | {name: 0 for name in sorted(self._splits.keys() - found.keys())}

  def load(self, name: str) -> Video:
    if name not in self._splits:
      raise VideoError(name, f"in no list of split {self.options.fold}")
    if name not in self._found:
      raise VideoError(name, f"listed for {self._splits[name]}, but not there")
    label = name.split("/")[0]
    if label not in self._classes:
      raise VideoError(name, f"{_CLASSES} does not name its class")
    video = super().load(name)
    video.label, video.extra = label, {"caption": words(label).lower()}
    return video

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    return {name: self._splits[name] for name in names}

  def class_names(self, labels: Iterable[str]) -> list[str]:
    del labels
    return self._classes


def words(name: str) -> str:
  """'ApplyEyeMakeup' -> 'Apply Eye Makeup'."""
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
