import json
import sys
import wave

import numpy as np
import pytest
from PIL import Image

from data.prepare import ensure, summarise
from tests.inputs.make import noise_video, write_frames, write_video
from videodiff_jax.inputs import video_io
from videodiff_jax.inputs.frame_store import MANIFEST
from videodiff_jax.inputs.video_io import VideoError, read_video


def smooth_video(frames: int, height: int, width: int, channels: int = 3) -> np.ndarray:
  """Slow gradients, which lossy codecs keep; brightness grows with time."""
  y, x = np.mgrid[:height, :width]
  ramp = (y + x)[None] * 2 + 10 * np.arange(frames)[:, None, None]
  return ramp[..., None].repeat(channels, axis=-1).astype(np.uint8)


def test_mp4_keeps_frames_rate_and_order(tmp_path) -> None:
  video = smooth_video(7, 32, 40)
  video_io.write_mp4(tmp_path / "a.mp4", video, fps=12.5, upscale=1)
  read, fps = read_video(tmp_path / "a.mp4")
  assert read.shape == video.shape and read.dtype == np.uint8
  assert fps == 12.5
  assert np.abs(read.astype(int) - video).mean() < 2


def test_mp4_of_odd_grey_frames_gains_a_pixel_and_colour(tmp_path) -> None:
  video = smooth_video(3, 15, 31, channels=1)
  video_io.write_mp4(tmp_path / "a.mp4", video, upscale=1)
  read, _ = read_video(tmp_path / "a.mp4")
  assert read.shape == (3, 16, 32, 3)
  assert np.abs(read[:, :15, :31].astype(int) - video).mean() < 2


def test_small_videos_are_enlarged_for_people(tmp_path) -> None:
  video_io.write_mp4(tmp_path / "a.mp4", smooth_video(2, 32, 64))
  assert read_video(tmp_path / "a.mp4")[0].shape == (2, 128, 256, 3)


def test_folder_of_frames_is_read_in_the_order_of_numbers(tmp_path) -> None:
  video = noise_video(12)
  write_frames(tmp_path / "frames", video)
  (tmp_path / "frames" / "notes.txt").write_text("no frame")
  read, fps = read_video(tmp_path / "frames")
  np.testing.assert_array_equal(read, video)
  assert fps == 0


def test_frames_of_different_sizes_are_an_error(tmp_path) -> None:
  write_frames(tmp_path / "frames", noise_video(2))
  Image.new("RGB", (9, 9)).save(tmp_path / "frames" / "frame_9.png")
  with pytest.raises(VideoError, match="differ in size"):
    read_video(tmp_path / "frames")


def test_rotated_recording_is_turned_upright(tmp_path) -> None:
  write_video(tmp_path / "flat.mp4", smooth_video(2, 32, 48))
  flat, _ = read_video(tmp_path / "flat.mp4")
  content = bytearray((tmp_path / "flat.mp4").read_bytes())
  matrix = content.index(b"tkhd") + 44
  one = 1 << 16
  clockwise = [0, one, 0, -one, 0, 0, 0, 0, 1 << 30]
  content[matrix : matrix + 36] = np.array(clockwise, ">i4").tobytes()
  (tmp_path / "phone.mp4").write_bytes(content)
  np.testing.assert_array_equal(
    read_video(tmp_path / "phone.mp4")[0], np.rot90(flat, -1, axes=(1, 2))
  )


