"""Sky Time-lapse (Xiong et al., 2018): folders of frames, as DTVNet and StyleGAN-V keep them."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from data.builder import SourceError, SourceOptions
from data.sets.video_folder import split_by_name
from data.walk import FolderBuilder
from videodiff_jax.inputs.folders import entries


@dataclasses.dataclass(frozen=True)
class SkyTimelapseOptions(SourceOptions):
  """Options of `sky_timelapse`; others as in `SourceOptions`.

  Attributes:
    source: the folder in which sky_train and sky_test (or train and test) hold the videos, or a
      folder of videos alone, as StyleGAN-V's.
    size: side of the square frames in pixels.
    num_frames: shorter videos are skipped: the data set has some of 2 frames.
  """

  size: int = 256

  def __post_init__(self) -> None:
    super().__post_init__()
    inner = [entry.path for entry in entries(pathlib.Path(self.source)) if entry.is_folder]
    if not inner:
      raise SourceError(f"--source must hold folders of frames; {self.source} has none.")
    for path in inner:
      if (path / "sky_train").is_dir() or (path / "train").is_dir():
        raise SourceError(f"--source is one folder too high: give {path}.")

  def folders(self) -> dict[str, pathlib.Path]:
    """The folder of each split; of '' where there are no splits."""
    root = pathlib.Path(self.source)
    named = {split: (root / f"sky_{split}", root / split) for split in ("train", "test")}
    found = {
      split: next(path for path in paths if path.is_dir())
      for split, paths in named.items()
      if any(path.is_dir() for path in paths)
    }
    return found or {"": root}


class SkyTimelapse(FolderBuilder):
  """Time-lapse videos of the sky: 2,392 for training and 225 for testing.

  Get sky_timelapse.zip, 640x360 JPEG frames, from the link that DTVNet
  (https://github.com/zhangzjn/DTVNet) or MDGAN (https://github.com/weixiong-ur/mdgan) gives, and
  unpack it; --source is the folder sky_timelapse:
    sky_train/<long video>/<short video>/<frame>.jpg   997 long videos in 2,392 short ones
    sky_test/<long video>/<short video>/<frame>.jpg    111 long videos in 225 short ones
  Also read are train and test for these names, StyleGAN-V's one level of folders
  (<video>/<frame>.jpg), and its folder of videos without splits, or sky_train alone: then one
  video in ten is held out for testing, by a hash of its name.
  A video is a short one, the frames of which are sorted by name; their rate is not known.
  """

  OPTIONS = SkyTimelapseOptions
  VIDEOS_PER_PART = 8
  PUBLISHED: ClassVar[Mapping[str, int]] = {"train": 2392, "test": 225}

  options: SkyTimelapseOptions

  def roots(self) -> Mapping[str, pathlib.Path]:
    return self.options.folders()

  def assign_splits(self, names: Sequence[str]) -> Mapping[str, str]:
    held_out = "test" in self.options.folders()
    return super().assign_splits(names) if held_out else split_by_name(names)
