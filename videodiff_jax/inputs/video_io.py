"""Reads and writes videos: video files by PyAV; pictures, GIFs and PNG strips by Pillow.

Every video here is uint8 (f, h, w, c). Readers return c = 3; writers take c = 1 or 3. PyAV is
imported on first use, so that GIFs, strips and the crop work without it.
"""

import fractions
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videodiff_jax import whole_files
from videodiff_jax.choices import check_choice
from videodiff_jax.inputs import decoding, folders, pictures
from videodiff_jax.inputs.decoding import Stream
from videodiff_jax.inputs.video_error import VideoError

_VIEW_SIZE = 128  # pixels; smaller frames are enlarged for viewing
# How a frame becomes square: GLOBER's way, and MCVD's, which LGC-VD adopted.
CROPS = {
  "pillow_bicubic": Image.Resampling.BICUBIC,
  "integer_lanczos": Image.Resampling.LANCZOS,
}


def square_crop_resize(frame: np.ndarray, size: int, crop: str = "pillow_bicubic") -> np.ndarray:
  """Crops a frame to its centre square and resizes it with antialiasing, as the authors do.

  Args:
    frame: uint8 (h, w, 3) or (h, w, 1).
    size: side of the result in pixels.
    crop: a name in `CROPS`. Let n be the shorter side. 'pillow_bicubic' (GLOBER) takes n pixels
      from (side - n) / 2 on, with both ends rounded half to even, as Pillow rounds a float crop
      box. 'integer_lanczos' (MCVD, LGC-VD) takes side // 2 - n // 2 to side // 2 + n // 2.

  Returns:
    uint8 (size, size, c). Resampling is done in uint8, per axis, as Pillow does.

  Raises:
    ValueError: the crop is unknown, or the frame is one pixel high or wide and has no centre.
  """
  check_choice("crop", crop, CROPS)
  channels = frame.shape[-1]
  image = Image.fromarray(frame[..., 0] if channels == 1 else frame)
  side = min(image.size)
  if side < 2:
    raise ValueError(f"a frame of {image.width}x{image.height} pixels has no centre square")
  if crop == "pillow_bicubic":
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
  else:
    x, y, half = image.width // 2, image.height // 2, side // 2
    box = (x - half, y - half, x + half, y + half)
  image = image.crop(box).resize((size, size), CROPS[crop])
  return np.asarray(image).reshape(size, size, channels)


def stream_video(path: str | pathlib.Path) -> Stream:
  """Opens a video for one pass from start to end, so that memory does not grow with length.

  It never seeks: positions from time stamps are wrong in files of variable frame rate. Frames are
  as players show them: rotated and mirrored as the file says, with square pixels, on white where
  they are transparent.

  Args:
    path: a video file; a picture file, whose pages are the frames; or a folder of pictures, which
      are the frames in natural order of their names.

  Raises:
    VideoError: the file is no video, or the folder holds no image.
  """
  path = pathlib.Path(path)
  if os.path.isdir(path):  # pathlib's own raises where a parent folder may not be entered
    images = [e for e in folders.entries(path) if is_picture(e.path) and not e.is_folder]
    if not images:
      raise VideoError(path, "a folder without images")
    return Stream(0.0, map(_frame_of_folder, images))
  if not os.path.isfile(path):
    raise VideoError(path, "no such file")
  if is_picture(path):
    return Stream(*pictures.stream_pages(path))
  return decoding.open_file(path)


def is_picture(path: pathlib.Path) -> bool:
  """Tells by its name whether a file is a picture."""
  return path.suffix.lower() in pictures.SUFFIXES


def is_video(path: pathlib.Path) -> bool:
  """Tells by its name whether a file is a video."""
  return path.suffix.lower() in decoding.SUFFIXES


def _frame_of_folder(entry: folders.Entry) -> np.ndarray:
  if entry.fault:
    raise VideoError(entry.path.parent, f"frame {entry.name} is {entry.fault}")
  return pictures.read_image(entry.path)


def read_video(path: str | pathlib.Path) -> tuple[np.ndarray, float]:
  """Reads a whole video file, or a folder of images sorted by name.

  Returns:
    (uint8 (f, h, w, 3), frames per second or 0 where unknown).

  Raises:
    VideoError: it cannot be read, has no frame, or its frames differ in size.
  """
  stream = stream_video(path)
  frames = list(stream.frames)
  if not frames:
    raise VideoError(path, "holds no frame")
  if len(shapes := {frame.shape for frame in frames}) > 1:
    raise VideoError(path, f"its frames differ in size: {sorted(shapes)}")
  return np.stack(frames), stream.fps


