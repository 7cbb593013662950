"""Tiny videos and stores for the tests of inputs and data."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from data.prepare import ensure


def noise_video(frames: int, size: int = 8, seed: int = 0) -> np.ndarray:
  """uint8 (frames, size, size, 3), every pixel random: no two frames are alike."""
  return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), np.uint8)


def write_frames(folder: pathlib.Path, video: np.ndarray) -> None:
  """A folder of PNG frames whose names are not padded: 2 sorts after 10 as text."""
  folder.mkdir(parents=True)
  for i, frame in enumerate(video):
    Image.fromarray(frame).save(folder / f"frame_{i}.png")


def write_video(
  path: pathlib.Path,
  video: np.ndarray,
  codec: str = "libx264",
  rate: int = 24,
  title: str = "",
  **options: str,
) -> None:
  """A video file of small lossy frames, which Pillow has no part in."""
  import av

  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w", options=options) as container:
    if title:
      container.metadata["title"] = title
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
    for frame in video:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def make_store(
  folder: pathlib.Path, videos: Mapping[str, np.ndarray], **options: Any
) -> pathlib.Path:
  """A store of given videos, exact with codecs raw and png."""
  for name, video in videos.items():
    write_frames(folder / "source" / name, video)
  size = next(iter(videos.values())).shape[1]
  options = {"size": size, "num_frames": 1} | options
  return ensure("video_folder", folder / "store", source=str(folder / "source"), **options)
