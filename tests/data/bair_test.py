import json

import numpy as np
import pytest

from data import prepare
from data.prepare import ensure
from tests.data.published import bair_example, write_tfrecords
from tests.inputs.make import noise_video
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore

VIDEOS = [noise_video(30, 64, seed) for seed in range(5)]


def manifest(directory) -> dict:
  return json.loads((directory / MANIFEST).read_text())


def reasons(directory) -> dict[str, str]:
  return {entry["name"]: entry["reason"] for entry in manifest(directory)["skipped"]}


def payload(video: np.ndarray) -> bytes:
  return bair_example(dict(enumerate(video)))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  """Two files of training, in which much is broken, and one of testing."""
  root = tmp_path_factory.mktemp("bair")
  train, test = root / "source" / "train", root / "source" / "test"
  without = payload(VIDEOS[1]).replace(b"7/image_aux1", b"7/image_aux2")
  short = bair_example({t: frame[:, :63] for t, frame in enumerate(VIDEOS[1])})
  write_tfrecords(train / "traj_10_to_11.tfrecords", [payload(VIDEOS[3]), payload(VIDEOS[4])])
  write_tfrecords(
    train / "traj_9_to_9.tfrecords",
    [payload(VIDEOS[0]), without, short, b"\xff\xff", payload(VIDEOS[2])],
  )
  content = bytearray((train / "traj_10_to_11.tfrecords").read_bytes())
  content[-30] ^= 16
  (train / "traj_10_to_11.tfrecords").write_bytes(content)
  write_tfrecords(test / "traj_0_to_1.tfrecords", [payload(VIDEOS[1]), payload(VIDEOS[0])])
  content = (test / "traj_0_to_1.tfrecords").read_bytes()
  (test / "traj_0_to_1.tfrecords").write_bytes(content[:-1000])
  return ensure("bair", root / "store", source=str(root / "source"))


def test_frames_are_those_of_the_first_camera(store) -> None:
  train, test = FrameStore.open(store), FrameStore.open(store, "test")
  assert (train.image_size, train.codec) == (64, "raw")
  names = ["train/traj_9_to_9/0", "train/traj_9_to_9/4", "train/traj_10_to_11/0"]
  assert [video["name"] for video in train.videos] == names
  for index, truth in enumerate((0, 2, 3)):
    np.testing.assert_array_equal(train.read(index, range(30)), VIDEOS[truth])
  np.testing.assert_array_equal(test.read(0, range(30)), VIDEOS[1])


def test_damaged_records_are_listed_with_their_reason(store) -> None:
  skipped = reasons(store)
  for name, reason in {
    "train/traj_9_to_9/1": "7/image_aux1/encoded has 0 bytes, not 64 x 64 x 3",
    "train/traj_9_to_9/2": "0/image_aux1/encoded has 12096 bytes",
    "train/traj_9_to_9/3": "no tf.train.Example",
    "train/traj_10_to_11/1": "does not match its checksum",
    "test/traj_0_to_1/1": "ends inside a record",
  }.items():
    assert reason in skipped.pop(name)
  assert not skipped


def test_summary_tells_the_published_counts(store) -> None:
  text = prepare.summarise(store)
  assert "  train: 3 videos, 90 frames; the published data set has 43264 videos" in text
  assert "  test: 1 videos, 30 frames; the published data set has 256 videos" in text


def test_nothing_usable_is_an_error(tmp_path) -> None:
  write_tfrecords(tmp_path / "source" / "train" / "traj_0_to_0.tfrecords", [b"\xff\xff"])
  with pytest.raises(ValueError, match="None of the 1 videos can be used"):
    ensure("bair", tmp_path / "store", source=str(tmp_path / "source"))
  with pytest.raises(ValueError, match="must hold folders named train, val, test"):
    ensure("bair", tmp_path / "other", source=str(tmp_path / "source" / "train"))


def test_stopped_and_run_again_is_byte_identical(store, tmp_path, monkeypatch) -> None:
  source = str(store.with_name("source"))
  monkeypatch.setattr(prepare.Bair, "VIDEOS_PER_PART", 2)
  monkeypatch.setattr(prepare.Bair, "_write_split", None)
  with pytest.raises(TypeError):  # All parts are there, and the store is not.
    ensure("bair", tmp_path / "store", source=source)
  monkeypatch.undo()
  monkeypatch.setattr(prepare.Bair, "VIDEOS_PER_PART", 2)
  monkeypatch.setattr(prepare.Bair, "load", None)  # No part is made again.
  ensure("bair", tmp_path / "store", source=source)
  for file in store.iterdir():
    assert (tmp_path / "store" / file.name).read_bytes() == file.read_bytes(), file.name
