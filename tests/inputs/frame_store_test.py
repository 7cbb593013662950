import concurrent.futures
import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.inputs.make import make_store, noise_video
from videodiff_jax.inputs import frame_store
from videodiff_jax.inputs.frame_store import FrameStore, StoreError

VIDEOS = {f"v{i}": noise_video(5 + i, seed=i) for i in range(8)}


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory):
  return make_store(tmp_path_factory.mktemp("store"), VIDEOS)


def all_videos(directory, **options):
  for split in ("train", "test"):
    store = FrameStore.open(directory, split, **options)
    for video, entry in enumerate(store.videos):
      yield store, video, entry


@pytest.mark.parametrize("in_memory", ["auto", False])
def test_every_frame_comes_back(store_dir, in_memory) -> None:
  seen = set()
  for store, video, entry in all_videos(store_dir, in_memory=in_memory):
    truth = VIDEOS[entry["name"]]
    assert entry["frames"] == len(truth)
    np.testing.assert_array_equal(store.read(video, [4, 0, 3, 3]), truth[[4, 0, 3, 3]])
    np.testing.assert_array_equal(store.read(video, np.arange(len(truth))), truth)
    assert (store.image_size, store.channels, store.codec) == (8, 3, "raw")
    seen.add(entry["name"])
  assert seen == VIDEOS.keys()


def test_codecs(tmp_path) -> None:
  y, x = np.mgrid[:72, :72]
  smooth = np.stack([np.stack([x * 3, y * 3, 100 + 9 * t + 0 * x], -1) for t in range(3)])
  videos = {"a": smooth.astype(np.uint8), "b": smooth.astype(np.uint8)[::-1]}
  for codec, chosen, worst in [("png", "png", 0), ("auto", "jpeg", 9)]:
    directory = make_store(tmp_path / codec, videos, codec=codec)
    for store, video, entry in all_videos(directory):
      assert store.codec == chosen
      error = store.read(video, range(3)).astype(int) - videos[entry["name"]]
      assert np.abs(error).max() <= worst
      assert np.abs(error).mean() <= worst / 8
  raw = next(store._records[0] for store, *_ in all_videos(directory))
  jpeg = Image.open(io.BytesIO(raw[raw.index(b"\xff\xd8\xff") :]))
  assert {component[1:3] for component in jpeg.layer} == {(1, 1)}  # 4:4:4


@pytest.mark.parametrize("size", [64, 128, 256])
def test_jpeg_tables_of_small_frames_cost_no_pixel(size) -> None:
  features = frame_store.frame_features(size, 3, "jpeg")
  encode = frame_store.RecordEncoder(features, "jpeg")
  harsh = np.random.default_rng(0).integers(0, 2, (size, size, 3), np.uint8) * 255
  for frame in (np.full_like(harsh, 90), harsh):
    plain = io.BytesIO()
    Image.fromarray(frame).save(plain, "jpeg", quality=95, subsampling=0)
    stored = features.deserialize_example_np(
      encode(frame, "v", 0), decoders={"frame": tfds.decode.SkipDecoding()}
    )["frame"]
    np.testing.assert_array_equal(Image.open(io.BytesIO(stored)), Image.open(plain))
    assert len(stored) < len(plain.getvalue()) - 200 or size > 128


def test_tfds_reads_the_store_by_itself(store_dir) -> None:
  builder = tfds.builder_from_directory(store_dir)
  source = builder.as_data_source("train")
  assert len(source) == builder.info.splits["train"].num_examples
  entry = builder.info.metadata["train"][1]
  record = source[entry["first"] + 2]
  assert (record["video"].decode(), record["t"]) == (entry["name"], 2)
  np.testing.assert_array_equal(record["frame"], VIDEOS[entry["name"]][2])


