"""TaiChi-HD (Siarohin et al., 2019): the folders that first-order-model's script writes."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import ClassVar

from data.builder import SplitSourceOptions
from data.walk import FolderBuilder


@dataclasses.dataclass(frozen=True)
class TaichiHdOptions(SplitSourceOptions):
  """Options of `taichi_hd`; others as in `SplitSourceOptions`.

  Attributes:
    source: the folder in which train and test hold a video each.
    size: side of the square frames in pixels.
  """

  size: int = 128


class TaichiHd(FolderBuilder):
  """People who practise tai chi: 3,049 videos for training and 285 for testing.

  The frames are on YouTube, and fewer are from year to year. The script load_videos.py of
  https://github.com/AliaksandrSiarohin/first-order-model (data/taichi-loading) loads those that
  are left, cuts them (128 to 1,024 frames each) and resizes them to 256x256; --source is its
  --out_folder, written with --format .png (a folder of frames a video, 80 GB) or .mp4:
    train/<YouTube name>#<first>#<last>.mp4   a video, or a folder of 0000000.png and so on
    test/<YouTube name>#<first>#<last>.mp4
  The PNG folders have lost no quality, but the frame rate.
  """

  OPTIONS = TaichiHdOptions
  VIDEOS_PER_PART = 2
  PUBLISHED: ClassVar[Mapping[str, int]] = {"train": 3049, "test": 285}

  options: TaichiHdOptions

  def roots(self) -> Mapping[str, pathlib.Path]:
    return self.options.folders()
