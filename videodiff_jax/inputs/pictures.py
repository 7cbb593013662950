"""Reads picture files as a viewer shows them, in 8 bits, or says why they cannot be used.

A file with several pages (TIFF stacks, animated PNG, WebP and AVIF) is a video, not a frame of one.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from videodiff_jax.inputs.folders import text_of
from videodiff_jax.inputs.video_error import VideoError

SUFFIXES = frozenset(
  ".apng .avif .bmp .dib .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tga .tif "
  ".tiff .webp".split()
)
_ORIENTATION = 0x0112  # Exif tag: where the shown picture has row 0 and column 0
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# TIFF tags.
_SUBFILE, _BITS, _PHOTOMETRIC = 254, 258, 262
_SMALLER, _MASK = 1, 4  # bits of _SUBFILE: the page is a smaller copy, or a mask, of another page
_WHITE_IS_ZERO = 0


class _Unusable(ValueError):
  """The file is intact, but its values cannot be shown as colours."""


def read_image(path: pathlib.Path) -> np.ndarray:
  """Reads a picture as uint8 (h, w, 3): upright, on white where transparent, 16 bits scaled to 8.

  Raises:
    VideoError: the picture is damaged, too large, has several pages, or holds numbers whose black
      and white are not known; the error names its folder.
  """
  try:
    with Image.open(path) as image:
      pages = _pages(image)
      if len(pages) > 1:
        raise _Unusable(f"holds {len(pages)} pages: it is a video by itself, not a frame")
      return _rgb(image)
  except Exception as error:  # decoders raise any kind of exception on damaged files
    raise VideoError(path.parent, f"frame {text_of(path.name)} {_reason(error)}") from error


def count_pages(path: pathlib.Path) -> int:
  """Counts the pictures in a file; 0 where it cannot be read. `read_image` then gives the error."""
  try:
    with Image.open(path) as image:
      return len(_pages(image))
  except Exception:
    return 0


def stream_pages(path: pathlib.Path) -> tuple[float, Iterator[np.ndarray]]:
  """Opens the pages of one file as a video.

  Returns:
    (frames per second, or 0 where unknown; iterator of frames as `read_image` returns them).

  Raises:
    VideoError: as in `read_image`, now or while iterating; the error names the file.
  """
  try:
    with Image.open(path) as image:
      pages = _pages(image)
      image.seek(pages[0])
      image.load()
      duration = float(image.info.get("duration") or 0)  # the first page's, in milliseconds
  except Exception as error:
    raise VideoError(path, _reason(error)) from error
  return 1000 / duration if duration > 0 else 0.0, _read_pages(path, pages)


def _read_pages(path: pathlib.Path, pages: list[int]) -> Iterator[np.ndarray]:
  shown = 0
  try:
    with Image.open(path) as image:
      for page in pages:
        image.seek(page)
        frame = _rgb(image)
        shown += 1
        yield frame
  except Exception as error:
    where = f"page {shown + 1} of {len(pages)} " if len(pages) > 1 else ""
    raise VideoError(path, where + _reason(error)) from error


def _reason(error: Exception) -> str:
  if isinstance(error, _Unusable):
    return str(error)
  if isinstance(error, Image.DecompressionBombError):
    return f"cannot be read: it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
  return "cannot be read"


def _pages(image: Image.Image) -> list[int]:
  """Returns the numbers of the pages that are pictures in their own right."""
  if image.format == "MPO":  # later pages are a phone's depth or gain map, or a second eye
    return [0]
  # An animated PNG's default image is for viewers without animation and may not be part of it.
  pages = range(int(bool(image.info.get("default_image"))), getattr(image, "n_frames", 1))
  if not isinstance(image, TiffImagePlugin.TiffImageFile) or len(pages) < 2:
    return list(pages)
  kept = []
  for page in pages:
    image.seek(page)
    if not image.tag_v2.get(_SUBFILE, 0) & (_SMALLER | _MASK):
      kept.append(page)
  image.seek(0)
  return kept or [0]


def _rgb(image: Image.Image) -> np.ndarray:
  """Returns the current page of a file, uint8 (h, w, 3)."""
  image.load()  # Pillow turns a TIFF upright here and drops its orientation tag
  turn = _TURNS.get(_orientation(image))
  if image.mode == "F":
    raise _Unusable(
      "holds floating-point numbers, whose black and white are not known: save it in 8 or 16 bits"
    )
  if image.mode.startswith("I"):
    image = Image.fromarray(_in_8_bits(image))
  elif image.has_transparency_data:
    image = over_white(image.convert("RGBA"))
  image = image.convert("RGB")
  return np.asarray(image if turn is None else image.transpose(turn))


def over_white(image: Image.Image) -> Image.Image:
  """Composites an RGBA picture on white, as viewers show it and as transparent GIFs are decoded."""
  return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except Exception:  # unreadable Exif data do not make the picture unusable
    return 1


def _in_8_bits(image: Image.Image) -> np.ndarray:
  """Scales a grey picture of more than 8 bits so that its white is 255: 16 bits by 1 / 257."""
  tags: Any = getattr(image, "tag_v2", {})
  if image.mode == "I" and tags:
    raise _Unusable(
      "holds signed or 32-bit numbers, whose black and white are not known: save it in 8 or 16 bits"
    )
  white = (1 << min(tags.get(_BITS, (16,))[0], 16)) - 1
  values = np.asarray(image).astype(np.int64)
  if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
    values = white - values
  grey = ((values * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
  transparent = image.info.get("transparency")
  return grey if transparent is None else np.where(values == transparent, np.uint8(255), grey)