def test_no_tensorflow_is_imported(store_dir) -> None:
  code = (
    "import sys; from videodiff_jax.inputs.frame_store import FrameStore; import data.prepare;"
    f"FrameStore.open({str(store_dir)!r}).read(0, [0]);"
    "sys.exit('tensorflow' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_frames_in_memory_are_decoded_once(store_dir, monkeypatch) -> None:
  decoded = []
  read_records = FrameStore.read_records
  monkeypatch.setattr(
    FrameStore, "read_records", lambda self, r: (decoded.extend(r), read_records(self, r))[1]
  )
  store = FrameStore.open(store_dir)
  for _ in range(3):
    store.read(1, [0, 2])
  first = store.videos[1]["first"]
  assert sorted(decoded) == [first, first + 2]
  on_disk = FrameStore.open(store_dir, in_memory=False)
  on_disk.read(1, [0, 2])
  on_disk.read(1, [0, 2])
  assert len(decoded) == 6


def test_memory_is_not_taken_where_a_split_is_large(store_dir, monkeypatch) -> None:
  monkeypatch.setattr("videodiff_jax.inputs.frame_store.MEMORY_LIMIT", 100)
  assert FrameStore.open(store_dir)._cache is None
  assert FrameStore.open(store_dir, in_memory=True)._cache is not None


def test_threads_and_pickles_read_the_same(store_dir) -> None:
  store = FrameStore.open(store_dir)
  copies = [store, pickle.loads(pickle.dumps(store))]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for copy in copies:
      wanted = [0, 1, 2] * 20
      for video, frames in zip(wanted, pool.map(copy.read, wanted, [range(5)] * 60)):
        np.testing.assert_array_equal(frames, VIDEOS[store.videos[video]["name"]][:5])


def test_fingerprint_names_the_frames(store_dir, tmp_path) -> None:
  same = make_store(tmp_path / "same", VIDEOS)
  changed = {**VIDEOS, "v3": VIDEOS["v3"] ^ 1}
  other = make_store(tmp_path / "other", changed)
  prints = [FrameStore.open(directory).fingerprint for directory in (store_dir, same, other)]
  assert prints[0] == prints[1] != prints[2]


def test_frames_outside_a_video_are_an_error(store_dir) -> None:
  store = FrameStore.open(store_dir)
  for index in (-1, store.videos[0]["frames"]):
    with pytest.raises(IndexError, match="has frames 0 to"):
      store.read(0, [0, index])


def test_missing_store_and_split_say_what_to_do(store_dir, tmp_path) -> None:
  with pytest.raises(StoreError, match=r"python -m data\.prepare --dataset=NAME --out="):
    FrameStore.open(tmp_path / "nowhere")
  with pytest.raises(
    StoreError, match=r"no split 'validation'; it has train, test\. .*source with both"
  ):
    FrameStore.open(store_dir, "validation")


def damage_remove(path):
  path.unlink()


def damage_cut(path):
  path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [damage_remove, damage_cut])
@pytest.mark.parametrize(
  "pattern", ["*train.array_record*", "metadata.json", "features.json", "dataset_info.json"]
)
def test_damaged_store_says_what_to_do(tmp_path, damage, pattern) -> None:
  directory = make_store(tmp_path, {f"v{i}": noise_video(2, seed=i) for i in range(4)})
  damage(next(directory.glob(pattern)))
  with pytest.raises(StoreError, match=r"prepare it again with `python -m data\.prepare"):
    FrameStore.open(directory)


def test_a_damaged_template_of_names_says_what_to_do(tmp_path) -> None:
  directory = make_store(tmp_path, {f"v{i}": noise_video(2, seed=i) for i in range(4)})
  info = directory / "dataset_info.json"
  info.write_text(info.read_text().replace("{SHARD_X_OF_Y}", "{SHARD_X_OF_I}"))
  with pytest.raises(StoreError, match=r"prepare it again with `python -m data\.prepare"):
    FrameStore.open(directory)


def test_damaged_record_says_what_to_do(tmp_path) -> None:
  directory = make_store(tmp_path, {f"v{i}": noise_video(2, seed=i) for i in range(4)})
  shard = next(directory.glob("*train*"))
  name = json.loads((directory / "manifest.json").read_text())["videos"]["train"][0]["name"]
  content = bytearray(shard.read_bytes())
  place = content.index(VIDEOS[name][0].tobytes()[:20])
  content[place] ^= 255
  shard.write_bytes(content)
  with pytest.raises(StoreError, match=r"Record 0 .* is damaged"):
    FrameStore.open(directory).read(0, [0, 1])
