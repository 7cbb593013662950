"""Copies a frame store from object storage to a disk of each host.

Clips are drawn from all records in random order, a few frames of each, and array_record opens files
of a disk alone. So a host copies the whole store once, before the first step, and reads it there as
any other. A copy has the hash of its manifest in its name: a store that has changed gets another.
"""

import hashlib
import json
import os
import pathlib
import time

from absl import logging

from videodiff_jax import copies, locks, storage, typed, whole_files
from videodiff_jax.inputs.frame_store import MANIFEST, StoreError


def on_disk(directory: pathlib.Path, folder: str) -> pathlib.Path:
  """Returns the folder of a disk with a store: the store itself, or its copy.

  The first process of a host copies, and the others wait for it. A copy that was cut short goes on.

  Args:
    directory: the store.
    folder: where copies are kept, config.data.local_dir; '' for the user's cache folder.

  Raises:
    StoreError: the address holds no store, or the disk is too full.
  """
  if not storage.is_remote(directory):
    return directory
  try:
    manifest = (directory / MANIFEST).read_bytes()
    listed = [file["name"] for file in json.loads(manifest)["files"]]
  except FileNotFoundError as error:
    raise StoreError(
      f"{directory} holds no frame store. Prepare one on a disk with `python -m data.prepare "
      "--dataset=NAME --out=DIR`, and copy that folder to the address."
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise StoreError(f"{directory}/{MANIFEST} is damaged ({error!r}): copy it again.") from error
  target = place_of_copies(folder) / f"{directory.name}-{hashlib.sha256(manifest).hexdigest()[:8]}"
  with locks.hold(target.with_name(f"{target.name}.lock"), f"copies {directory}", wait=True):
    if not (target / MANIFEST).is_file():
      _copy(directory, target, listed)
      whole_files.write_bytes(target / MANIFEST, manifest)  # the last: it marks a complete copy
  return target


def _copy(directory: pathlib.Path, target: pathlib.Path, listed: list[str]) -> None:
  """Copies all but the manifest, with which the copy is complete; `listed` are its records."""
  began = time.monotonic()
  try:
    names = sorted({*copies.sizes(directory), *listed} - {MANIFEST})
    copies.fetch(directory, target, names)
  except copies.RoomError as error:
    raise StoreError(f"{error} The key is config.data.local_dir.") from error
  except FileNotFoundError as error:
    raise StoreError(
      f"The frame store {directory} is incomplete: {error}. Copy it again."
    ) from error
  size, seconds = sum((target / name).stat().st_size for name in names), time.monotonic() - began
  logging.info(
    "%s is copied to %s: %.2f GB in %.0f s (%.0f MB/s).",
    directory, target, size / 1e9, seconds, size / 1e6 / max(seconds, 1e-9),
  )  # fmt: skip


def place_of_copies(folder: str) -> pathlib.Path:
  """Returns the folder of a disk where copies are kept: config.data.local_dir, or the user's cache.

  Raises:
    StoreError: neither is known.
    ValueError: the key holds an address.
  """
  if folder:
    return typed.path(folder, "config.data.local_dir", on_disk=True)
  try:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  except RuntimeError as error:
    raise StoreError(
      "No home folder is known to keep a copy of the store in: set config.data.local_dir."
    ) from error
  return pathlib.Path(home, "videodiff_jax", "stores")
