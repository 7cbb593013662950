"""Video files by PyAV, from start to end: what a player shows, and whether all of it is there."""

import contextlib
import fractions
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from videodiff_jax.inputs import containers, pictures
from videodiff_jax.inputs.video_error import VideoError

SUFFIXES = frozenset(
  ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .m1v .m2t .m2ts .m2v .m4v .mkv .mod .mov .mp4 .mpe "
  ".mpeg .mpg .mts .mxf .nut .ogv .qt .rm .rmvb .tod .ts .vob .webm .wmv .y4m".split()
)
_MOST_OBLONG = 16  # Sides of a pixel, one to the other; what is beyond is a damaged number.


class Stream(NamedTuple):
  """A video opened for one pass.

  Attributes:
    fps: frames a second, or 0 where unknown.
    frames: iterator over uint8 (h, w, 3). Iterating raises `VideoError` where a frame cannot be
      decoded or the file ends before its time.
    unsure: why nobody can know whether the file is whole; '' where that is checked.
  """

  fps: float
  frames: Iterator[np.ndarray]
  unsure: str = ""


class _Claim(NamedTuple):
  """How long a file says it is.

  Attributes:
    seconds: its end.
    start: the time that counts as 0, in seconds.
    of_file: whether the claim is of the whole file, so that sound may fill it too.
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
  """Opens the first moving picture of a video file; covers are none.

  Raises:
    VideoError: it is no video.
  """
  av = import_av()
  with contextlib.ExitStack() as stack:
    try:
      container = stack.enter_context(av.open(str(path), **_lenient(av)))
    except (av.FFmpegError, ValueError) as error:
      raise VideoError(path, f"not a video ({_told(error)})") from error
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


def _claim(container: Any, stream: Any) -> _Claim | None:
  """What a container says in its header; not what was guessed from what is there of the file."""
  of_file = _Claim((container.duration or 0) / 1e6, of_file=True)
  of_stream = (stream.duration or 0) * (stream.time_base or 0)
  claim = None
  match container.format.name.split(",")[0]:
    case "mov":  # MP4, QuickTime and 3GP; of no stream where the file is in fragments.
      start = (stream.start_time or 0) * (stream.time_base or 0)
      claim = _Claim(float(of_stream), float(start)) if of_stream else of_file
    case "avi":  # A duration would be guessed again from the size of the file.
      claim = _Claim(float(stream.frames / (stream.average_rate or 10)))
    case "matroska":  # Tags that came with pictures from another file can be longer than this.
      tag = _seconds(stream.metadata.get("DURATION", ""))
      claim = _Claim(tag) if 0 < tag <= of_file.seconds + 1 else of_file
    case "flv" | "asf":
      claim = of_file
  return claim if claim and claim.seconds > 0 else None


def _seconds(text: str) -> float:
  """Of '00:00:06.5'; 0 of anything else."""
  found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", text.strip(), re.ASCII)
  return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0


def _ends_as_gif(path: pathlib.Path) -> bool:
  with path.open("rb") as file:
    file.seek(max(0, path.stat().st_size - 1024))
    return file.read().rstrip(b"\0").endswith(b";")


def _decode(
  container: Any,
  stream: Any,
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
          for frame in packet.decode():
            decoded += 1
            yield _shown(frame, stream)
    except (av.FFmpegError, ValueError) as error:
      raise VideoError(path, f"cannot be decoded to its end ({_told(error)})") from error
    # A file cut between two packets ends without an error. Frames outside an edit list are
    # missing too, but not their time; a long last frame takes time, but is not missing.
    if claim and decoded < (stream.frames or decoded + 1):
      there = end - claim.start
      missing = claim.seconds - there - 2 / float(stream.average_rate or 10)
      if missing > 0.02 * claim.seconds:
        raise VideoError(path, f"truncated, {there:.1f} of {claim.seconds:.1f} seconds are there")


def _shown(frame: Any, stream: Any) -> np.ndarray:
  """A frame as players show it, uint8 (h, w, 3): of square pixels, upright, over white."""
  clear = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
  # 32 bits a pixel of an uncompressed file are three colours and a byte that means nothing.
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
  # Column p and row q are shown at column a p + c q and row b p + d q.
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.int64)
  if abs(b) + abs(c) > abs(a) + abs(d):
    picture, a, d = picture.swapaxes(0, 1), c, b
  return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _lenient(av: Any) -> dict[str, str]:
  """A title in another code than UTF-8 is no reason to leave a video out."""
  # From 19 on PyAV has no such argument, and takes every title.
  return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def _told(error: Exception) -> str:
  """FFmpeg's own words, without the path that PyAV adds; or the error's."""
  return getattr(error, "strerror", None) or str(error)
