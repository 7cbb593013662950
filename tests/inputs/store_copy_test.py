"""Copies of frame stores in object storage, which is held in memory here."""

import pathlib

import numpy as np
import pytest

from configs import lgcvd_digits
from data import prepare
from experiments.setup import frame_stores
from tests import memory_store
from videodiff_jax import copies, storage
from videodiff_jax.inputs import store_copy
from videodiff_jax.inputs.frame_store import FrameStore, StoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  prepare.ensure("moving_digits", folder, size=16, num_frames=20, num_videos=10)
  return folder


@pytest.fixture
def address(made, monkeypatch) -> storage.Remote:
  place = memory_store.use(monkeypatch) / "digits"
  copies.send(made, place)
  return place


def test_a_store_is_copied_once_and_reads_as_it_is(made, address, tmp_path, monkeypatch) -> None:
  config = lgcvd_digits.get_config("smoke")
  config.data.dir, config.data.local_dir = str(address), str(tmp_path / "copies")
  copy = frame_stores.open_store(config, "train")
  assert copy.directory.parent == tmp_path / "copies"
  own = FrameStore.open(made, "train")
  assert copy.fingerprint == own.fingerprint and copy.videos == own.videos
  assert np.array_equal(copy.read(1, [0, 3]), own.read(1, [0, 3]))
  monkeypatch.setattr(copies, "fetch", None)  # not called again
  assert frame_stores.open_store(config, "test").directory == copy.directory
  assert [path for path in (tmp_path / "copies").iterdir()] == [copy.directory]


def test_a_copy_that_was_cut_short_goes_on(made, address, tmp_path) -> None:
  whole = store_copy.on_disk(address, str(tmp_path / "a"))
  cut = tmp_path / "b" / whole.name
  cut.mkdir(parents=True)
  names = sorted(path.name for path in made.iterdir())
  (cut / names[0]).write_bytes((made / names[0]).read_bytes())
  (cut / names[-1]).write_bytes(b"half")
  assert store_copy.on_disk(address, str(tmp_path / "b")) == cut
  assert {path.name: path.read_bytes() for path in cut.iterdir()} == {
    path.name: path.read_bytes() for path in made.iterdir()
  }


def test_what_is_no_store_is_named(address, tmp_path, monkeypatch) -> None:
  with pytest.raises(StoreError, match="s3://bucket/run/none holds no frame store"):
    store_copy.on_disk(address.with_name("none"), str(tmp_path))
  with pytest.raises(
    ValueError, match=r"config.data.local_dir: 's3://.*' is an address; only files"
  ):
    store_copy.on_disk(address, str(address))
  records = next(path for path in address.iterdir() if "array_record" in path.name)
  records.unlink()
  with pytest.raises(StoreError, match=f"is incomplete: .*{records.name}"):
    store_copy.on_disk(address, str(tmp_path))
  (address / "manifest.json").write_text("{}")
  with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
    store_copy.on_disk(address, str(tmp_path))
