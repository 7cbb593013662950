"""Video files as players show them, and whether all is there that their containers claim."""

import fractions
import pathlib
import struct

import av
import numpy as np
import pytest
from PIL import Image

from tests.inputs.make import noise_video, write_video
from videodiff_jax.inputs import containers, decoding
from videodiff_jax.inputs.video_io import VideoError, is_video, read_video, stream_video

ONE = 1 << 16


def corner(height: int, width: int) -> np.ndarray:
  """Two black frames whose top left quarter is white."""
  video = np.zeros((2, height, width, 3), np.uint8)
  video[:, : height // 2, : width // 2] = 255
  return video


def atom(kind: bytes, content: bytes) -> bytes:
  return struct.pack(">I", 8 + len(content)) + kind + content


def add_cover(path: pathlib.Path) -> None:
  """Puts a cover before the streams of an mp4 whose index is at its end."""
  Image.new("RGB", (16, 16), "red").save(path.with_suffix(".jpg"))
  data = atom(b"data", struct.pack(">II", 13, 0) + path.with_suffix(".jpg").read_bytes())
  handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
  meta = atom(b"meta", bytes(4) + handler + atom(b"ilst", atom(b"covr", data)))
  cover, content = atom(b"udta", meta), path.read_bytes()
  moov = content.index(b"moov") - 4
  header = moov + 8 + int.from_bytes(content[moov + 8 : moov + 12])
  size = struct.pack(">I", len(content) - moov + len(cover))
  path.write_bytes(content[:moov] + size + content[moov + 4 : header] + cover + content[header:])


def write_both(path, seconds: float, sound: float, codecs=("libx264", "aac")) -> None:
  """Ten frames a second for `seconds`, none for 0, and a tone of `sound` seconds."""
  with av.open(str(path), "w") as container:
    if seconds:
      video = container.add_stream(codecs[0], rate=10)
      video.height = video.width = 32
      video.pix_fmt = "yuv420p"
    tone = container.add_stream(codecs[1], rate=44100, layout="stereo")
    tone.bit_rate = 64000
    for frame in noise_video(round(10 * seconds), 32) if seconds else ():
      container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    if seconds:
      container.mux(video.encode())
    samples = np.sin(np.arange(round(sound * 44100)) / 20).astype(np.float32)[None].repeat(2, 0)
    for start in range(0, samples.shape[1], 1024):
      part = np.ascontiguousarray(samples[:, start : start + 1024])
      frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
      frame.sample_rate, frame.pts = 44100, start
      frame.time_base = fractions.Fraction(1, 44100)
      container.mux(tone.encode(frame))
    container.mux(tone.encode())


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4v"])
def test_a_cover_is_no_video(tmp_path, name) -> None:
  write_video(tmp_path / name, noise_video(5, 32))
  expected = read_video(tmp_path / name)[0]
  add_cover(tmp_path / name)
  with av.open(str(tmp_path / name)) as container:
    assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
  np.testing.assert_array_equal(read_video(tmp_path / name)[0], expected)


def test_a_song_with_a_cover_holds_no_video(tmp_path) -> None:
  write_both(tmp_path / "song.mp4", 0, 0.2)
  add_cover(tmp_path / "song.mp4")
  with pytest.raises(VideoError, match="holds no video stream, only a cover picture"):
    read_video(tmp_path / "song.mp4")


@pytest.mark.parametrize("name, matrix", [
  ("as it is", (1, 0, 0, 1)), ("half turn", (-1, 0, 0, -1)),
  ("clockwise", (0, 1, -1, 0)), ("anticlockwise", (0, -1, 1, 0)),
  ("left for right", (-1, 0, 0, 1)), ("upside down", (1, 0, 0, -1)),
  ("transposed", (0, 1, 1, 0)), ("transposed about the other diagonal", (0, -1, -1, 0)),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["mp4", "mov", "3gp"])
def test_frames_are_turned_and_mirrored_as_the_file_says(tmp_path, name, matrix, suffix) -> None:
  path = tmp_path / f"a.{suffix}"
  write_video(path, corner(32, 48))
  flat = read_video(path)[0]
  content = bytearray(path.read_bytes())
  a, b, c, d = (ONE * value for value in matrix)
  place = content.index(b"tkhd") + 44
  content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(content)
  # Where each stored pixel comes to lie, one by one.
  height, width = flat.shape[1:3]
  rows, columns = np.mgrid[:height, :width]
  a, b, c, d = matrix
  x, y = a * columns + c * rows, b * columns + d * rows
  x, y = x - x.min(), y - y.min()
  expected = np.zeros((len(flat), y.max() + 1, x.max() + 1, 3), np.uint8)
  expected[:, y, x] = flat
  np.testing.assert_array_equal(read_video(path)[0], expected)


@pytest.mark.parametrize("suffix, codec", [
  ("mp4", "libx264"), ("mkv", "libx264"), ("mpg", "mpeg2video"), ("ts", "mpeg2video"),
])  # fmt: skip
@pytest.mark.parametrize("pixel, width", [("16/15", 51), ("2/1", 96), ("1/2", 24), ("1/1", 48)])
def test_pixels_become_square(tmp_path, suffix, codec, pixel, width) -> None:
  if codec == "mpeg2video" and pixel != "16/15":
    pytest.skip("its header has a few shapes of the whole picture alone")
  path = tmp_path / f"a.{suffix}"
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
    stream.codec_context.sample_aspect_ratio = fractions.Fraction(pixel)
    if codec == "mpeg2video":  # 4:3 in all
      stream.codec_context.sample_aspect_ratio, width = fractions.Fraction(8, 9), 43
    for frame in corner(32, 48).repeat(8, axis=0):  # A transport stream of two cannot be opened.
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())
  shown = read_video(path)[0]
  assert shown.shape == (16, 32, width, 3)
  assert abs((shown[0, 4, :, 0] > 127).sum() - width / 2) < 1


def test_pixels_that_cannot_be_are_an_error(tmp_path, monkeypatch) -> None:
  path = tmp_path / "a.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
    stream.codec_context.sample_aspect_ratio = fractions.Fraction(4)
    container.mux(stream.encode(av.VideoFrame.from_ndarray(corner(32, 32)[0], format="rgb24")))
    container.mux(stream.encode())
  monkeypatch.setattr(decoding, "_MOST_OBLONG", 3)
  with pytest.raises(VideoError, match="4:1 oblong"):
    read_video(path)


@pytest.mark.parametrize("suffix, codec, format", [
  ("mov", "qtrle", "argb"), ("mov", "png", "rgba"), ("mkv", "ffv1", "bgra"),
])  # fmt: skip
def test_what_is_clear_is_white(tmp_path, suffix, codec, format) -> None:
  rgba = np.full((16, 16, 4), (240, 0, 0, 0), np.uint8)
  rgba[4:8, 4:8] = (0, 200, 30, 255)
  with av.open(str(tmp_path / f"a.{suffix}"), "w") as container:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width, stream.pix_fmt = 16, 16, format
    container.mux(
      stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=format))
    )
    container.mux(stream.encode())
  shown = read_video(tmp_path / f"a.{suffix}")[0][0]
  assert (shown[:4] == 255).all()
  np.testing.assert_array_equal(shown[5, 5], (0, 200, 30))


