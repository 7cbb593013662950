"""Files of moments: written in parts, resumed, refused, and read into batches."""

import itertools
import json
import os
import pathlib
import pickle

import numpy as np
import pytest

from tests import damage
from tests.inputs.make import make_store, noise_video
from videodiff_jax import locks
from videodiff_jax.inputs import clips, latent_cache
from videodiff_jax.inputs.frame_store import FrameStore

ABOUT = {"kind": "latents", "weights": "abc", "precision": "float32"}
SHAPE = (11, 2, 2, 2, 4)
VALUES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
CHUNK = 4


class Killed(Exception):
  pass


def write(file: pathlib.Path, calls: int = 99) -> list[int]:
  """Writes VALUES in `calls` calls at most; gives the first row of each."""
  begun = []

  def compute(rows: np.ndarray) -> np.ndarray:
    if len(begun) == calls:
      raise Killed
    assert len(rows) == CHUNK
    begun.append(int(rows[0]))
    return VALUES[rows]

  latent_cache.write(file, ABOUT, SHAPE, np.dtype(np.float32), CHUNK, compute)
  return begun


def test_killed_and_resumed_it_is_the_same_file(tmp_path) -> None:
  whole, parts = (latent_cache.path_of(tmp_path / name, ABOUT) for name in ("whole", "parts"))
  assert write(whole) == [0, 4, 8]
  np.testing.assert_array_equal(np.load(whole), VALUES)
  with pytest.raises(Killed):
    write(parts, calls=2)
  unfinished = parts.with_suffix(".unfinished")
  assert unfinished.is_file() and not parts.exists()
  with unfinished.open("ab") as file:
    file.write(b"torn")
  assert write(parts) == [4, 8]  # the second call's rows were not yet waited for
  assert parts.read_bytes() == whole.read_bytes()
  assert {f.name for f in parts.parent.iterdir()} == {f.name for f in whole.parent.iterdir()}
  before = whole.stat().st_mtime_ns
  assert write(whole) == [] and whole.stat().st_mtime_ns == before


def test_killed_in_the_header_or_before_the_renaming(tmp_path) -> None:
  file = latent_cache.path_of(tmp_path, ABOUT)
  file.with_suffix(".unfinished").write_bytes(b"\x93NUMPY")
  assert write(file) == [0, 4, 8]
  expected = file.read_bytes()
  sums = file.with_suffix(".crc32")
  sums.with_suffix(".crc32.unfinished").write_bytes(sums.read_bytes())
  file.rename(file.with_suffix(".unfinished"))
  assert write(file) == [8]
  assert file.read_bytes() == expected
  sums.with_suffix(".crc32.unfinished").write_bytes(sums.read_bytes())
  assert write(file) == [] and not sums.with_suffix(".crc32.unfinished").exists()


