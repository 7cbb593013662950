"""Videos in and out of files: decoding and mp4 by PyAV, GIFs and PNG strips by Pillow.

Every video here is uint8 (f, h, w, c). Readers return c = 3; writers take c = 1 or 3. PyAV is
imported on first use, so that GIFs, strips and the crop work without it.
"""

import contextlib
import fractions
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

VIDEO_SUFFIXES = frozenset(
  ".3gp .avi .flv .gif .m4v .mkv .mov .mp4 .mpeg .mpg .ogv .webm .wmv".split()
)
IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
_VIEW_SIZE = 128  # Smaller frames are enlarged for people to look at.
# How a frame becomes a square: GLOBER's way, and MCVD's, which LGC-VD took over.
CROPS = {
  "pillow_bicubic": Image.Resampling.BICUBIC,
  "integer_lanczos": Image.Resampling.LANCZOS,
}


class VideoError(ValueError):
  """A video that cannot be used; `reason` is the message without the name."""

  def __init__(self, path: str | pathlib.Path, reason: str):
    super().__init__(f"{path}: {reason}")
    self.path, self.reason = path, reason

  def __reduce__(self) -> tuple[Any, ...]:
    return VideoError, (self.path, self.reason)


def _import_av() -> Any:
  try:
    import av
  except ImportError as error:
    raise ImportError(
      'Reading and writing video files needs PyAV: pip install -e ".[demo]".'
    ) from error
  return av


def square_crop_resize(frame: np.ndarray, size: int, crop: str = "pillow_bicubic") -> np.ndarray:
  """The centre square of a frame, resized with antialiasing, as the authors prepare theirs.

  Args:
    frame: uint8 (h, w, 3) or (h, w, 1).
    size: side of the result in pixels.
    crop: of `CROPS`. Where n is the shorter side, 'pillow_bicubic' (GLOBER) takes n pixels from
      (side - n) / 2 on, both ends rounded as Pillow rounds a float crop box, half to even;
      'integer_lanczos' (MCVD, LGC-VD) takes side // 2 - n // 2 to side // 2 + n // 2.

  Returns:
    uint8 (size, size, c). Resampling is done in uint8, per axis, as Pillow does.

  Raises:
    ValueError: no such crop, or a frame of one pixel's height or width, which has no centre.
  """
  if crop not in CROPS:
    raise ValueError(f"Unknown crop {crop!r}; choose {', '.join(CROPS)}.")
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


