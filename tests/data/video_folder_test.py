import json
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

from data.prepare import ensure
from data.sets import video_folder
from tests.inputs.make import make_store, noise_video, write_frames, write_video
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore


def manifest(directory) -> dict:
  return json.loads((directory / MANIFEST).read_text())


def names(directory) -> set[str]:
  return {v["name"] for videos in manifest(directory)["videos"].values() for v in videos}


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
  """A folder as people have them, and the store prepared from it."""
  root = tmp_path_factory.mktemp("messy")
  source = root / "source"
  write_video(source / "good.mp4", noise_video(20, 32))
  write_video(source / "walk" / "good.avi", noise_video(18, 48), "mpeg4")
  write_frames(source / "walk" / "frames", noise_video(17, 24))
  write_video(source / "walk" / "cut.mp4", noise_video(40, 32), movflags="faststart")
  content = (source / "walk" / "cut.mp4").read_bytes()
  # Between two packets, wherever the encoder's threads have put them.
  with av.open(str(source / "walk" / "cut.mp4")) as container:
    places = sorted(packet.pos for packet in container.demux() if packet.size)
  (source / "walk" / "cut.mp4").write_bytes(content[: places[len(places) // 2]])
  (source / "text.mp4").write_text("not a video " * 30)
  write_video(source / "short.mp4", noise_video(3, 32))
  (source / "empty").mkdir()
  write_frames(source / "broken", noise_video(20, 24))
  (source / "broken" / "frame_7.png").write_bytes(b"\x89PNG damaged")
  (source / "notes.txt").write_text("holiday 2019")
  (source / ".hidden.mp4").write_text("a system's own file")
  return source, ensure("video_folder", root / "store", source=str(source), size=16)


def test_good_videos_are_prepared(messy) -> None:
  _, store = messy
  assert names(store) == {"good.mp4", "walk/good.avi", "walk/frames"}
  listed = {v["name"]: v for videos in manifest(store)["videos"].values() for v in videos}
  assert listed["good.mp4"] == {"name": "good.mp4", "frames": 20, "size": "32x32", "fps": 24.0}
  assert listed["walk/frames"]["fps"] == 0 and listed["walk/good.avi"]["size"] == "48x48"


def test_everything_else_is_listed_with_its_reason(messy) -> None:
  _, store = messy
  skipped = {entry["name"]: entry["reason"] for entry in manifest(store)["skipped"]}
  for name, reason in {
    "walk/cut.mp4": "truncated",
    "text.mp4": "not a video",
    "short.mp4": "3 frames, fewer than the 16",
    "empty": "without images",
    "broken": "frame_7.png cannot be read",
    "notes.txt": "no video by its name",
  }.items():
    assert reason in skipped.pop(name)
  assert not skipped


def test_frames_are_those_of_the_files(messy) -> None:
  _, directory = messy
  for split in ("train", "test"):
    store = FrameStore.open(directory, split)
    for video, entry in enumerate(store.videos):
      if entry["name"] == "walk/frames":
        frame = Image.fromarray(noise_video(17, 24)[11]).resize((16, 16), Image.BICUBIC)
        np.testing.assert_array_equal(store.read(video, [11])[0], np.asarray(frame))


def test_no_path_of_this_machine_is_written(messy) -> None:
  source, store = messy
  for file in store.iterdir():
    assert str(source.parent).encode() not in file.read_bytes(), file.name


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path) -> None:
  (tmp_path / "source").mkdir()
  (tmp_path / "source" / "a.mp4").write_text("text")
  with pytest.raises(ValueError, match=r"None of the 1 videos can be used \(a\.mp4: not a video"):
    ensure("video_folder", tmp_path / "store", source=str(tmp_path / "source"))
  assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_missing_source_is_an_error(tmp_path) -> None:
  for source in ("", str(tmp_path / "nowhere")):
    with pytest.raises(ValueError, match="--source must be a folder"):
      ensure("video_folder", tmp_path / "store", source=source)


def test_classes_are_the_first_folders(tmp_path) -> None:
  videos = {f"{c}/v{i}": noise_video(2) for c in ("b10", "b9") for i in range(3)}
  directory = make_store(tmp_path, videos | {"loose": noise_video(2)}, class_folders=True)
  store = FrameStore.open(directory)
  assert store.classes == ["b9", "b10"]
  for video in store.videos:
    assert video["name"].startswith(store.classes[video["label"]] + "/")
  assert manifest(directory)["skipped"] == [{"name": "loose", "reason": "lies in no class folder"}]


def test_captions_stay_with_their_videos(tmp_path) -> None:
  write_frames(tmp_path / "source" / "a", noise_video(2))
  write_frames(tmp_path / "source" / "b", noise_video(2))
  write_frames(tmp_path / "source" / "below" / "deep" / "c", noise_video(2))
  lines = [{"video": "b", "caption": "Ein Ball\u2028rollt."}, {"video": "gone", "caption": "?"}]
  text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
  (tmp_path / "source" / "captions.jsonl").write_text(text + "\n\n", "utf-8-sig")
  below = tmp_path / "source" / "below" / "captions.jsonl"
  below.write_text('{"video": "deep/c", "caption": "below"}')
  source = str(tmp_path / "source")
  directory = ensure("video_folder", tmp_path / "store", source=source, size=8, num_frames=1)
  captions = {}
  for split in ("train", "test"):
    store = FrameStore.open(directory, split)
    captions |= {v["name"]: store.extra(i).get("caption") for i, v in enumerate(store.videos)}
  assert captions == {"a": None, "b": "Ein Ball\u2028rollt.", "below/deep/c": "below"}


@pytest.mark.parametrize("line, message", [
  ("a.mp4: a dog", "line 2: not JSON"),
  ('{"video": "b"}', "line 2: expected"),
  ('{"video": "b", "caption": ["one", "two"]}', "line 2: expected"),
  ('{"video": "b", "caption": 3}', "line 2: expected"),
  ('{"video": "b", "caption": null}', "line 2: expected"),
  (r'{"video": "b", "caption": "\ud800"}', "line 2: expected"),
  ('{"video": ["b"], "caption": "a dog"}', "line 2: expected"),
  ('["b", "a dog"]', "line 2: expected a JSON object"),
  ('{"video": "a", "caption": "again"}', "line 2: a has a caption already"),
])  # fmt: skip
def test_wrong_captions_name_their_line(tmp_path, line, message) -> None:
  path = tmp_path / "captions.jsonl"
  path.write_text('{"video": "a", "caption": "once"}\n' + line)
  with pytest.raises(ValueError, match=f"captions.jsonl, {message}"):
    video_folder.read_captions(path, pathlib.PurePosixPath("."), {})


def test_split_is_stable_as_files_are_added() -> None:
  every = [f"folder/video_{i}.mp4" for i in range(2000)]
  before, after = (video_folder.split_by_name(every[:n]) for n in (1000, 2000))
  assert all(before[name] == after[name] for name in every[:1000])
  assert 150 < list(after.values()).count("test") < 250


def test_both_splits_hold_a_video_where_there_are_two() -> None:
  for count in range(2, 30):
    splits = video_folder.split_by_name([str(i) for i in range(count)])
    assert set(splits.values()) == {"train", "test"}
  assert len(video_folder.split_by_name(["alone"])) == 1
