"""--mode=doctor for addresses in object storage: whether they can be reached, and how fast."""

import contextlib
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Callable

from videodiff_jax import copies, storage
from videodiff_jax.inputs import store_copy


def speed(place: pathlib.Path, size: int) -> str:
  """Measures how fast an object of `size` bytes is written beside a workdir, and read again."""
  mark = place / f".doctor-{socket.gethostname()}-{os.getpid()}"

  def measured() -> str:
    data = os.urandom(size)
    try:
      written = _rate(size, lambda: mark.write_bytes(data))
      read = _rate(size, mark.read_bytes)
    finally:
      with contextlib.suppress(Exception):  # what went wrong is told by the first error
        mark.unlink(missing_ok=True)
    return f"written at {written}, read at {read}"

  return f"storage: {place}, {_told(place, measured)}"


def store(place: pathlib.Path, copied_to: str, size: int) -> str:
  """Tells how large a store is, how fast its beginning is read, and what room its copy has.

  Args:
    place: the store's address.
    copied_to: config.data.local_dir.
    size: bytes of its largest object that are read at most.
  """

  def measured() -> str:
    sizes = copies.sizes(place)
    largest = max(sizes, key=lambda name: sizes[name])
    end = min(size, sizes[largest])
    files = place.files  # type: ignore[attr-defined]
    read = _rate(end, lambda: files.cat_file(str(place / largest), 0, end))
    folder = store_copy.place_of_copies(copied_to)
    free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free
    return (
      f"{sum(sizes.values()) / 1e9:.2f} GB, read at {read}; this host copies it to {folder}, which "
      f"has {free / 1e9:.2f} GB free"
    )

  return f"data: {place}, {_told(place, measured)}"


def _rate(size: int, work: Callable[[], object]) -> str:
  began = time.monotonic()
  work()
  return f"{size / 1e6 / max(time.monotonic() - began, 1e-9):.0f} MB/s"


def _told(place: pathlib.Path, measured: Callable[[], str]) -> str:
  """Returns what is measured, or why it cannot be."""
  try:
    storage.check(place)
    return measured()
  except Exception as error:  # each package has errors of its own; the report goes on
    return f"which cannot be measured: {error}".partition("\n")[0]