def natural_key(name: str) -> list[Any]:
  """Sorts by name with numbers by value, so that frame_2.png precedes frame_10.png."""
  return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def stream_video(path: str | pathlib.Path) -> tuple[float, Iterator[np.ndarray]]:
  """Opens a video for one pass from start to end, so that length costs no memory.

  Nothing seeks: positions found by time stamp are wrong on files of variable frame rate.

  Args:
    path: a video file, or a folder of images, which are its frames in the order of their names.

  Returns:
    (frames a second, or 0 where unknown; iterator over uint8 (h, w, 3) frames). Iterating
    raises `VideoError` where a frame cannot be decoded or the file ends before its time.

  Raises:
    VideoError: the file is no video, or the folder holds no image.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    images = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
      raise VideoError(path, "a folder without images")
    return 0.0, map(read_image, sorted(images, key=lambda p: natural_key(p.name)))
  if not path.exists():
    raise VideoError(path, "no such file")
  av = _import_av()
  with contextlib.ExitStack() as stack:
    try:
      container = stack.enter_context(av.open(str(path), **_lenient(av)))
    except (av.FFmpegError, ValueError) as error:
      raise VideoError(path, f"not a video ({_told(error)})") from error
    if not container.streams.video:
      raise VideoError(path, "holds no video stream")
    rate = container.streams.video[0].average_rate
    return float(rate or 0), _decode(container, path, stack.pop_all())


def _decode(
  container: Any, path: pathlib.Path, stack: contextlib.ExitStack
) -> Iterator[np.ndarray]:
  av = _import_av()
  stream = container.streams.video[0]
  stream.thread_type = "AUTO"
  decoded, end = 0, 0.0
  with stack:
    try:
      for frame in container.decode(stream):
        decoded += 1
        if frame.pts is not None:
          end = float((frame.pts - (stream.start_time or 0)) * frame.time_base)
        yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    except (av.FFmpegError, ValueError) as error:
      raise VideoError(path, f"cannot be decoded to its end ({_told(error)})") from error
    # A file cut between two packets ends without an error. Frames outside an edit list are
    # missing too, but not their time; a long last frame takes time, but is not missing.
    expected = float((stream.duration or 0) * (stream.time_base or 0))
    missing = expected - end - 2 / float(stream.average_rate or 10)
    if decoded < (stream.frames or decoded + 1) and missing > 0.02 * expected:
      raise VideoError(path, f"truncated, {end:.1f} of {expected:.1f} seconds are there")


def _lenient(av: Any) -> dict[str, str]:
  """A title in another code than UTF-8 is no reason to leave a video out."""
  # From 19 on PyAV has no such argument, and takes every title.
  return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def _told(error: Exception) -> str:
  """FFmpeg's own words, without the path that PyAV adds; or the error's."""
  return getattr(error, "strerror", None) or str(error)


def read_image(path: pathlib.Path) -> np.ndarray:
  """An image file as uint8 (h, w, 3); `VideoError`, of its folder, where it is damaged."""
  try:
    with Image.open(path) as image:
      return np.asarray(image.convert("RGB"))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    raise VideoError(path.parent, f"frame {path.name} cannot be read") from error


def read_video(path: str | pathlib.Path) -> tuple[np.ndarray, float]:
  """Reads a whole video file, or a folder of images sorted by name.

  Returns:
    (uint8 (f, h, w, 3), frames a second or 0 where unknown).

  Raises:
    VideoError: the reason why it cannot be read.
  """
  rate, stream = stream_video(path)
  frames = list(stream)
  if not frames:
    raise VideoError(path, "holds no frame")
  if len(shapes := {frame.shape for frame in frames}) > 1:
    raise VideoError(path, f"its frames differ in size: {sorted(shapes)}")
  return np.stack(frames), rate


def _viewable(video: np.ndarray, upscale: int | None) -> np.ndarray:
  """RGB, enlarged by `upscale` (nearest neighbour), by default to at least 128 pixels."""
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] not in (1, 3):
    raise ValueError(
      f"A video is uint8 (f, h, w, 1 or 3); this one is {video.dtype} {video.shape}."
    )
  if upscale is None:
    upscale = -(-_VIEW_SIZE // min(video.shape[1:3]))
  video = video.repeat(upscale, axis=1).repeat(upscale, axis=2)
  return np.broadcast_to(video, (*video.shape[:3], 3))


def write_mp4(
  path: str | pathlib.Path, video: np.ndarray, fps: float = 8, upscale: int | None = None
) -> None:
  """Writes H.264 in 4:2:0, which every player shows; odd sides gain one repeated pixel.

  Args:
    path: ends in .mp4.
    video: uint8 (f, h, w, 1 or 3).
    fps: frames a second.
    upscale: nearest-neighbour factor. None enlarges small frames to 128 pixels.
  """
  av = _import_av()
  video = _viewable(video, upscale)
  height, width = video.shape[1:3]
  video = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
  rate = fractions.Fraction(fps).limit_denominator(1001)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=rate, options={"crf": "17"})
    stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
    for frame in video:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def write_gif(
  path: str | pathlib.Path, video: np.ndarray, fps: float = 8, upscale: int | None = None
) -> None:
  """Writes an endless GIF; arguments as `write_mp4`. Needs no PyAV.

  A GIF counts time in hundredths of a second, and players slow down below two of them.
  """
  first, *rest = [Image.fromarray(frame) for frame in _viewable(video, upscale)]
  duration = 10 * max(round(100 / fps), 2)
  first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)


def mosaic(rows: Iterable[np.ndarray]) -> np.ndarray:
  """One video of many that play together.

  Args:
    rows: each (n, f, h, w, c), n videos side by side; all rows of one shape.

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
    path: ends in .png.
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
  strip.save(path)