def _viewable(video: np.ndarray, upscale: int | None) -> np.ndarray:
  """Returns RGB, enlarged by `upscale` (nearest neighbour), by default to at least 128 pixels."""
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] not in (1, 3):
    raise ValueError(f"A video must be uint8 (f, h, w, 1 or 3), not {video.dtype} {video.shape}.")
  if upscale is None:
    upscale = -(-_VIEW_SIZE // min(video.shape[1:3]))
  video = video.repeat(upscale, axis=1).repeat(upscale, axis=2)
  return np.broadcast_to(video, (*video.shape[:3], 3))


def write_mp4(
  path: str | pathlib.Path, video: np.ndarray, fps: float = 8, upscale: int | None = None
) -> None:
  """Writes H.264 in 4:2:0, which every player shows; odd sides gain one repeated pixel.

  Like `write_gif` and `write_strip`, it writes a whole file or none, see `whole_files.written`.

  Args:
    path: a path that ends in .mp4.
    video: uint8 (f, h, w, 1 or 3).
    fps: frames per second.
    upscale: nearest-neighbour factor. None enlarges small frames to 128 pixels.

  Raises:
    ValueError: the video has another type or shape.
    ImportError: PyAV is missing.
  """
  av = decoding.import_av()
  video = _viewable(video, upscale)
  height, width = video.shape[1:3]
  video = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
  rate = fractions.Fraction(fps).limit_denominator(1001)
  with whole_files.written(path) as half, av.open(str(half), "w") as container:
    stream = container.add_stream("libx264", rate=rate, options={"crf": "17"})
    stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
    for frame in video:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def write_gif(
  path: str | pathlib.Path, video: np.ndarray, fps: float = 8, upscale: int | None = None
) -> None:
  """Writes a looping GIF; arguments as in `write_mp4`. Needs no PyAV.

  A GIF counts time in hundredths of a second, and players slow down frames shorter than two.
  """
  first, *rest = [Image.fromarray(frame) for frame in _viewable(video, upscale)]
  duration = 10 * max(round(100 / fps), 2)
  data = io.BytesIO()  # written to a file directly, Pillow's errors do not say what is wrong
  first.save(data, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
  whole_files.write_bytes(path, data.getvalue())


def mosaic(rows: Iterable[np.ndarray]) -> np.ndarray:
  """Arranges many videos as one that plays them together.

  Args:
    rows: arrays (n, f, h, w, c) of one shape; each is a row of n videos side by side.

  Returns:
    (f, rows h, n w, c).
  """
  return np.concatenate([np.concatenate(videos, axis=2) for videos in rows], axis=1)


def write_strip(
  path: str | pathlib.Path,
  rows: Mapping[str, np.ndarray] | Sequence[np.ndarray],
  max_frames: int = 16,
  upscale: int | None = None,
) -> None:
  """Writes one PNG whose rows are videos and whose columns are frames.

  Args:
    path: a path that ends in .png.
    rows: videos uint8 (f, h, w, 1 or 3), of any lengths and sizes; a mapping's keys label them.
    max_frames: a longer video shows this many frames at equal intervals, first and last
      included.
    upscale: nearest-neighbour factor. None enlarges small frames to 128 pixels.
  """
  labelled = list(rows.items() if isinstance(rows, Mapping) else (("", row) for row in rows))
  if not labelled:
    raise ValueError("A strip needs at least one row.")
  pictures = []
  for _, video in labelled:
    shown = np.linspace(0, len(video) - 1, min(max_frames, len(video))).round().astype(int)
    frames = np.pad(_viewable(video[shown], upscale), ((0, 0), (1, 1), (1, 1), (0, 0)))
    pictures.append(np.concatenate(frames, axis=1))
  font = ImageFont.load_default(size=16)
  margin = max(int(font.getlength(label)) + 12 * bool(label) for label, _ in labelled)
  width = margin + max(picture.shape[1] for picture in pictures)
  strip = Image.new("RGB", (width, sum(p.shape[0] for p in pictures)), "white")
  draw, top = ImageDraw.Draw(strip), 0
  for (label, _), picture in zip(labelled, pictures):
    strip.paste(Image.fromarray(picture), (margin, top))
    draw.text((6, top + picture.shape[0] // 2), label, fill="black", font=font, anchor="lm")
    top += picture.shape[0]
  data = io.BytesIO()
  strip.save(data, "PNG")
  whole_files.write_bytes(path, data.getvalue())
