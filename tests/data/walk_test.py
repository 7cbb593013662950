"""Folders as users have them: what lies beside the videos of any data set stops no preparation."""

import json
import os
import pathlib
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from data.builder import PASSED_OVER
from data.prepare import DATASETS, ensure, summarise
from data.walk import find_videos
from tests.data.published import (
  bair_example,
  write_city,
  write_sky,
  write_taichi,
  write_tfrecords,
  write_ucf101,
)  # fmt: skip
from tests.inputs.make import noise_video, write_frames, write_video
from videodiff_jax.inputs.folders import natural_key
from videodiff_jax.inputs.frame_store import MANIFEST
from videodiff_jax.inputs.video_io import VideoError, read_video

JUNK = ("._{}", ".DS_Store", "Thumbs.db", "desktop.ini", "ehthumbs.db")
NO_TEXT = os.fsdecode(b"caf\xe9")


def spoil(folder: pathlib.Path, suffix: str) -> dict[str, str]:
  """Puts into a folder what no data set can use; the reason of each that is to be listed."""
  for name in JUNK:
    (folder / name.format(f"a{suffix}")).write_bytes(b"\0\5\26\7\0\2")
  (folder / "__MACOSX").mkdir()
  (folder / "__MACOSX" / f"a{suffix}").write_bytes(b"junk")
  (folder / f"dead{suffix}").symlink_to("nowhere")
  (folder / f"self{suffix}").symlink_to(f"self{suffix}")
  os.mkfifo(folder / f"pipe{suffix}")  # Who opens it waits for ever.
  return {f"dead{suffix}": "to nothing", f"self{suffix}": "to itself", f"pipe{suffix}": "neither"}


def spoil_tree(folder: pathlib.Path, suffix: str) -> dict[str, str]:
  """`spoil`, and folders that are none."""
  reasons = spoil(folder, suffix)
  (folder / "loop").symlink_to("..")
  (folder / "again").symlink_to("again")
  try:
    (folder / NO_TEXT).mkdir()
    (folder / f"{NO_TEXT}{suffix}").write_bytes(b"?")
  except OSError:
    pytest.skip("this file system takes names of text alone")
  named = {f"caf\\xe9{end}": "no text" for end in ("", suffix)}
  return reasons | named | {"loop": "around it", "again": "itself"}


def write_bair(source: pathlib.Path) -> None:
  frames = dict(enumerate(noise_video(30, 64)))
  write_tfrecords(source / "train" / "traj_0_to_1.tfrecords", [bair_example(frames)])


def write_shards(source: pathlib.Path) -> None:
  (source / "train").mkdir(parents=True)
  with h5py.File(source / "train" / "shard_0001.hdf5", "w") as file:
    file["len/0"] = 3
    for t, frame in enumerate(noise_video(3)):
      file[f"0/{t}"] = frame


def write_cities(source: pathlib.Path) -> None:
  write_city(source / "train" / "ulm", "ulm_000000", dict(enumerate(noise_video(30, 16))))


def write_folder(source: pathlib.Path) -> None:
  write_frames(source / "b" / "frames", noise_video(3))
  write_video(source / "b" / "a.mp4", noise_video(3, 32))


# How each data set is written, where in it the mess is put, and the suffix of its files.
SOURCES = {
  "video_folder": (write_folder, "b", ".mp4"),
  "sky_timelapse": (write_sky, "sky_train/0-kd8EpTcXo", ".mp4"),
  "taichi_hd": (write_taichi, "train", ".mp4"),
  "ucf101": (write_ucf101, "UCF-101/ApplyEyeMakeup", ".avi"),
  "bair": (write_bair, "train", ".tfrecords"),
  "hdf5_shards": (write_shards, "train", ".hdf5"),
  "cityscapes": (write_cities, "train/ulm", ".png"),
}
WALKED = ("video_folder", "sky_timelapse", "taichi_hd", "ucf101")


def loaded(dataset: str, source: pathlib.Path, out: pathlib.Path) -> tuple[set[str], dict]:
  """The videos of a source, and the reasons of what is none; nothing is written."""
  options = DATASETS[dataset].OPTIONS(source=str(source), num_frames=1)
  builder = DATASETS[dataset](data_dir=out, options=options)
  good, reasons = set(), {}
  for name in builder.candidates():
    try:
      assert len(list(builder.load(name).frames)) > 0
      good.add(name)
    except VideoError as error:
      reasons[name] = error.reason
  return good, reasons


