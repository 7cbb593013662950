"""The one door of picture files: what a viewer shows of them, in 8 bits; or why it cannot be used.

A file of several pages (TIFF stacks, animated PNG, WebP and AVIF) is a video, and no frame of one.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from videodiff_jax.inputs.folders import text_of
from videodiff_jax.inputs.video_error import VideoError

SUFFIXES = frozenset(
  ".apng .avif .bmp .dib .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tga .tif "
  ".tiff .webp".split()
)
_ORIENTATION = 0x0112  # Of Exif: where row 0 and column 0 are on the picture as it is shown.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# Tags of TIFF.
_SUBFILE, _BITS, _PHOTOMETRIC = 254, 258, 262
_SMALLER, _MASK = 1, 4  # In _SUBFILE: a page that is a smaller copy, or a mask, of another.
_WHITE_IS_ZERO = 0


class _Unusable(ValueError):
  """A picture that is whole, but means no colours."""


def read_image(path: pathlib.Path) -> np.ndarray:
  """A picture as uint8 (h, w, 3): upright, over white where it is transparent, 16 bits scaled.

  Raises:
    VideoError: of its folder, where it is damaged, too large, of several pages, or of numbers
      whose black and white are not known.
  """
  try:
    with Image.open(path) as image:
      pages = _pages(image)
      if len(pages) > 1:
        raise _Unusable(f"holds {len(pages)} pages: it is a video by itself, and no frame")
      return _rgb(image)
  except Exception as error:  # On damaged files decoders raise of every kind.
    raise VideoError(path.parent, f"frame {text_of(path.name)} {_reason(error)}") from error


def count_pages(path: pathlib.Path) -> int:
  """How many pictures a file holds; 0 where it cannot be read, which reading it tells."""
  try:
    with Image.open(path) as image:
      return len(_pages(image))
  except Exception:
    return 0


def stream_pages(path: pathlib.Path) -> tuple[float, Iterator[np.ndarray]]:
  """The pages of one file as a video: (frames a second, or 0 where unknown; iterator of frames).

  Frames are as of `read_image`; so are errors, of the file, and raised while iterating too.
  """
  try:
    with Image.open(path) as image:
      pages = _pages(image)
      image.seek(pages[0])
      image.load()
      duration = float(image.info.get("duration") or 0)  # of the first page, in milliseconds
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
    return f"cannot be read: it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
  return "cannot be read"


def _pages(image: Image.Image) -> list[int]:
  """The pages that are pictures by themselves."""
  if image.format == "MPO":  # A phone's depth or gain map, or a second eye, behind the picture.
    return [0]
  # The still picture of an animated PNG, for programs that show no other, may be no part of it.
  pages = range(int(bool(image.info.get("default_image"))), getattr(image, "n_frames", 1))
  if image.format != "TIFF" or len(pages) < 2:
    return list(pages)
  kept = []
  for page in pages:
    image.seek(page)
    if not image.tag_v2.get(_SUBFILE, 0) & (_SMALLER | _MASK):
      kept.append(page)
  image.seek(0)
  return kept or [0]


def _rgb(image: Image.Image) -> np.ndarray:
  """The page at which a file stands, uint8 (h, w, 3)."""
  image.load()  # A TIFF is turned here, and tells no orientation afterwards.
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
  """An RGBA picture on a white page, as viewers show it, and as transparent GIFs are decoded."""
  return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except Exception:  # Notes that cannot be read are no reason against the picture.
    return 1


def _in_8_bits(image: Image.Image) -> np.ndarray:
  """A grey picture of more than 8 bits, scaled so that its white is 255: by 257 of 16 bits."""
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