@pytest.mark.parametrize("suffix", [".unfinished", ".crc32.unfinished"])
def test_damage_before_a_resume_is_computed_anew(tmp_path, suffix) -> None:
  """Checksums that were made of what the resume found would call it whole."""
  file = latent_cache.path_of(tmp_path, ABOUT)
  write(file)
  expected = {kind: file.with_suffix(kind).read_bytes() for kind in (".npy", ".crc32")}
  for what in ("deleted", "emptied", "halved", "flipped"):
    file.with_suffix(".unfinished").write_bytes(expected[".npy"])
    file.with_suffix(".crc32.unfinished").write_bytes(expected[".crc32"])
    file.unlink()
    torn = file.with_suffix(suffix)
    content = bytearray(torn.read_bytes())
    content[len(content) // 2] ^= 4
    left = {"emptied": b"", "halved": content[: len(content) // 2], "flipped": content}
    torn.write_bytes(left[what]) if what in left else torn.unlink()
    assert 1 <= len(write(file)) <= 3
    found = {kind: file.with_suffix(kind).read_bytes() for kind in expected}
    assert found == expected, what


def test_two_processes_do_not_write_at_once(tmp_path) -> None:
  file = latent_cache.path_of(tmp_path, ABOUT)

  def compute(rows: np.ndarray) -> np.ndarray:
    with pytest.raises(locks.LockedError, match=rf"writes .*npy \(pid {os.getpid()} on"):
      write(file)
    return VALUES[rows]

  latent_cache.write(file, ABOUT, SHAPE, np.dtype(np.float32), CHUNK, compute)
  np.testing.assert_array_equal(np.load(file), VALUES)


def test_a_full_disk_is_told_before(tmp_path, monkeypatch) -> None:
  usage = type("Usage", (), {"free": VALUES.nbytes - 1})
  monkeypatch.setattr(latent_cache.shutil, "disk_usage", lambda _: usage)
  with pytest.raises(latent_cache.MomentsError, match=r"needs 0\.00 GB more"):
    write(latent_cache.path_of(tmp_path, ABOUT), calls=0)


def test_files_of_something_else_are_refused(tmp_path) -> None:
  file = latent_cache.path_of(tmp_path, ABOUT)
  write(file)
  latent_cache.check(file, ABOUT)
  other = ABOUT | {"weights": "xyz"}
  assert latent_cache.path_of(tmp_path, other) != file
  copied = latent_cache.path_of(tmp_path, other)
  for suffix in (".npy", ".json", ".crc32"):
    copied.with_suffix(suffix).write_bytes(file.with_suffix(suffix).read_bytes())
  with pytest.raises(latent_cache.MomentsError, match="made with weights abc, not xyz"):
    latent_cache.check(copied, other)
  copied.with_suffix(".json").write_text(json.dumps(other))
  copied.write_bytes(file.read_bytes()[:-1])
  with pytest.raises(latent_cache.MomentsError, match="is damaged"):
    latent_cache.check(copied, other)


def test_no_damaged_file_is_read(tmp_path) -> None:
  """Every file deleted, emptied, halved, and with bits flipped; the .json is compared as it is."""
  file, first = latent_cache.path_of(tmp_path, ABOUT), np.zeros(1, int)
  write(file)
  whole = [VALUES[:, view] for view in (0, 1)]
  for what in damage.damages(tmp_path, flips=40):
    try:
      latent_cache.check(file, ABOUT)
      cached = latent_cache.Moments("latents", file, first)
      read = [cached.read(0, np.arange(SHAPE[0]), bool(view)) for view in (0, 1)]
    except latent_cache.MomentsError as error:
      assert str(file) in str(error)
    else:
      assert what.startswith(file.with_suffix(".json").name), what
      np.testing.assert_array_equal(read, whole)
  latent_cache.check(file, ABOUT)


def test_an_early_file_without_checksums_is_read(tmp_path, caplog) -> None:
  file = latent_cache.path_of(tmp_path, ABOUT)
  write(file)
  file.with_suffix(".crc32").unlink()
  with pytest.raises(latent_cache.MomentsError, match="crc32 is missing"):
    latent_cache.check(file, ABOUT)
  file.with_suffix(".json").write_text(json.dumps(ABOUT))
  caplog.set_level("INFO", logger="absl")
  latent_cache.check(file, ABOUT)
  assert "without checksums" in caplog.text
  cached = latent_cache.Moments("latents", file, np.array([0, 3]))
  np.testing.assert_array_equal(cached.read(1, 2, False), VALUES[5, 0])


# ---- batches

F, STRIDE = 5, 2
VIDEOS = {f"v{i}": noise_video(n, size=4, seed=i) for i, n in enumerate([9, 3, 12, 10, 11])}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FrameStore:
  return FrameStore.open(make_store(tmp_path_factory.mktemp("moments"), VIDEOS))


def of_frames(folder: pathlib.Path, store: FrameStore, **changes: bool) -> latent_cache.Moments:
  """'Moments' that are the frames themselves, so that batches can be compared."""
  frames = np.stack([frame for _, _, frame in store.read_records(range(store.num_records))])
  np.save(folder / "frames.npy", np.stack([frames, frames[:, :, ::-1]], axis=1))
  first = np.array([video["first"] for video in store.videos])
  return latent_cache.Moments("latents", folder / "frames.npy", first, **changes)


@pytest.mark.parametrize("target_frames", [False, True])
def test_moments_are_of_the_frames_they_stand_for(store, tmp_path, target_frames) -> None:
  sampler = clips.ClipSampler(F, STRIDE, num_keyframes=3, flip=True)
  cached = of_frames(tmp_path, store, target_frames=target_frames)
  cached = pickle.loads(pickle.dumps(cached))
  plain = clips.batches(store, sampler, 0, 4)
  short = clips.batches(store, sampler, 0, 4, moments=cached)
  for expected, batch in itertools.islice(zip(plain, short), 4):
    pixels = {"target_frames"} if target_frames else set()
    assert batch.keys() == expected.keys() - {"key_frames", "target_frames"} | pixels | {
      "key_moments", "target_moments"
    }  # fmt: skip
    for name, value in batch.items():
      np.testing.assert_array_equal(value, expected[name.replace("moments", "frames")])


def test_global_features_are_of_the_clip(store, tmp_path) -> None:
  """Rows that tell themselves (video, start, mirrored)."""
  sampler = clips.ClipSampler(F, STRIDE, num_keyframes=3, flip=True, content="keys")
  starts = clips.count_starts(store, sampler)
  rows = [[(v, s, m) for m in (0, 1)] for v, count in enumerate(starts) for s in range(count)]
  np.save(tmp_path / "rows.npy", np.array(rows)[:, :, None, None])
  cached = latent_cache.Moments(
    "global_features", tmp_path / "rows.npy", np.cumsum(starts) - starts
  )
  mirrored = set()
  plain = clips.batches(store, sampler, 0, 4)
  short = clips.batches(store, sampler, 0, 4, moments=cached)
  for expected, batch in itertools.islice(zip(plain, short), 4):
    assert batch.keys() == {"video", "start", "label", "global_features"}
    for i, (video, start, flip) in enumerate(batch["global_features"][:, 0, 0]):
      assert (video, start) == (expected["video"][i], expected["start"][i])
      frames = VIDEOS[store.videos[video]["name"]][start : start + 9 : STRIDE][[0, 2, 4]]
      np.testing.assert_array_equal(
        expected["key_frames"][i], frames[:, :, ::-1] if flip else frames
      )
      mirrored.add(int(flip))
  assert mirrored == {0, 1}