@pytest.mark.parametrize("dataset", SOURCES)
def test_what_lies_beside_videos_stops_none(tmp_path, dataset) -> None:
  write, place, suffix = SOURCES[dataset]
  source, out = tmp_path / "source", tmp_path / "store"
  write(source)
  good, before = loaded(dataset, source, out)
  assert good
  made = (spoil_tree if dataset in WALKED else spoil)(source / place, suffix)
  # Other stores, and this one's own folder, lie in the source too.
  inside = source / place / "store"
  (inside.with_name("store.parts")).mkdir()
  inside.mkdir()
  for folder in (inside, inside.with_name("store.parts")):
    write_video(folder / f"0{suffix}.mp4", noise_video(2, 32))
  after, reasons = loaded(dataset, source, inside)
  assert after == good
  new = {name: reasons[name] for name in reasons.keys() - before.keys()}
  assert len(new) == len(made)
  for name, reason in made.items():
    stem = name.removesuffix(suffix)  # Shards are named without.
    told = [r for key, r in new.items() if stem in key.replace(suffix, "").split("/")]
    assert any(reason in r or "in no list" in r for r in told), (name, new)


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_unreadable_folders_are_listed(tmp_path, monkeypatch, name) -> None:
  write_folder(tmp_path)
  (tmp_path / "b" / "locked").mkdir()
  listdir = os.listdir

  def refusing(path):
    if os.fspath(path).endswith("locked"):
      raise PermissionError(13, "Permission denied")
    return listdir(path)

  monkeypatch.setattr(os, "listdir", refusing)
  found = find_videos(tmp_path)
  assert (
    found["b/locked"].fault == "unreadable (Permission denied)" and not found[f"b/{name}"].fault
  )


@pytest.mark.parametrize("beside", [
  "Thumbs.db", "._frame_0.png", "desktop.ini", "notes.txt", "meta.json", "inner/", ".hidden/",
])  # fmt: skip
def test_pictures_without_a_video_are_one_whatever_lies_beside_them(tmp_path, beside) -> None:
  write_frames(tmp_path / "a", video := noise_video(3))
  if beside.endswith("/"):
    (tmp_path / "a" / beside).mkdir()
    (tmp_path / "a" / beside / "notes.txt").write_text("x")
  else:
    (tmp_path / "a" / beside).write_text("x")
  found = find_videos(tmp_path)
  np.testing.assert_array_equal(list(found.pop("a").open().frames), video)
  np.testing.assert_array_equal(read_video(tmp_path / "a")[0], video)  # as --input reads it
  assert set(found) <= {f"a/{beside}", "a/inner/notes.txt"}


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "tiff", "webp", "bmp", "pgm", "PNG"])
def test_frames_of_any_picture_format_are_a_video(tmp_path, suffix) -> None:
  for i in (10, 9):
    picture = Image.fromarray(noise_video(1, seed=i)[0])
    picture.save(tmp_path / f"f{i}.{suffix}", {"jfif": "jpeg", "jpe": "jpeg"}.get(suffix))
  assert list(find_videos(tmp_path)) == ["."]
  assert len(read_video(tmp_path)[0]) == 2


def test_a_frame_that_is_a_dead_link_is_the_fault_of_its_video(tmp_path) -> None:
  write_frames(tmp_path / "a", noise_video(3))
  (tmp_path / "a" / "frame_1.png").unlink()
  (tmp_path / "a" / "frame_1.png").symlink_to("nowhere")
  with pytest.raises(VideoError, match=r"frame frame_1\.png is a link to nothing"):
    read_video(tmp_path / "a")


def test_a_folder_of_stacks_holds_a_video_each(tmp_path) -> None:
  for i in range(3):
    first, *rest = map(Image.fromarray, noise_video(4, seed=i))
    first.save(tmp_path / f"cell{i}.tif", save_all=True, append_images=rest)
  (tmp_path / "cell0.tif").write_bytes(b"damaged")
  found = find_videos(tmp_path)
  assert list(found) == ["cell0.tif", "cell1.tif", "cell2.tif"]
  np.testing.assert_array_equal(list(found["cell1.tif"].open().frames), noise_video(4, seed=1))


