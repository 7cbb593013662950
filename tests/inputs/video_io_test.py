import sys
import wave

import numpy as np
import pytest
from PIL import Image

from tests.inputs.make import noise_video, write_frames, write_video
from videodiff_jax.inputs import video_io
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
