"""Every picture file as viewers show it, or its fault: by the door that all readers share."""

import pathlib
import re
import struct

import numpy as np
import pytest
from PIL import Image

from tests.inputs.make import noise_video
from videodiff_jax.inputs import pictures
from videodiff_jax.inputs.video_io import VideoError, read_video

ROOT = pathlib.Path(__file__).resolve().parents[2]
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000


def test_no_other_code_opens_a_picture_file() -> None:
  files = [
    f for top in ("videodiff_jax", "data", "experiments") for f in (ROOT / top).rglob("*.py")
  ]
  opened = {
    (file.relative_to(ROOT).as_posix(), what)
    for file in files
    for what in re.findall(r"Image\.open\(([^)]*)", file.read_text())
  }
  # What the project itself has compressed is no file of a user's.
  assert {name for name, what in opened if what == "path"} == {"videodiff_jax/inputs/pictures.py"}
  assert {what for _, what in opened} == {"path", "io.BytesIO(frame", "file"}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2", "white_is_zero.tif"])
def test_sixteen_bits_are_scaled_by_257(tmp_path, name) -> None:
  tags = {262: 0} if name.startswith("white") else {}
  Image.fromarray(65535 - RAMP if tags else RAMP).save(
    tmp_path / name, **({"irreversible": False} if name.endswith("jp2") else {}), 
    **({"tiffinfo": tags} if tags else {}),
  )  # fmt: skip
  expected = np.rint(RAMP / 257).astype(np.uint8)[..., None].repeat(3, -1)
  np.testing.assert_array_equal(pictures.read_image(tmp_path / name), expected)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_without_a_known_white_are_refused(tmp_path, kind) -> None:
  Image.fromarray(RAMP.astype(kind)).save(tmp_path / "a.tif")
  with pytest.raises(VideoError, match=r"a\.tif holds .* black and white are not known: save it"):
    pictures.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, suffix, orientation) -> None:
  """Exif's orientation names the sides on which the stored row 0 and column 0 are shown."""
  stored = np.zeros((16, 32, 3), np.uint8)
  stored[:8, :16] = 255  # where row 0 and column 0 are
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {"lossless": True} if suffix == "webp" else {}
  Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif, **options)
  row, column = {
    1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left",
    5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom",
  }[orientation].split()  # fmt: skip
  shown = pictures.read_image(tmp_path / f"a.{suffix}")
  assert shown.shape == ((32, 16, 3) if row in ("left", "right") else (16, 32, 3))
  half = shown.shape[0] // 2, shown.shape[1] // 2
  rows = slice(None, half[0]) if "top" in (row, column) else slice(half[0], None)
  columns = slice(None, half[1]) if "left" in (row, column) else slice(half[1], None)
  expected = np.zeros_like(shown)
  expected[rows, columns] = 255
  assert np.abs(shown.astype(int) - expected).max() < 10


def transparent(mode: str) -> Image.Image:
  """A green square on clear red; grey ones are 90 on clear 10."""
  rgba = np.full((8, 8, 4), (240, 0, 0, 0), np.uint8)
  rgba[2:6, 2:6] = (0, 200, 30, 255)
  if mode == "RGBA":
    return Image.fromarray(rgba)
  if mode == "LA":
    return Image.merge("LA", [Image.fromarray(np.where(rgba[..., 3], 90, 10).astype(np.uint8)),
                              Image.fromarray(rgba[..., 3])])  # fmt: skip
  clear = Image.fromarray(rgba[..., 3])
  indices = Image.fromarray((rgba[..., 3] // 255).astype(np.uint8))
  indices = Image.merge("PA", [indices, clear]) if mode == "PA" else indices
  indices.putpalette([240, 0, 0, 0, 200, 30])
  return indices


@pytest.mark.parametrize("mode, name, options", [
  ("RGBA", "a.png", {}), ("RGBA", "a.webp", {"lossless": True, "exact": True}),
  ("RGBA", "a.tif", {}), ("RGBA", "a.tga", {}), ("LA", "a.png", {}), ("LA", "a.tif", {}),
  ("PA", "a.tif", {}), ("P", "a.png", {"transparency": 0}), ("P", "a.gif", {"transparency": 0}),
])  # fmt: skip
def test_what_is_clear_is_white_as_in_a_gif(tmp_path, mode, name, options) -> None:
  transparent(mode).save(tmp_path / name, **options)
  shown = read_video(tmp_path / name)[0][0]
  assert (shown[:2] == 255).all() and (shown[:, 6:] == 255).all()
  np.testing.assert_array_equal(shown[3, 3], (90, 90, 90) if mode == "LA" else (0, 200, 30))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "P"])
def test_other_modes_are_converted(tmp_path, mode) -> None:
  picture = Image.new("RGB", (8, 8), "white").convert(mode)
  picture.save(tmp_path / "a.tif")
  np.testing.assert_array_equal(pictures.read_image(tmp_path / "a.tif"), np.full((8, 8, 3), 255))


PAGED = [
  ("a.tif", {}), ("a.png", {"duration": 40}), ("a.webp", {"duration": 40, "lossless": True}),
]  # fmt: skip


@pytest.mark.parametrize("name, options", PAGED)
def test_a_file_of_many_pages_is_a_video_and_no_frame(tmp_path, name, options) -> None:
  video = noise_video(5)
  first, *rest = map(Image.fromarray, video)
  first.save(tmp_path / name, save_all=True, append_images=rest, **options)
  read, fps = read_video(tmp_path / name)
  np.testing.assert_array_equal(read, video)
  assert fps == (25 if options else 0)
  with pytest.raises(VideoError, match=f"{re.escape(name)} holds 5 pages: it is a video by itself"):
    pictures.read_image(tmp_path / name)
  content = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(content[: len(content) // 2])
  with pytest.raises(VideoError, match="cannot be read"):
    read_video(tmp_path / name)


def test_pages_for_machines_are_no_pictures(tmp_path) -> None:
  """A TIFF's smaller copy of itself, and what phones keep behind a photo."""
  picture, small = (Image.fromarray(noise_video(1, size)[0]) for size in (16, 8))
  picture.save(tmp_path / "a.tif", save_all=True, append_images=[small], tiffinfo={254: 0})
  whole, smaller = (struct.pack("<HHII", 254, 4, 1, kind) for kind in (0, 1))
  first, middle, last = (tmp_path / "a.tif").read_bytes().split(whole)
  (tmp_path / "a.tif").write_bytes(first + whole + middle + smaller + last)
  picture.save(tmp_path / "a.mpo", save_all=True, append_images=[small])
  (tmp_path / "a.mpo").rename(tmp_path / "phone.jpg")
  for name in ("a.tif", "phone.jpg"):
    assert pictures.count_pages(tmp_path / name) == 1
    assert pictures.read_image(tmp_path / name).shape == (16, 16, 3)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n damaged", b"P5 9 9 70000 "])
def test_what_is_no_picture_is_the_fault_of_its_file(tmp_path, content) -> None:
  (tmp_path / "a.png").write_bytes(content)
  with pytest.raises(VideoError, match=r"frame a\.png cannot be read"):
    pictures.read_image(tmp_path / "a.png")
  with pytest.raises(VideoError, match=r"a\.png: cannot be read"):
    read_video(tmp_path / "a.png")
