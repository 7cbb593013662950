import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from data import builder, prepare
from data.prepare import ensure
from tests.inputs.make import make_store, noise_video, write_frames
from videodiff_jax.inputs import video_io
from videodiff_jax.inputs.frame_store import FrameStore

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIDEOS = {f"v{i}": noise_video(3 + i % 3, seed=i) for i in range(9)}


def content(directory: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> pathlib.Path:
  """A store made in one go, and its source beside it."""
  return make_store(tmp_path_factory.mktemp("reference"), VIDEOS)


def run_again(reference: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  source = str(reference.with_name("source"))
  return ensure("video_folder", out, source=source, size=8, num_frames=1)


def test_killed_at_any_rename_and_resumed_is_byte_identical(reference, tmp_path) -> None:
  code = """
    import os, signal, sys
    from data import prepare
    replace = os.replace
    for kill_at in (1, 4, 5, 12, 20):  # of 1 request, 2 a part for 9 videos, 1 store
      child = os.fork()
      if not child:
        renames = 0
        def counting(*paths):
          global renames
          renames += 1
          if renames == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
          replace(*paths)
        os.replace = counting
        prepare.ensure("video_folder", sys.argv[1] + str(kill_at), source=sys.argv[2], size=8,
                       num_frames=1)
        os._exit(0)
      assert os.waitpid(child, 0)[1] == signal.SIGKILL
  """
  out, source = tmp_path / "killed", reference.with_name("source")
  subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code), str(out), str(source)], check=True, cwd=ROOT
  )
  for kill_at in (1, 4, 5, 12, 20):
    killed = tmp_path / f"killed{kill_at}"
    assert not killed.exists() and killed.with_name(f"{killed.name}.parts").is_dir()
    assert content(run_again(reference, killed)) == content(reference)
    assert not killed.with_name(f"{killed.name}.parts").exists()


def test_finished_parts_are_not_made_again(reference, tmp_path, monkeypatch) -> None:
  stream, opened, fail = video_io.stream_video, [], True

  def failing(path):
    opened.append(path.name)
    if fail and path.name == "v6":
      raise OSError("the disk is full")
    return stream(path)

  monkeypatch.setattr(video_io, "stream_video", failing)
  monkeypatch.setattr("data.parts.cores", lambda: 1)
  with pytest.raises(OSError, match="disk is full"):
    run_again(reference, tmp_path / "store")
  assert opened[:7] == [f"v{i}" for i in range(7)]
  opened, fail = [], False
  assert content(run_again(reference, tmp_path / "store")) == content(reference)
  assert "v6" in opened and not {f"v{i}" for i in range(6)} & set(opened)


def test_a_part_whose_source_changed_is_made_again(reference, tmp_path, monkeypatch) -> None:
  source = tmp_path / "source"
  for name, video in VIDEOS.items():
    write_frames(source / name, video)
  (source / "v2" / "frame_0.png").write_bytes(b"broken")
  monkeypatch.setattr(builder.VideoBuilder, "_write_split", None)  # Stop before the store.
  with pytest.raises(TypeError):
    ensure("video_folder", tmp_path / "store", source=str(source), size=8, num_frames=1)
  monkeypatch.undo()
  mended = reference.with_name("source") / "v2" / "frame_0.png"
  (source / "v2" / "frame_0.png").write_bytes(mended.read_bytes())
  ensure("video_folder", tmp_path / "store", source=str(source), size=8, num_frames=1)
  assert content(tmp_path / "store") == content(reference)


def test_shards_hold_whole_videos_in_order(reference, tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(builder, "_SHARD_BYTES", 2000)  # About nine frames.
  run_again(reference, tmp_path / "store")
  assert len(list((tmp_path / "store").glob("*-train.array_record-*"))) > 2
  store = FrameStore.open(tmp_path / "store")
  for video, entry in enumerate(store.videos):
    truth = VIDEOS[entry["name"]]
    np.testing.assert_array_equal(store.read(video, range(len(truth))), truth)
  assert [v["name"] for v in store.videos] == sorted(v["name"] for v in store.videos)


def test_several_processes_may_ask_at_once(reference, tmp_path) -> None:
  code = (
    "import sys; from data.prepare import ensure;"
    "ensure('video_folder', sys.argv[1], source=sys.argv[2], size=8, num_frames=1)"
  )
  arguments = [str(tmp_path / "store"), str(reference.with_name("source"))]
  processes = [
    subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT) for _ in range(3)
  ]
  assert [process.wait(120) for process in processes] == [0, 0, 0]
  assert content(tmp_path / "store") == content(reference)
  assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_threads_take_turns(reference, tmp_path) -> None:
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(run_again, reference, tmp_path / "store") for _ in range(4)]
    assert {job.result() for job in jobs} == {tmp_path / "store"}
  assert content(tmp_path / "store") == content(reference)


