"""Sky Time-lapse, TaiChi-HD and UCF-101 in small: their layouts, and what goes wrong in them."""

import importlib
import json
import pathlib
import shutil
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.prepare import ensure
from data.sets.ucf101 import words
from data.verify import verify
from tests.data.published import write_sky, write_taichi, write_ucf101
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore
from videodiff_jax.text.embeddings import class_prompt

LAYOUTS = {"sky_timelapse": write_sky, "taichi_hd": write_taichi, "ucf101": write_ucf101}
OPTIONS = {"size": 16, "num_frames": 4}


def names(store: pathlib.Path, split: str) -> list[str]:
  return [video["name"] for video in FrameStore.open(store, split).videos]


def reasons(store: pathlib.Path) -> dict[str, str]:
  skipped = json.loads((store / MANIFEST).read_text())["skipped"]
  return {entry["name"]: entry["reason"] for entry in skipped}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, pathlib.Path]:
  """Each set's store, its source beside it."""
  made = {}
  for name, write in LAYOUTS.items():
    root = tmp_path_factory.mktemp(name)
    write(root / "source")
    made[name] = ensure(name, root / "store", source=str(root / "source"), **OPTIONS)
  return made


def test_sky_has_the_splits_and_names_of_its_folders(stores) -> None:
  store = stores["sky_timelapse"]
  assert names(store, "train") == [
    "train/0-kd8EpTcXo/0-kd8EpTcXo_1", "train/0-kd8EpTcXo/0-kd8EpTcXo_2",
    "train/zr0kVYyLKTc/zr0kVYyLKTc_10",
  ]  # fmt: skip
  assert names(store, "test") == ["test/3-VAM9owl-o/3-VAM9owl-o_1"]
  skipped = reasons(store)
  assert "1 frames, fewer than the 4" in skipped.pop("train/zr0kVYyLKTc/zr0kVYyLKTc_2")
  assert "00003.jpg cannot be read" in skipped.pop("test/3-VAM9owl-o/3-VAM9owl-o_2")
  assert "without images" in skipped.pop("test/3-VAM9owl-o/3-VAM9owl-o_3")
  assert not skipped


def test_sky_frames_are_in_the_order_of_their_numbers(stores) -> None:
  train = FrameStore.open(stores["sky_timelapse"])
  means = train.read(0, range(5)).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(means, [20, 60, 100, 140, 180], atol=2)  # As `write_sky` draws them.


def test_sky_is_read_as_stylegan_v_keeps_it(stores, tmp_path) -> None:
  long = stores["sky_timelapse"].with_name("source") / "sky_train" / "0-kd8EpTcXo"
  shutil.copytree(long, tmp_path / "flat")
  store = ensure("sky_timelapse", tmp_path / "store", source=str(tmp_path / "flat"), **OPTIONS)
  # Without splits, one video in ten (here the one that hashes lowest) is held out by its name.
  assert names(store, "train") == ["0-kd8EpTcXo_2"]
  assert names(store, "test") == ["0-kd8EpTcXo_1"]
  shutil.copytree(long, tmp_path / "flat" / "split" / "train")
  with pytest.raises(ValueError, match=r"one folder too high: give .*split"):
    ensure("sky_timelapse", tmp_path / "other", source=str(tmp_path / "flat"), **OPTIONS)


