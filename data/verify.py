"""Reads a whole prepared store again and checks it, for `python -m data.prepare --verify`."""

import concurrent.futures
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import tqdm

from data.builder import CHECKSUM, index_checksum
from videodiff_jax import text_files
from videodiff_jax.inputs.frame_store import MANIFEST, FrameStore, StoreError, load_metadata

_CHUNK = 2**24  # Bytes hashed at once.


def verify(directory: pathlib.Path) -> list[str]:
  """Checks every file, every entry of the index and every record of a store.

  Returns:
    A line for each problem; [] if every file has the hash in the manifest, the index is the one
    that was written, and each record decodes to the frame it is listed as.
  """
  try:
    metadata = load_metadata(directory)  # Also checks that the store is complete, by file sizes.
    manifest = text_files.read_json(directory / MANIFEST)
    stores = {split: FrameStore.open(directory, split, False) for split in manifest["videos"]}
    problems = list(_check_files(directory, manifest))
    if index_checksum(metadata) != metadata.get(CHECKSUM):
      problems.append("metadata.json: the index of videos is not the one that was written")
    for split, store in stores.items():
      problems += _check_index(store, manifest["videos"][split])
  except StoreError as error:
    return [str(error)]
  except (KeyError, TypeError, OSError) as error:
    return [f"{MANIFEST} does not describe the files beside it ({error!r})"]
  for store in stores.values() if not problems else ():
    problems += _check_records(store)
  return problems


def _check_files(directory: pathlib.Path, manifest: dict[str, Any]) -> Iterator[str]:
  total = sum(file["bytes"] for file in manifest["files"])
  with tqdm.tqdm(desc="Files", total=total, unit="B", unit_scale=True) as progress:
    for file in manifest["files"]:
      digest = hashlib.sha256()
      with (directory / file["name"]).open("rb") as opened:
        while content := opened.read(_CHUNK):
          digest.update(content)
          progress.update(len(content))
      if digest.hexdigest() != file["sha256"]:
        yield f"{file['name']}: its content is not what was written (another SHA-256)"


def _check_index(store: FrameStore, listed: list[dict[str, Any]]) -> Iterator[str]:
  """Compares the index with the manifest, and both with the number of records."""
  first = 0
  for video, entry in zip(store.videos, listed):
    found = (video["name"], video["frames"], video["fps"], video["first"])
    if found != (entry["name"], entry["frames"], entry["fps"], first):
      yield f"{store.split}: the index and the manifest differ at {entry['name']}"
      return
    if not 0 <= video["label"] < max(1, len(store.classes)):
      yield f"{store.split}: {entry['name']} has the label {video['label']}"
    first += video["frames"]
  if len(store.videos) != len(listed) or first != store.num_records:
    yield (
      f"{store.split}: {len(store.videos)} videos with {first} frames in the index, "
      f"{len(listed)} videos in the manifest, {store.num_records} records"
    )


def _check_records(store: FrameStore) -> Iterator[str]:
  with concurrent.futures.ThreadPoolExecutor() as pool:
    checked = pool.map(lambda number: _check_video(store, number), range(store.num_videos))
    for problem in tqdm.tqdm(
      checked, desc=f"Records of {store.split}", total=store.num_videos, unit="video"
    ):
      if problem:
        yield problem


# Records read in one call: a long video's frames are never all in memory.
_AT_ONCE = 16


def _check_video(store: FrameStore, number: int) -> str | None:
  video = store.videos[number]
  for begin in range(0, video["frames"], _AT_ONCE):
    times = range(begin, min(begin + _AT_ONCE, video["frames"]))
    try:
      read = store.read_records([video["first"] + t for t in times])
    except StoreError as error:
      return str(error)
    for t, (name, index, _) in zip(times, read):
      if (name, index) != (video["name"], t):
        return (
          f"{store.split}: where frame {t} of {video['name']} should be is frame {index} of {name}"
        )
  return None
