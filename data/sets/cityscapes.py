"""Cityscapes (Cordts et al., 2016): the PNG tree of leftImg8bit_sequence."""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from data.builder import SplitSourceOptions, Video, VideoBuilder
from videodiff_jax.inputs.pictures import read_image
from videodiff_jax.inputs.video_io import VideoError

_LENGTH = 30
_NO_FRAME = "not named as a frame, CITY_000000_000000_leftImg8bit.png"
_NAME = re.compile(r"(.+_\d{6})_(\d{6})_leftImg8bit\.png")

Frames = dict[int, pathlib.Path]  # By the frame's number, in order.


@dataclasses.dataclass(frozen=True)
class CityscapesOptions(SplitSourceOptions):
  """Options of `cityscapes`; others as in `SplitSourceOptions`.

  Attributes:
    source: the folder leftImg8bit_sequence, in which train, val and test hold a folder a city.
    size: side of the square frames in pixels.
    num_frames: every video has 30 frames; no more can be asked for.
  """

  size: int = 128
  num_frames: int = _LENGTH


class Cityscapes(VideoBuilder):
  """Drives through German cities: 2,975 videos for training, 500 for validation, 1,525 to test.

  30 frames each, 17 a second, of 2048x1024 pixels: the centre square, resized by a Lanczos
  filter, as MCVD and LGC-VD prepare them. A snippet without all of its frames is skipped. Their
  frames are stored without loss: --codec=png does so here.

  Get leftImg8bit_sequence_trainvaltest.zip (324 GB) from https://www.cityscapes-dataset.com, with
  an account there, and unpack it; --source is the folder leftImg8bit_sequence:
    train/<city>/<city>_<6 digits>_<frame, 6 digits>_leftImg8bit.png   2,975 snippets
    val/<city>/, test/<city>/                                          500 and 1,525
  """

  OPTIONS = CityscapesOptions
  CROP = "integer_lanczos"
  VIDEOS_PER_PART = 8
  PUBLISHED: ClassVar[Mapping[str, int]] = {"train": 2975, "val": 500, "test": 1525}

  options: CityscapesOptions

  @functools.cached_property
  def _found(self) -> dict[str, Frames | str]:
    """Snippets by the name of their first frame; what is no frame, and why, by its own."""
    found: dict[str, Frames | str] = {}
    for split, folder in self.options.folders().items():
      for city in self.entries(folder):
        place = f"{split}/{city.name}"
        try:
          inside = self.entries(city.path) if city.is_folder else []
        except VideoError as error:
          inside, found[place] = [], error.reason
        if city.fault:
          found[place] = city.fault
        drives: dict[str, Frames] = {}
        for entry in inside:
          match = _NAME.fullmatch(entry.name)
          if match and not entry.fault:
            drives.setdefault(match[1], {})[int(match[2])] = entry.path
          else:
            found[f"{place}/{entry.name}"] = entry.fault or _NO_FRAME
        for drive, frames in drives.items():
          for snippet in cut(frames):
            found[f"{place}/{drive}_{min(snippet):06d}"] = snippet
    return found

  def candidates(self) -> Mapping[str, int]:
    return {
      name: 0 if isinstance(frames, str) else sum(os.path.getsize(f) for f in frames.values())
      for name, frames in self._found.items()
    }

  def load(self, name: str) -> Video:
    frames = self._found[name]
    if isinstance(frames, str):
      raise VideoError(name, frames)
    if len(frames) < _LENGTH:
      first, last = min(frames), max(frames)
      gaps = [f"{number:06d}" for number in range(first, last) if number not in frames]
      without = f" without {', '.join(gaps)}" if gaps else ""
      raise VideoError(
        name, f"{len(frames)} of {_LENGTH} frames are there, {first:06d} to {last:06d}{without}"
      )
    return Video(map(read_image, frames.values()), fps=17.0)


def cut(frames: Frames) -> Iterator[Frames]:
  """Cuts the frames of one drive into snippets of up to 30 numbers, as they are there.

  A snippet begins with the first frame after the last snippet's time is over: the data set
  numbers the frames of a drive through, and leaves gaps between its snippets.
  """
  snippet: Frames = {}
  for number in sorted(frames):
    if snippet and number >= min(snippet) + _LENGTH:
      yield snippet
      snippet = {}
    snippet[number] = frames[number]
  if snippet:
    yield snippet
