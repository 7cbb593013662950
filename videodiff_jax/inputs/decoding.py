"""Decodes video files by PyAV from start to end, as players show them, and detects truncation."""

import contextlib
import fractions
import pathlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from videodiff_jax.inputs import containers, pictures
from videodiff_jax.inputs.video_error import VideoError

if TYPE_CHECKING:  # av is an extra
  from av import VideoFrame
  from av.container import InputContainer
  from av.video.stream import VideoStream

SUFFIXES = frozenset(
  ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .m1v .m2t .m2ts .m2v .m4v .mkv .mod .mov .mp4 .mpe "
  ".mpeg .mpg .mts .mxf .nut .ogv .qt .rm .rmvb .tod .ts .vob .webm .wmv .y4m".split()
)
_MOST_OBLONG = 16  # the largest ratio of a pixel's sides; a larger one is a damaged number


class Stream(NamedTuple):
  """A video opened for one pass.

  Attributes:
    fps: frames per second, or 0 where unknown.
    frames: iterator over uint8 (h, w, 3). Iterating raises `VideoError` where a frame cannot be
      decoded or the file ends too early.
    unsure: why it cannot be checked that the file is complete; '' where it is checked.
  """

  fps: float
  frames: Iterator[np.ndarray]
  unsure: str = ""


class _Claim(NamedTuple):
  """The length that a file claims to have.

  Attributes:
    seconds: the time of its end.
    start: the time that counts as 0, in seconds.
    of_file: whether the claim is about the whole file, where sound may be longer than the picture.
  """

  seconds: float
  start: float = 0.0
  of_file: bool = False


def import_av() -> Any:
  try:
    import av
  except ImportError as error:
    raise ImportError(
      'Reading and writing video files needs PyAV: pip install -e ".[demo]".'
    ) from error
  return av


def open_file(path: pathlib.Path) -> Stream:
  """Opens the first video stream of a file that is not a cover picture.

  Raises:
    VideoError: the file is no video, or its header is damaged.
    ImportError: PyAV is missing.
  """
  av = import_av()
  with contextlib.ExitStack() as stack:
    try:
      container = stack.enter_context(av.open(str(path), **_lenient(av)))
    except (av.FFmpegError, ValueError) as error:
      raise VideoError(path, f"not a video ({_reason(error)})") from error
    cover = av.stream.Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not moving:
      only = ", only a cover picture" if container.streams.video else ""
      raise VideoError(path, f"holds no video stream{only}")
    pixel = moving[0].sample_aspect_ratio or fractions.Fraction(1)
    if not 1 / _MOST_OBLONG <= pixel <= _MOST_OBLONG:
      raise VideoError(path, f"its pixels are {pixel.numerator}:{pixel.denominator} oblong")
    kind, claim = container.format.name.split(",")[0], _claim(container, moving[0])
    if kind == "gif" and not _ends_as_gif(path):
      raise VideoError(path, "truncated, the mark at its end is missing")
    there, claimed = path.stat().st_size, containers.claimed_bytes(path, kind)
    if claimed is not None and there < claimed:
      raise VideoError(path, f"truncated, {there} of {claimed} bytes are there")
    known = claim is not None or claimed is not None or kind == "gif"
    unsure = "" if known else f"{kind} does not tell its length"
    frames = _decode(container, moving[0], claim, path, stack.pop_all())
    return Stream(float(moving[0].average_rate or 0), frames, unsure)


def _claim(container: "InputContainer", stream: "VideoStream") -> _Claim | None:
  """Returns the length that a container's header claims; lengths guessed from the data are none."""
  of_file = _Claim((container.duration or 0) / 1e6, of_file=True)
  of_stream = (stream.duration or 0) * (stream.time_base or 0)
  claim = None
  match container.format.name.split(",")[0]:
    case "mov":  # MP4, QuickTime and 3GP; a fragmented file has no duration for each stream
      start = (stream.start_time or 0) * (stream.time_base or 0)
      claim = _Claim(float(of_stream), float(start)) if of_stream else of_file
    case "avi":  # its duration would be a guess from the file's size
      claim = _Claim(float(stream.frames / (stream.average_rate or 10)))
    case "matroska":  # a tag that was copied from another file can claim more than this file
      tag = _seconds(stream.metadata.get("DURATION", ""))
      claim = _Claim(tag) if 0 < tag <= of_file.seconds + 1 else of_file
    case "flv" | "asf":
      claim = of_file
  return claim if claim and claim.seconds > 0 else None


def _seconds(text: str) -> float:
  """Converts a time such as '00:00:06.5' to seconds; anything else is 0."""
  found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", text.strip(), re.ASCII)
  return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0


def _ends_as_gif(path: pathlib.Path) -> bool:
  with path.open("rb") as file:
    file.seek(max(0, path.stat().st_size - 1024))
    return file.read().rstrip(b"\0").endswith(b";")


def _decode(
  container: "InputContainer",
  stream: "VideoStream",
  claim: _Claim | None,
  path: pathlib.Path,
  stack: contextlib.ExitStack,
) -> Iterator[np.ndarray]:
  av = import_av()
  stream.thread_type = "AUTO"
  decoded, end = 0, 0.0
  with stack:
    try:
      for packet in container.demux(*([] if claim and claim.of_file else [stream])):
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
          end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index == stream.index:
          for frame in stream.decode(packet):
            decoded += 1
            yield _shown(frame, stream)
    except (av.FFmpegError, ValueError) as error:
      raise VideoError(path, f"cannot be decoded to its end ({_reason(error)})") from error
    # A file cut between two packets ends without an error. Frames outside an edit list are
    # missing too, but not their time; a long last frame takes time, but is not missing.
    if claim and decoded < (stream.frames or decoded + 1):
      there = end - claim.start
      missing = claim.seconds - there - 2 / float(stream.average_rate or 10)
      if missing > 0.02 * claim.seconds:
        raise VideoError(path, f"truncated, {there:.1f} of {claim.seconds:.1f} seconds are there")


def _shown(frame: "VideoFrame", stream: "VideoStream") -> np.ndarray:
  """Returns a frame as players show it, uint8 (h, w, 3): with square pixels, upright, on white."""
  clear = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
  # In an uncompressed file, 32 bits per pixel are three colours and one unused byte.
  if clear and stream.codec_context.name != "rawvideo":
    image = Image.fromarray(frame.to_ndarray(format="rgba"))
    picture = np.asarray(pictures.over_white(image).convert("RGB"))
  else:
    picture = frame.to_ndarray(format="rgb24")
  width = max(1, round(frame.width * (stream.sample_aspect_ratio or 1)))
  if width != frame.width:
    image = Image.fromarray(picture).resize((width, frame.height), Image.Resampling.BICUBIC)
    picture = np.asarray(image)
  matrix = frame.side_data.get("DISPLAYMATRIX")
  if matrix is None:
    return picture
  # The pixel at column p and row q is shown at column a p + c q and row b p + d q.
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.int64)
  if abs(b) + abs(c) > abs(a) + abs(d):
    picture, a, d = picture.swapaxes(0, 1), c, b
  return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _lenient(av: Any) -> dict[str, str]:
  """Returns options of `av.open` that accept a title in another encoding than UTF-8."""
  # PyAV 19 and later has no such argument and accepts every title.
  return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def _reason(error: Exception) -> str:
  """Returns FFmpeg's own message, without the path that PyAV adds; else the error's message."""
  return getattr(error, "strerror", None) or str(error)