def test_taichi_is_read_from_folders_and_files(stores) -> None:
  store = stores["taichi_hd"]
  assert names(store, "train") == [
    "train/aDyyTMUBoLE#000164#000351.mp4",
    "train/u6rJiF-gPx8#000080#000300.mp4",
  ]
  train = FrameStore.open(store)
  assert [video["fps"] for video in train.videos] == [24.0, 0.0]
  (test,) = names(store, "test")
  source = store.with_name("source") / "test" / "uEqWZ9S_-Lw#000089#000581.mp4" / "0000004.png"
  assert test == "test/uEqWZ9S_-Lw#000089#000581.mp4"
  expected = Image.open(source).resize((16, 16), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(FrameStore.open(store, "test").read(0, [4])[0], expected)
  skipped = reasons(store)
  assert "not a video" in skipped.pop("train/broken#000000#000128.mp4")
  assert not skipped


def test_ucf_has_classes_captions_and_the_splits_of_its_lists(stores) -> None:
  store = stores["ucf101"]
  train, test = FrameStore.open(store), FrameStore.open(store, "test")
  assert train.classes == ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
  found = {
    video["name"].split("_", 1)[1]: (video["label"], data.extra(i)["caption"], video["fps"])
    for data in (train, test)
    for i, video in enumerate(data.videos)
  }
  assert found == {
    "ApplyEyeMakeup_g08_c01.avi": (0, "apply eye makeup", 25.0),
    "HandStandPushups_g08_c01.avi": (1, "handstand pushups", 25.0),
    "ApplyEyeMakeup_g01_c01.avi": (0, "apply eye makeup", 25.0),
  }
  assert names(store, "test") == ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"]
  assert reasons(store) == {
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c02.avi": "in no list of split 1",
    "YoYo/v_YoYo_g25_c05.avi": "listed for test, but not there",
    "YoYo/v_YoYo_g09_c01.avi": "not a video (Invalid data found when processing input)",
  }


def test_another_fold_of_ucf_has_other_splits(stores, tmp_path) -> None:
  source = str(stores["ucf101"].with_name("source"))
  store = ensure("ucf101", tmp_path / "store", source=source, fold=2, **OPTIONS)
  assert names(store, "test") == ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"]
  assert "test: 1 videos, 5 frames; the published data set has 3734" in prepare.summarise(store)
  with pytest.raises(ValueError, match="fold is 4"):
    ensure("ucf101", tmp_path / "other", source=source, fold=4)


def test_captions_are_the_words_that_class_names_are_told_by() -> None:
  for name in ("ApplyEyeMakeup", "YoYo", "TaiChi", "Basketball", "JumpRope"):
    assert words(name) == class_prompt(name)


@pytest.mark.parametrize(
  "file", ["glober_sky", "glober_taichi", "glober_ucf101", "lgcvd_bair", "lgcvd_cityscapes"]
)
def test_configs_read_what_the_command_in_their_docstring_prepares(file) -> None:
  module = importlib.import_module(f"configs.{file}")
  data = module.get_config().data
  assert f"python -m data.prepare --dataset={data.name} --source=" in module.__doc__
  options = {field.name: field.default for field in fields(prepare.DATASETS[data.name].OPTIONS)}
  assert options["size"] == data.image_size
  needed = data.get("video_frames", data.num_frames)
  assert options["num_frames"] >= (needed - 1) * data.stride + 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_stores_are_whole(stores, name) -> None:
  assert verify(stores[name]) == []
  assert "the published data set has" in prepare.summarise(stores[name])


@pytest.mark.parametrize("name", ["sky_timelapse", "taichi_hd", "ucf101", "bair", "cityscapes"])
def test_where_the_source_is_not_the_data_set_the_error_says_where_to_get_it(
  name, tmp_path
) -> None:
  for folder in (tmp_path / "nowhere", tmp_path):
    with pytest.raises(ValueError, match="--source") as caught:
      ensure(name, tmp_path / "store", source=str(folder))
    text = str(caught.value)
    assert "://" in text and "--source is " in text and len(text.splitlines()) > 6


@pytest.mark.parametrize("name", LAYOUTS)
def test_stopped_and_run_again_is_byte_identical(stores, name, tmp_path, monkeypatch) -> None:
  builder, source = prepare.DATASETS[name], str(stores[name].with_name("source"))
  again = tmp_path / "store"
  monkeypatch.setattr(builder, "VIDEOS_PER_PART", 1)
  load, loaded = builder.load, []

  def failing(self, video):
    loaded.append(video)
    if len(loaded) == 4:
      raise OSError("stopped")
    return load(self, video)

  monkeypatch.setattr("data.parts.cores", lambda: 1)
  monkeypatch.setattr(builder, "load", failing)
  with pytest.raises(OSError, match="stopped"):
    ensure(name, again, source=source, **OPTIONS)
  first, loaded[:] = loaded[:3], ["", "", "", ""]
  ensure(name, again, source=source, **OPTIONS)
  assert not set(first) & set(loaded)
  for file in stores[name].iterdir():
    assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_an_unnamed_class_skips_its_videos(tmp_path) -> None:
  write_ucf101(tmp_path / "source")
  (tmp_path / "source" / "ucfTrainTestlist" / "classInd.txt").write_text("1 ApplyEyeMakeup\n")
  store = ensure("ucf101", tmp_path / "store", source=str(tmp_path / "source"), **OPTIONS)
  name = "HandstandPushups/v_HandStandPushups_g08_c01.avi"
  assert reasons(store)[name] == "classInd.txt does not name its class"
