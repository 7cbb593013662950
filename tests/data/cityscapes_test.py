import json

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.prepare import ensure
from data.sets import cityscapes
from tests.data.published import write_city
from tests.inputs.make import noise_video
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore


def drive(seed: int, first: int = 0) -> dict[int, np.ndarray]:
  """30 frames of 12 x 24 pixels by number."""
  return dict(enumerate(noise_video(30, 24, seed)[:, :12], first))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  root = tmp_path_factory.mktemp("cityscapes")
  source = root / "source"
  train = source / "train"
  write_city(train / "ulm", "ulm_000000", drive(0))
  broken = {t: frame for t, frame in drive(1).items() if t not in (0, 7, 8)}
  write_city(train / "ulm", "ulm_000001", broken)
  write_city(train / "ulm", "ulm_000002", drive(2))
  (train / "ulm" / "ulm_000002_000003_leftImg8bit.png").write_bytes(b"\x89PNG damaged")
  (train / "ulm" / "notes.txt").write_text("text")
  # One drive numbered through: two snippets that adjoin, one after a gap.
  write_city(train / "bochum", "bochum_000000", drive(3, 100) | drive(4, 130) | drive(5, 900))
  write_city(source / "val" / "lindau", "lindau_000000", drive(6))
  write_city(source / "test" / "bonn", "bonn_000000", drive(7))
  return ensure("cityscapes", root / "store", source=str(source), size=8)


def test_snippets_are_cut_cropped_and_resized(store) -> None:
  train = FrameStore.open(store)
  names = [
    *(f"train/bochum/bochum_000000_{first:06d}" for first in (100, 130, 900)),
    "train/ulm/ulm_000000_000000",
  ]
  assert [video["name"] for video in train.videos] == names
  assert {(video["frames"], video["fps"]) for video in train.videos} == {(30, 17.0)}
  for index, truth in enumerate((drive(3), drive(4), drive(5), drive(0))):
    for t in (0, 29):
      square = Image.fromarray(truth[t][:, 6:18])
      expected = np.asarray(square.resize((8, 8), Image.Resampling.LANCZOS))
      np.testing.assert_array_equal(train.read(index, [t])[0], expected)


@pytest.mark.parametrize(
  ("dataset", "columns", "resampling", "crop"),
  [
    ("cityscapes", slice(25, 75), Image.Resampling.LANCZOS, "integer_lanczos"),
    ("video_folder", slice(26, 76), Image.Resampling.BICUBIC, "pillow_bicubic"),
  ],
)
def test_odd_margins_and_the_store_s_crop(tmp_path, dataset, columns, resampling, crop) -> None:
  """50 x 101: each data set as its authors cut it, and the store says how."""
  frames = np.random.default_rng(0).integers(0, 256, (30, 50, 101, 3), np.uint8)
  write_city(tmp_path / "source" / "train" / "ulm", "ulm_000000", dict(enumerate(frames)))
  options = {"source": str(tmp_path / "source"), "size": 8, "num_frames": 30}
  store = FrameStore.open(ensure(dataset, tmp_path / "store", **options))
  expected = Image.fromarray(frames[4][:, columns]).resize((8, 8), resampling)
  np.testing.assert_array_equal(store.read(0, [4])[0], np.asarray(expected))
  assert store.crop == crop


def test_splits_are_the_published_ones(store) -> None:
  for split, name in (("val", "lindau"), ("test", "bonn")):
    (video,) = FrameStore.open(store, split).videos
    assert video["name"] == f"{split}/{name}/{name}_000000_000000"
  assert "  val: 1 videos, 30 frames; the published data set has 500 videos" in prepare.summarise(
    store
  )


def test_a_missing_frame_skips_its_snippet_alone(store) -> None:
  listed = json.loads((store / MANIFEST).read_text())["skipped"]
  skipped = {entry["name"]: entry["reason"] for entry in listed}
  assert skipped == {
    "train/ulm/notes.txt": "not named as a frame, CITY_000000_000000_leftImg8bit.png",
    "train/ulm/ulm_000001_000001": "27 of 30 frames are there, 000001 to 000029 without 000007, "
    "000008",
    "train/ulm/ulm_000002_000000": "frame ulm_000002_000003_leftImg8bit.png cannot be read",
  }


def test_a_gap_at_the_end_of_a_snippet_leaves_the_next_whole() -> None:
  numbers = [*range(10, 38), *range(40, 70), *range(300, 330)]
  cut = cityscapes.cut({number: None for number in numbers})
  assert [[*snippet] for snippet in cut] == [
    [*range(10, 38)],
    [*range(40, 70)],
    [*range(300, 330)],
  ]


def test_nothing_usable_is_an_error(tmp_path) -> None:
  write_city(tmp_path / "source" / "train" / "ulm", "ulm_000000", {3: noise_video(1)[0]})
  with pytest.raises(ValueError, match=r"None of the 1 videos.*1 of 30 frames are there"):
    ensure("cityscapes", tmp_path / "store", source=str(tmp_path / "source"))
  with pytest.raises(ValueError, match="must hold folders named train, val, test"):
    ensure("cityscapes", tmp_path / "other", source=str(tmp_path / "source" / "train"))