@pytest.mark.parametrize("fraction", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("name, options", [
  ("a.mp4", {"movflags": "faststart"}),  # index first: opens, and ends early
  ("b.mp4", {}),  # index last: does not open
])  # fmt: skip
def test_truncated_file_is_an_error(tmp_path, name, options, fraction) -> None:
  write_video(tmp_path / name, noise_video(48, size=64), **options)
  assert len(read_video(tmp_path / name)[0]) == 48
  content = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(content[: int(fraction * len(content))])
  with pytest.raises(VideoError, match=r"truncated|not a video|to its end"):
    read_video(tmp_path / name)


def test_what_is_no_video_says_so(tmp_path) -> None:
  (tmp_path / "text.mp4").write_text("words " * 100)
  with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
    sound.setparams((1, 2, 8000, 0, "NONE", ""))
    sound.writeframes(bytes(16000))
  (tmp_path / "empty").mkdir()
  for name, reason in [
    ("text.mp4", "not a video"),
    ("sound.mp4", "no video stream"),
    ("empty", "without images"),
    ("absent.mp4", "no such file"),
  ]:
    with pytest.raises(VideoError, match=reason) as error:
      read_video(tmp_path / name)
    assert name in str(error.value) and name not in error.value.reason


def test_gif_and_strip_need_no_pyav(tmp_path, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "av", None)
  video_io.write_gif(tmp_path / "a.gif", smooth_video(5, 32, 32, channels=1), fps=10)
  with Image.open(tmp_path / "a.gif") as gif:
    assert (gif.n_frames, gif.size, gif.info["duration"]) == (5, (128, 128), 100)
    assert gif.info["loop"] == 0  # for ever
  video_io.write_strip(tmp_path / "a.png", [smooth_video(2, 8, 8)])
  for use in (
    lambda: video_io.write_mp4(tmp_path / "a.mp4", smooth_video(2, 8, 8)),
    lambda: read_video(tmp_path / "a.gif"),
  ):
    with pytest.raises(ImportError, match=r'pip install -e "\.\[demo\]"'):
      use()


def test_strip_shows_labelled_rows_of_frames(tmp_path) -> None:
  rows = {"long": noise_video(33), "short": noise_video(2, seed=1)[..., :1]}
  video_io.write_strip(tmp_path / "a.png", rows, max_frames=3, upscale=4)
  strip = np.asarray(Image.open(tmp_path / "a.png"))
  cell = 4 * 8 + 2  # one black pixel around each frame
  margin = strip.shape[1] - 3 * cell
  assert strip.shape[0] == 2 * cell and margin > 20
  for row, (video, shown) in enumerate([(rows["long"], [0, 16, 32]), (rows["short"], [0, 1])]):
    assert (strip[row * cell : (row + 1) * cell, :margin] < 128).any()  # the label
    for column, frame in enumerate(shown):
      top, left = row * cell + 1, margin + column * cell + 1
      picture = strip[top : top + 32, left : left + 32]
      expected = np.broadcast_to(video[frame], (8, 8, 3)).repeat(4, 0).repeat(4, 1)
      np.testing.assert_array_equal(picture, expected)


def test_writers_refuse_floats(tmp_path) -> None:
  with pytest.raises(ValueError, match=r"uint8 \(f, h, w, 1 or 3\)"):
    video_io.write_gif(tmp_path / "a.gif", np.zeros((2, 8, 8, 3)))


def test_square_crop_keeps_the_centre_and_the_channels() -> None:
  frame = np.zeros((20, 50, 1), np.uint8)
  frame[:, 15:35] = 200
  assert (video_io.square_crop_resize(frame, 10) == 200).all()
  assert video_io.square_crop_resize(frame, 10).shape == (10, 10, 1)


ODD = [(50, 101), (101, 50), (50, 103), (51, 102), (51, 101), (7, 8), (9, 12), (3, 3), (2, 5)]


@pytest.mark.parametrize(("height", "width"), ODD)
def test_odd_margins_are_cut_as_each_paper_s_code_cuts_them(height: int, width: int) -> None:
  frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  n = min(height, width)

  def half_even(twice: int) -> int:
    return twice // 2 + (twice % 4 == 3)  # of a number given doubled

  starts = [half_even(side - n) for side in (height, width)]
  ends = [half_even(side + n) for side in (height, width)]
  boxes = {
    "pillow_bicubic": list(zip(starts, ends)),
    "integer_lanczos": [(side // 2 - n // 2, side // 2 + n // 2) for side in (height, width)],
  }
  resamplings = {
    "pillow_bicubic": Image.Resampling.BICUBIC,
    "integer_lanczos": Image.Resampling.LANCZOS,
  }
  for crop, ((top, bottom), (left, right)) in boxes.items():
    cut = Image.fromarray(frame[top:bottom, left:right])
    for size in (8, n):
      expected = np.asarray(cut.resize((size, size), resamplings[crop]))
      np.testing.assert_array_equal(video_io.square_crop_resize(frame, size, crop), expected)


def test_what_has_no_centre_square_is_told() -> None:
  for crop in video_io.CROPS:
    with pytest.raises(ValueError, match="a frame of 9x1 pixels has no centre square"):
      video_io.square_crop_resize(np.zeros((1, 9, 3), np.uint8), 8, crop)
  with pytest.raises(ValueError, match=r"'left'\. Choose one of: pillow_bicubic, integer_lanczos"):
    video_io.square_crop_resize(np.zeros((9, 9, 3), np.uint8), 8, "left")


def write_bomb(path) -> None:
  """A BMP of a few bytes whose header tells of 400 million pixels."""
  Image.new("RGB", (2, 2)).save(path, "bmp")
  content = bytearray(path.read_bytes())
  content[18:26] = np.array([20_000, 20_000], "<i4").tobytes()
  path.write_bytes(content)


def test_a_picture_too_large_to_be_true_is_an_error(tmp_path) -> None:
  write_frames(tmp_path / "frames", noise_video(2))
  write_bomb(tmp_path / "frames" / "frame_9.bmp")
  with pytest.raises(
    VideoError, match=r"frame frame_9\.bmp cannot be read: it has more than 178,9"
  ):
    read_video(tmp_path / "frames")


def write_latin(path, video: np.ndarray) -> None:
  """An avi whose title is not UTF-8, as old cameras and programs wrote them."""
  write_video(path, video, codec="mpeg4", title="Cafe_au_lait")
  content = path.read_bytes()
  assert content.count(b"Cafe_au_lait") == 1
  path.write_bytes(content.replace(b"Cafe_au_lait", "Caf\xe9_au_lait".encode("latin-1")))


def test_a_title_in_latin_1_is_no_reason_to_leave_a_video_out(tmp_path) -> None:
  write_latin(tmp_path / "a.avi", smooth_video(5, 32, 32))
  assert len(read_video(tmp_path / "a.avi")[0]) == 5


def test_one_damaged_file_is_skipped_listed_and_stops_nothing(tmp_path) -> None:
  source = tmp_path / "source"
  for i in range(3):
    write_video(source / f"good_{i}.mp4", noise_video(20, size=32, seed=i))
  write_latin(source / "latin.avi", noise_video(20, size=32))
  write_frames(source / "bomb", noise_video(20))
  write_bomb(source / "bomb" / "frame_99.bmp")
  write_frames(source / "thin", noise_video(20)[:, :1])
  store = ensure("video_folder", tmp_path / "store", source=str(source), size=8)
  manifest = json.loads((store / MANIFEST).read_text())
  assert {entry["name"]: entry["reason"] for entry in manifest["skipped"]} == {
    "bomb": "frame frame_99.bmp cannot be read: it has more than 178,956,970 pixels",
    "thin": "a frame of 8x1 pixels has no centre square",
  }
  assert "  skipped: 2, all listed in" in summarise(store)
  names = [video["name"] for videos in manifest["videos"].values() for video in videos]
  assert sorted(names) == ["good_0.mp4", "good_1.mp4", "good_2.mp4", "latin.avi"]
