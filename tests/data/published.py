"""Published data sets in small: folders in their layouts, for the tests of their builders."""

import pathlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from data import tfrecord
from tests.inputs.make import noise_video, write_video


def write_tfrecords(path: pathlib.Path, payloads: Sequence[bytes]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("wb") as file:
    for payload in payloads:
      length = struct.pack("<Q", len(payload))
      file.write(length + struct.pack("<I", tfrecord.masked_crc32c(length)))
      file.write(payload + struct.pack("<I", tfrecord.masked_crc32c(payload)))


def bair_example(frames: Mapping[int, np.ndarray]) -> bytes:
  """A record of BAIR, with another picture where the second camera's are."""
  example = tf_example_pb2.Example()
  for t, frame in frames.items():
    for camera, pixels in (("image_aux1", frame), ("image_main", 255 - frame)):
      feature = example.features.feature[f"{t}/{camera}/encoded"]
      feature.bytes_list.value.append(pixels.tobytes())
    example.features.feature[f"{t}/action"].float_list.value.extend([0.0] * 4)
  return example.SerializeToString()


def write_city(folder: pathlib.Path, drive: str, frames: Mapping[int, np.ndarray]) -> None:
  """Frames of a drive, as CITY_000000, by their numbers."""
  folder.mkdir(parents=True, exist_ok=True)
  for number, frame in frames.items():
    Image.fromarray(frame).save(folder / f"{drive}_{number:06d}_leftImg8bit.png")


def write_sky(source: pathlib.Path, size: tuple[int, int] = (18, 32), frames: int = 5) -> None:
  """DTVNet's folders: frames that grow brighter, one short, one damaged and one empty video."""
  lengths = {
    "sky_train/0-kd8EpTcXo/0-kd8EpTcXo_1": frames,
    "sky_train/0-kd8EpTcXo/0-kd8EpTcXo_2": frames + 6,
    "sky_train/zr0kVYyLKTc/zr0kVYyLKTc_2": 1,
    "sky_train/zr0kVYyLKTc/zr0kVYyLKTc_10": frames + 1,
    "sky_test/3-VAM9owl-o/3-VAM9owl-o_1": frames,
    "sky_test/3-VAM9owl-o/3-VAM9owl-o_2": frames,
    "sky_test/3-VAM9owl-o/3-VAM9owl-o_3": 0,
  }
  for name, length in lengths.items():
    (source / name).mkdir(parents=True)
    for t in range(length):
      frame = np.full((*size, 3), 20 + 40 * t % 220, np.uint8)
      Image.fromarray(frame).save(source / name / f"{name.split('/')[-1]}_frames_{t:05d}.jpg")
  last = source / "sky_test/3-VAM9owl-o/3-VAM9owl-o_2"
  (last / "3-VAM9owl-o_2_frames_00003.jpg").write_bytes(b"\xff\xd8\xff damaged")
  (source / "readme").write_text("1. We collect over 1000 long timelapse videos")


def write_taichi(source: pathlib.Path, size: int = 24, frames: int = 6) -> None:
  """first-order-model's folders: PNG frames or mp4 files, both named *.mp4; one is damaged."""
  for seed, name in enumerate(
    ("train/u6rJiF-gPx8#000080#000300", "test/uEqWZ9S_-Lw#000089#000581")
  ):
    folder = source / f"{name}.mp4"
    folder.mkdir(parents=True)
    for t, frame in enumerate(noise_video(frames, size, seed)):
      Image.fromarray(frame).save(folder / f"{t:07d}.png")
  write_video(source / "train" / "aDyyTMUBoLE#000164#000351.mp4", noise_video(frames, 32, 9))
  (source / "train" / "broken#000000#000128.mp4").write_bytes(b"\0" * 300)


def write_ucf101(source: pathlib.Path, size: tuple[int, int] = (30, 42), frames: int = 5) -> None:
  """The .rar's tree and the lists of two splits, as Windows ends lines.

  One video is in no list, one is listed and missing, one is damaged.
  """
  videos, lists = source / "UCF-101", source / "ucfTrainTestlist"
  for seed, name in enumerate((
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c02", "HandstandPushups/v_HandStandPushups_g08_c01",
  )):  # fmt: skip
    video = noise_video(frames, size[1], seed)[:, : size[0]]
    write_video(videos / f"{name}.avi", video, "mpeg4", rate=25)
  (videos / "YoYo").mkdir()
  (videos / "YoYo" / "v_YoYo_g09_c01.avi").write_bytes(b"RIFF damaged")
  lists.mkdir()
  content = {
    "classInd.txt": ["1 ApplyEyeMakeup", "2 HandstandPushups", "3 YoYo"],
    "trainlist01.txt": [
      "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
      "HandstandPushups/v_HandStandPushups_g08_c01.avi 2",
      "YoYo/v_YoYo_g09_c01.avi 3",
    ],
    "testlist01.txt": ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "YoYo/v_YoYo_g25_c05.avi"],
    "trainlist02.txt": ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1"],
    "testlist02.txt": ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"],
  }
  for name, lines in content.items():
    (lists / name).write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def write_bair(source: pathlib.Path) -> None:
  for split in ("train", "test"):
    videos = [noise_video(30, 64, seed) for seed in range(8)]
    payloads = [bair_example(dict(enumerate(video))) for video in videos]
    write_tfrecords(source / split / "traj_0_to_7.tfrecords", payloads)


def write_cities(source: pathlib.Path) -> None:
  for split in ("train", "val", "test"):
    for seed in range(3):
      frames = noise_video(30, 64, seed)[:, :32]
      drive = f"ulm_{seed:06d}"
      write_city(source / split / "ulm", drive, dict(enumerate(frames)))