def test_a_folder_is_entered_once_under_its_own_name(tmp_path) -> None:
  write_frames(tmp_path / "source" / "z" / "v", noise_video(1))
  write_frames(tmp_path / "elsewhere" / "w", noise_video(1))
  for link, target in (("a", "z"), ("b", "a"), ("z/c", "."), ("far", "../elsewhere")):
    (tmp_path / "source" / link).symlink_to(target)
  found = find_videos(tmp_path / "source")
  assert [name for name in found if not found[name].fault] == ["far/w", "z/v"]
  assert [name for name in found if found[name].fault] == ["a", "b", "z/c"]


def test_the_store_may_lie_in_the_source_and_depends_on_no_kill(tmp_path, monkeypatch) -> None:
  source = tmp_path / "source"
  for i in range(4):
    write_frames(source / f"v{i}", noise_video(2, seed=i))
  options = {"source": str(source), "size": 8, "num_frames": 1}
  outside = ensure("video_folder", tmp_path / "outside", **options)
  from data.builder import VideoBuilder

  for name in ("0store", "stores/z"):
    with monkeypatch.context() as patch:
      patch.setattr(VideoBuilder, "_write_split", None)  # Stop when all parts are there.
      with pytest.raises(TypeError):
        ensure("video_folder", source / name, **options)
    assert (source / f"{name}.parts").is_dir()
    inside = ensure("video_folder", source / name, **options)
    assert (inside / MANIFEST).read_bytes() == (outside / MANIFEST).read_bytes()
    ensure("video_folder", inside, **options)
    shutil.rmtree(source / name.split("/")[0])
  ensure("video_folder", source / "0store", **options)
  other = json.loads((ensure("video_folder", source / "1", **options) / MANIFEST).read_text())
  assert other["skipped"] == [{"name": "0store", "reason": "a frame store, or parts of one"}]


def test_what_is_passed_over_is_listed_and_makes_no_other_data_set(tmp_path) -> None:
  """Beside the manifest, by whose hash scores name the data."""
  stores = {}
  for name in ("clean", "messy"):
    source = tmp_path / name
    for i in range(2):
      write_frames(source / "a" / f"v{i}", noise_video(2, seed=i))
    if name == "messy":
      spoil(source / "a" / "v1", ".png")
      for gone in ("dead.png", "self.png", "pipe.png"):
        (source / "a" / "v1" / gone).unlink()
      (source / ".git").mkdir()
      (source / ".git" / "HEAD").write_text("x")
    inside = source / "store"  # with parts and locks of its own, which are not listed
    stores[name] = ensure("video_folder", inside, source=str(source), size=8, num_frames=1)
  clean, messy = stores.values()
  assert (clean / MANIFEST).read_bytes() == (messy / MANIFEST).read_bytes()
  assert not (clean / PASSED_OVER).exists() and "hidden" not in summarise(clean)
  listed = json.loads((messy / PASSED_OVER).read_text())
  junk = sorted([*(name.format("a.png") for name in JUNK), "__MACOSX"])
  assert sorted(listed) == sorted([".git", *(f"a/v1/{name}" for name in junk)])
  assert f"system: {len(listed)}, as .git; all listed in {messy / PASSED_OVER}" in summarise(messy)


def test_one_video_and_an_unsure_one_are_told_at_preparation(tmp_path) -> None:
  write_video(tmp_path / "source" / "a.MTS", noise_video(30, 32), "mpeg2video")
  (tmp_path / "source" / "broken.mp4").write_bytes(b"?")
  (tmp_path / "source" / NO_TEXT).symlink_to("a.MTS")
  source = str(tmp_path / "source")
  store = ensure("video_folder", tmp_path / "store", source=source, size=8, num_frames=1)
  told = summarise(store)
  assert "one video makes one split, but training needs train and test: add a video" in told
  assert "whole or cut short cannot be known: 1" in told
  assert "a.MTS: mpegts does not tell its length" in told
  skipped = {e["name"]: e["reason"] for e in json.loads((store / MANIFEST).read_text())["skipped"]}
  assert skipped["caf\\xe9"] == "its name is no text in UTF-8" and len(skipped) == 2


def test_numbers_sort_by_value_and_other_digits_as_letters() -> None:
  names = ["3²", "10", "9", "٣", "f_1", "f_01", "½"]
  assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)
  assert sorted(["3²", "10", "9"], key=natural_key) == ["3²", "9", "10"]
