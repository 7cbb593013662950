"""A damaged store is found out, wherever the damage is."""

import hashlib
import json
import pathlib
import shutil

import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from data.prepare import ensure
from data.verify import verify
from tests.data.published import write_ucf101
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  root = tmp_path_factory.mktemp("verify")
  write_ucf101(root / "source")
  return ensure("ucf101", root / "store", source=str(root / "source"), size=8, num_frames=4)


@pytest.fixture
def copy(store, tmp_path) -> pathlib.Path:
  shutil.copytree(store, tmp_path / "store")
  return tmp_path / "store"


def test_a_whole_store_has_no_problems(store) -> None:
  assert verify(store) == []


def test_a_flipped_byte_is_found_in_every_file_of_frames_and_in_the_index(copy) -> None:
  files = sorted(copy.glob("*.array_record*"))
  assert len(files) == 2
  for file in [*files, copy / "metadata.json"]:
    content = file.read_bytes()
    for place in range(3, len(content), len(content) // 12):
      file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
      assert verify(copy), (file.name, place)
    file.write_bytes(content)
  assert verify(copy) == []


def test_a_changed_caption_is_found(copy) -> None:
  text = (copy / "metadata.json").read_text()
  (copy / "metadata.json").write_text(text.replace("eye makeup", "eye markup"))
  assert verify(copy) == ["metadata.json: the index of videos is not the one that was written"]


def test_records_in_another_order_are_found(copy) -> None:
  """Though the manifest, by a mistake of whoever wrote the store, names the file as it is."""
  (file,) = copy.glob("*-train.array_record*")
  reader = ArrayRecordReader(str(file))
  records = reader.read_all()
  reader.close()
  writer = ArrayRecordWriter(str(file), "group_size:1")
  for record in [records[1], records[0], *records[2:]]:
    writer.write(record)
  writer.close()
  _list_as_it_is(copy, file)
  (problem,) = verify(copy)
  name = FrameStore.open(copy).videos[0]["name"]
  assert problem == f"train: where frame 0 of {name} should be is frame 1 of {name}"


def _list_as_it_is(copy: pathlib.Path, file: pathlib.Path) -> None:
  manifest = json.loads((copy / MANIFEST).read_text())
  for entry in manifest["files"]:
    if entry["name"] == file.name:
      content = file.read_bytes()
      entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
  (copy / MANIFEST).write_text(json.dumps(manifest))


def test_what_is_no_store_is_said(copy, tmp_path) -> None:
  assert "holds no frame store" in verify(tmp_path)[0]
  manifest = json.loads((copy / MANIFEST).read_text())
  (copy / MANIFEST).write_text(json.dumps(manifest | {"videos": {"train": []}}))
  assert verify(copy)
  (copy / MANIFEST).write_text(json.dumps({"files": []}))
  assert verify(copy) == [
    "manifest.json does not describe the files beside it (KeyError('videos'))"
  ]
  (copy / MANIFEST).write_text("{")
  assert "is damaged" in verify(copy)[0]
