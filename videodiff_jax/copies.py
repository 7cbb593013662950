"""Copies between object storage and a disk, for what only disks can do.

Libraries that map or seek files get a local copy (`local`); what grows line by line, or is made of
many files, is made on a disk and sent (`Spool`, `send`). For paths of disks nothing is copied.
"""

import atexit
import contextlib
import functools
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import tqdm
from absl import logging

from videodiff_jax import storage

_PART = 16 * 2**20  # bytes read at once
_TOLD_EVERY = 60.0  # seconds between two lines of the log about a copy, where no bar is shown


class RoomError(ValueError):
  """A disk has not the space for a copy; the message says how much is missing."""


def local(place: pathlib.Path) -> pathlib.Path:
  """Returns a path of a disk with the content of a file or folder.

  An address is copied once, to a temporary folder that lives as long as the process.

  Raises:
    FileNotFoundError: nothing has this address.
    RoomError: the disk of temporary files is too full.
  """
  return _copied(str(place)) if storage.is_remote(place) else place


@functools.cache
def _copied(address: str) -> pathlib.Path:
  source = storage.path(address)
  target = scratch() / source.name
  fetch(source, target)
  return target


def scratch() -> pathlib.Path:
  """Makes a temporary folder, removed when the process ends."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix="videodiff_jax-"))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return folder


def fetch(source: pathlib.Path, target: pathlib.Path, names: Sequence[str] | None = None) -> None:
  """Copies an object or a folder to a disk; keeps files that have their size already.

  A bar shows how far it is or, where nobody sees one, a line of the log now and then.

  Args:
    source: an address.
    target: the file or folder to write. Each file appears whole.
    names: the files to copy, by their paths below a folder; None copies all.

  Raises:
    FileNotFoundError: the address leads nowhere, or a named file is missing.
    RoomError: the disk is too full.
  """
  assert isinstance(source, storage.Remote)
  there = sizes(source, names)
  wanted = {
    name: size
    for name, size in there.items()
    if not ((target / name).is_file() and (target / name).stat().st_size == size)
  }
  target.parent.mkdir(parents=True, exist_ok=True)
  check_room(target.parent, sum(wanted.values()), str(source))
  with _progress(source.name, sum(wanted.values())) as advance:
    for name in wanted:
      file = target / name
      file.parent.mkdir(parents=True, exist_ok=True)
      half = file.with_name(f".{file.name}.part")
      with source.files.open(str(source / name), "rb", block_size=_PART) as read:
        with half.open("wb") as out:
          while data := read.read(_PART):
            out.write(data)
            advance(len(data))
      if half.stat().st_size != there[name]:
        raise OSError(
          5, f"{there[name]} bytes were to come, not {half.stat().st_size}", str(source)
        )
      half.replace(file)


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
  """Yields what is called with the bytes of each part that has come."""
  done, told = 0, time.monotonic()
  with tqdm.tqdm(
    total=total, unit="B", unit_scale=True, desc=f"copies {name}", disable=None
  ) as bar:

    def advance(count: int) -> None:
      nonlocal done, told
      done += count
      bar.update(count)
      if bar.disable and time.monotonic() - told >= _TOLD_EVERY:
        logging.info("Copies %s: %.2f of %.2f GB.", name, done / 1e9, total / 1e9)
        told = time.monotonic()

    yield advance


def check_room(folder: pathlib.Path, needed: int, what: str) -> None:
  """Raises RoomError if a disk has fewer than `needed` bytes free for a copy of `what`."""
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise RoomError(
      f"A copy of {what} takes {needed / 1e9:.2f} GB, but the disk of {folder} has "
      f"{free / 1e9:.2f} GB free: make room there, or name another folder."
    )


def sizes(source: pathlib.Path, names: Sequence[str] | None = None) -> dict[str, int]:
  """Returns the bytes of each file by its path below an address; '' where that is a file itself.

  Raises:
    FileNotFoundError: the address leads nowhere, or one of `names` is missing.
  """
  assert isinstance(source, storage.Remote)
  info = source.files.info(str(source))
  if info["type"] == "file":
    return {"": info["size"]}
  root = info["name"].rstrip("/")
  found = source.files.find(str(source), detail=True)
  every = {name.removeprefix(root).lstrip("/"): one["size"] for name, one in found.items()}
  if names is None:
    return every
  for name in names:
    if name not in every:
      raise FileNotFoundError(2, "No such object", str(source / name))
  return {name: every[name] for name in names}


def send(folder: pathlib.Path, target: pathlib.Path, last: str = "") -> None:
  """Writes every file below a folder of a disk below an address; the one named `last` comes last.

  Hidden files, which are unfinished, are left out.
  """
  assert isinstance(target, storage.Remote)
  files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name[0] != "."]
  for file in sorted(files, key=lambda file: file.name == last):
    put(file, target / file.relative_to(folder).as_posix())


def put(file: pathlib.Path, target: pathlib.Path) -> None:
  """Writes a file of a disk as one object."""
  assert isinstance(target, storage.Remote)
  target.files.put_file(str(file), str(target))


@contextlib.contextmanager
def staged(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path of a disk to write to; at the end of the block its content becomes the object."""
  with tempfile.TemporaryDirectory(prefix="videodiff_jax-") as folder:
    half = pathlib.Path(folder) / target.name
    yield half
    put(half, target)


class Spool:
  """A folder for files that grow: on a disk the folder itself, else one whose files are sent.

  Attributes:
    folder: the folder of a disk to write to.
  """

  def __init__(self, folder: pathlib.Path, goes_on: Sequence[str] = ()):
    """`goes_on`: names of files that earlier processes wrote, to be continued."""
    self._target = folder if storage.is_remote(folder) else None
    self.folder = scratch() if self._target else folder
    self._sent: dict[pathlib.Path, tuple[int, int]] = {}
    self.folder.mkdir(parents=True, exist_ok=True)
    for name in goes_on if self._target else ():
      with contextlib.suppress(FileNotFoundError):
        (self.folder / name).write_bytes((folder / name).read_bytes())

  def send(self) -> None:
    """Writes the files that have changed to their addresses; does nothing on a disk."""
    if self._target is None:
      return
    for file in self.folder.rglob("*"):
      state = file.stat()
      now = (state.st_size, state.st_mtime_ns)
      if file.is_file() and self._sent.get(file) != now:
        put(file, self._target / file.relative_to(self.folder).as_posix())
        self._sent[file] = now

  def close(self) -> None:
    """Sends, and removes the local folder."""
    self.send()
    if self._target is not None:
      shutil.rmtree(self.folder, ignore_errors=True)