def test_complete_store_is_left_alone(reference, tmp_path, monkeypatch) -> None:
  source = tmp_path / "source"
  for name in ("v0", "v1"):
    write_frames(source / name, VIDEOS[name])
  options = {"source": str(source), "size": 8, "num_frames": 1}
  store = ensure("video_folder", tmp_path / "store", **options)
  before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
  write_frames(source / "v2", VIDEOS["v2"])
  warnings = []
  monkeypatch.setattr("absl.logging.warning", lambda text, *v: warnings.append(text % v))
  assert ensure("video_folder", store, **options) == store
  assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
  assert warnings[0].startswith("1 videos, such as v2, were added after")
  with pytest.raises(ValueError, match=r"size 8 \(now: 16\).*choose another --out"):
    ensure("video_folder", store, **options | {"size": 16})
  write_frames(tmp_path / "elsewhere" / "other", VIDEOS["v0"])
  with pytest.raises(ValueError, match="prepared from other videos"):
    ensure("video_folder", store, **options | {"source": str(tmp_path / "elsewhere")})
  assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before


def test_unfinished_parts_of_other_options_are_not_mixed(reference, tmp_path, monkeypatch):
  monkeypatch.setattr(builder.VideoBuilder, "_write_split", None)
  with pytest.raises(TypeError):
    run_again(reference, tmp_path / "store")
  with pytest.raises(ValueError, match=r"size 8 \(now: 16\).*remove that folder"):
    ensure("video_folder", tmp_path / "store", source=str(reference.with_name("source")), size=16)


def test_other_folders_are_never_overwritten(tmp_path) -> None:
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos" / "me.jpg").write_text("precious")
  with pytest.raises(ValueError, match="something other than a frame store"):
    ensure("moving_digits", tmp_path / "photos")
  (tmp_path / "store.parts").mkdir()
  (tmp_path / "store.parts" / "me.jpg").write_text("precious")
  with pytest.raises(ValueError, match="something other than parts"):
    ensure("moving_digits", tmp_path / "store")
  assert (tmp_path / "store.parts" / "me.jpg").exists()


def test_unknown_dataset_and_option_list_the_choices(tmp_path) -> None:
  with pytest.raises(ValueError, match="one of: bair, captioned_digits, cityscapes, demo_clips"):
    ensure("ucf", tmp_path / "store")
  with pytest.raises(ValueError, match=r"no option source; its options are size, num_frames"):
    ensure("moving_digits", tmp_path / "store", source="x")
  with pytest.raises(ValueError, match="Choose one of: auto, raw, jpeg, png"):
    ensure("moving_digits", tmp_path / "store", codec="gif")
  with pytest.raises(ValueError, match="size is 0; it must be at least 1"):
    ensure("demo_clips", tmp_path / "store", size=0)


def test_every_option_has_a_flag() -> None:
  options = {f.name for b in prepare.DATASETS.values() for f in dataclasses.fields(b.OPTIONS)}
  assert options == prepare.OPTION_FLAGS.keys()


def test_command_prints_a_summary_or_one_line(reference, tmp_path) -> None:
  def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data.prepare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

  source = f"--source={reference.with_name('source')}"
  good = run("--dataset=video_folder", f"--out={tmp_path / 'a'}", source, "--num_frames=4")
  assert good.returncode == 0
  skipped = json.loads((tmp_path / "a" / "manifest.json").read_text())["skipped"]
  assert len(skipped) == 3
  for line in ("train: ", "test: ", "skipped: 3, ", "v0: 3 frames, fewer than the 4"):
    assert line in good.stdout
  assert "100%" in good.stderr
  bad = run("--dataset=moving_digit", f"--out={tmp_path / 'b'}")
  assert bad.returncode != 0 and "Traceback" not in bad.stderr
  assert "Unknown dataset 'moving_digit'. Did you mean 'moving_digits'?" in bad.stderr


def test_a_set_that_is_no_longer_made_tells_what_became_of_it(tmp_path) -> None:
  with pytest.raises(ValueError, match=r"Python 3.11 alone. doom stands in its place: pip install"):
    prepare.ensure("robot_push", tmp_path / "store")
