import json
import sys

import numpy as np
import pytest

from data.prepare import ensure
from tests.helpers import needs
from tests.inputs.make import noise_video
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch) -> None:
  (tmp_path / "source" / "train").mkdir(parents=True)
  monkeypatch.setitem(sys.modules, "h5py", None)
  with pytest.raises(ImportError, match=r'read by h5py: pip install -e "\.\[hdf5\]"'):
    ensure("hdf5_shards", tmp_path / "store", source=str(tmp_path / "source"))
  assert [path.name for path in tmp_path.iterdir()] == ["source"]


def write_shard(path, videos) -> None:
  h5py = needs("h5py")
  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, "w") as file:
    file.create_group("videos")
    lengths = file.create_group("len")
    for i, video in enumerate(videos):
      lengths.create_dataset(str(i), data=len(video))
      group = file.create_group(str(i))
      for t, frame in enumerate(video):
        group.create_dataset(str(t), data=frame, compression="lzf")


def write_damaged(folder) -> None:
  """Shards that h5py reads with errors of every kind: a wrong byte makes each of them."""
  h5py = needs("h5py")
  with h5py.File(folder / "shard_0006.hdf5", "w") as file:
    file["len"] = h5py.SoftLink("/len")  # RuntimeError: it leads to itself
  write_shard(folder / "shard_0007.hdf5", [noise_video(20)] * 4)
  with h5py.File(folder / "shard_0007.hdf5", "a") as file:
    del file["len"]["0"], file["len"]["1"], file["2"]["0"], file["3"]["5"]
    file["len"]["0"] = [7, 7]  # TypeError: no scalar
    file["len"]["1"] = "many"  # ValueError: no number
    file["2"].create_group("0")  # TypeError: no dataset
    file["3"]["5"] = h5py.SoftLink("/3/5")  # KeyError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  h5py = needs("h5py")
  root = tmp_path_factory.mktemp("hdf5")
  source = root / "source"
  write_shard(source / "train" / "shard_0001.hdf5", [noise_video(20, seed=s) for s in range(11)])
  write_shard(source / "train" / "shard_0002.hdf5", [])
  write_shard(source / "train" / "shard_0003.hdf5", [noise_video(20, seed=s) for s in range(3)])
  with h5py.File(source / "train" / "shard_0003.hdf5", "a") as file:
    del file["0"]["7"]
    del file["1"]["7"]
    file["1"]["7"] = np.zeros((8, 8), np.uint8)
    file["len"]["3"] = 4
    file.create_group("3")
  (source / "train" / "shard_0004.hdf5").write_text("no HDF5")
  with h5py.File(source / "train" / "shard_0005.hdf5", "w") as file:
    file.create_group("videos")
  write_damaged(source / "train")
  write_shard(source / "val" / "shard_0001.hdf5", [noise_video(20, seed=20)])
  write_shard(source / "test" / "shard_0001.hdf5", [noise_video(17, seed=21), noise_video(3)])
  return ensure("hdf5_shards", root / "store", source=str(source), size=8)


def test_videos_are_those_of_the_shards_in_order(store) -> None:
  train = FrameStore.open(store)
  names = [f"train/shard_0001/{i}" for i in range(11)] + ["train/shard_0003/2"]
  assert [video["name"] for video in train.videos] == names
  for index, seed in enumerate([*range(11), 2]):
    np.testing.assert_array_equal(train.read(index, range(20)), noise_video(20, seed=seed))
  for split, frames, seed in (("val", 20, 20), ("test", 17, 21)):
    kept = FrameStore.open(store, split)
    assert kept.num_videos == 1
    np.testing.assert_array_equal(kept.read(0, range(frames)), noise_video(frames, seed=seed))


def test_what_is_broken_is_listed_with_its_reason(store) -> None:
  listed = json.loads((store / MANIFEST).read_text())["skipped"]
  skipped = {entry["name"]: entry["reason"] for entry in listed}
  assert skipped == {
    "train/shard_0003/0": "frame 7 of video 0 cannot be read",
    "train/shard_0003/1": "frame 7 of video 1 is uint8 (8, 8), not uint8 (h, w, 3)",
    "train/shard_0003/3": "frame 0 of video 3 cannot be read",
    "train/shard_0004": "no HDF5 file with a group 'len'",
    "train/shard_0005": "no HDF5 file with a group 'len'",
    "train/shard_0006": "no HDF5 file with a group 'len'",
    "train/shard_0007/0": "the length of video 0 cannot be read",
    "train/shard_0007/1": "the length of video 1 cannot be read",
    "train/shard_0007/2": "frame 0 of video 2 cannot be read",
    "train/shard_0007/3": "frame 5 of video 3 cannot be read",
    "test/shard_0001/1": "3 frames, fewer than the 16 of a clip",
  }


def test_both_endings_of_a_shard_are_read(tmp_path) -> None:
  write_shard(tmp_path / "source" / "train" / "a.h5", [noise_video(20, seed=1)])
  write_shard(tmp_path / "source" / "train" / "a.hdf5", [noise_video(20, seed=2)])
  source = str(tmp_path / "source")
  train = FrameStore.open(ensure("hdf5_shards", tmp_path / "store", source=source, size=8))
  assert [video["name"] for video in train.videos] == ["train/a.h5/0", "train/a/0"]
  for index, seed in enumerate((1, 2)):
    np.testing.assert_array_equal(train.read(index, range(20)), noise_video(20, seed=seed))


def test_empty_shards_alone_are_an_error(tmp_path) -> None:
  write_shard(tmp_path / "source" / "train" / "shard_0001.hdf5", [])
  with pytest.raises(ValueError, match="None of the 0 videos can be used"):
    ensure("hdf5_shards", tmp_path / "store", source=str(tmp_path / "source"))