KNOWN = [
  ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("mkv", "libx264"), ("mkv", "ffv1"), ("flv", "flv"),
  ("f4v", "libx264"), ("avi", "mpeg4"), ("avi", "mjpeg"), ("mov", "libx264"), ("m4v", "mpeg4"),
  ("gif", "gif"),
]  # fmt: skip
COUNTED = [("mp4", "libx264"), ("mov", "mpeg4"), ("3gp", "libx264"), ("mkv", "libx264"),
           ("webm", "libvpx"), ("avi", "mpeg4"), ("wmv", "wmv2")]  # fmt: skip
UNKNOWN = [("mpg", "mpeg1video"), ("ts", "mpeg2video"), ("MTS", "libx264"), ("m2ts", "libx264"),
           ("y4m", "wrapped_avframe")]  # fmt: skip


def write_in(path: pathlib.Path, codec: str) -> int:
  """A video of 60 frames, in a file cut at three fifths afterwards; its length."""
  with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width = 32, 32
    stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    for frame in noise_video(60, 32):
      frame = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=stream.pix_fmt)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  whole = stream_video(path)
  return len(list(whole.frames)), whole.unsure


@pytest.mark.parametrize("suffix, codec", KNOWN)
def test_a_file_cut_short_is_an_error(tmp_path, suffix, codec) -> None:
  path = tmp_path / f"a.{suffix}"
  assert write_in(path, codec) == (60, "")
  content = path.read_bytes()
  for share in (0.6, 0.9):
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(VideoError, match=r"truncated|not a video|to its end"):
      read_video(path)


@pytest.mark.parametrize("suffix, codec", COUNTED)
@pytest.mark.parametrize("missing", [1, 40, 400])
def test_bytes_are_counted_where_the_container_does(tmp_path, suffix, codec, missing) -> None:
  """To the last one: time alone would let two frames go."""
  path = tmp_path / f"a.{suffix}"
  assert write_in(path, codec) == (60, "")
  with path.open("ab") as file:
    file.write(b"\0" * 32)  # what lies behind is nobody's
  assert len(read_video(path)[0]) == 60
  content = path.read_bytes()[:-32]
  path.write_bytes(content[:-missing])
  with pytest.raises(VideoError, match=r"truncated|not a video|to its end"):
    read_video(path)


def test_a_broadcast_s_header_counts_nothing(tmp_path) -> None:
  path = tmp_path / "a.wmv"
  write_in(path, "wmv2")
  content = bytearray(path.read_bytes())
  place = content.index(containers._ASF_FILE) + 88
  content[place] |= 1
  path.write_bytes(content[: len(content) // 2])
  assert "does not tell its length" in stream_video(path).unsure


@pytest.mark.parametrize("suffix, codec", UNKNOWN)
def test_where_the_length_is_not_told_the_video_says_so(tmp_path, suffix, codec) -> None:
  assert is_video(pathlib.Path(f"a.{suffix}"))
  frames, unsure = write_in(tmp_path / f"a.{suffix}", codec)
  assert frames == 60 and "does not tell its length" in unsure


@pytest.mark.parametrize("name, codecs", [
  ("a.wmv", ("wmv2", "wmav2")), ("a.mp4", ("libx264", "aac")), ("a.mkv", ("libx264", "aac")),
  ("a.flv", ("flv", "aac")), ("a.avi", ("mpeg4", "ac3")), ("a.3gp", ("libx264", "aac")),
  ("tagless.mkv", ("libx264", "aac")),
])  # fmt: skip
def test_longer_sound_does_not_count(tmp_path, name, codecs) -> None:
  path = tmp_path / name
  write_both(path, 2, 4, codecs)
  if name.startswith("tagless"):
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOM"))
  assert len(read_video(path)[0]) == 20
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 4])
  with pytest.raises(VideoError, match=r"truncated|not a video|to its end"):
    read_video(path)
