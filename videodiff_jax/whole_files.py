"""Atomic writes: a file exists whole or not at all, even after a crash or with a full disk.

An object in object storage is written by one request, so it needs no second name; it is made in a
temporary folder of a disk first where a library writes it piece by piece.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import socket
from collections.abc import Iterator

from videodiff_jax import copies, storage

Path = str | os.PathLike[str]


@contextlib.contextmanager
def written(path: Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path to write to, and renames it to `path` at the end of the block.

  The temporary file is hidden, lies beside `path` and has its suffix. It is removed after an
  error. What a killed process left of the same file is removed, too.

  Raises:
    OSError: the block or the disk failed; the error names `path` even where a library did not.
  """
  path = storage.path(path)
  if storage.is_remote(path):
    with copies.staged(path) as half:
      yield half
    return
  # The name has a fixed length: with `path.name` in it, it could be longer than a disk allows.
  end = f".{hashlib.sha256(path.name.encode(errors='replace')).hexdigest()[:8]}{path.suffix}"
  half = path.with_name(f".unfinished.{owner()}{end}")
  with named(path):
    try:
      for left in path.parent.glob(f".unfinished.*{end}"):
        if is_gone(left.name.removeprefix(".unfinished.").removesuffix(end)):
          left.unlink(missing_ok=True)
      yield half
      with half.open("rb") as file:
        os.fsync(file.fileno())  # before the rename: else a power cut could leave an empty file
      os.replace(half, path)
    except BaseException:
      with contextlib.suppress(OSError):
        half.unlink(missing_ok=True)
      raise


def write_bytes(path: Path, data: bytes) -> None:
  """Writes a file atomically, see `written`."""
  path = storage.path(path)
  if storage.is_remote(path):
    path.write_bytes(data)
    return
  with written(path) as half:
    half.write_bytes(data)


def write_text(path: Path, text: str) -> None:
  """Writes text as UTF-8 atomically, see `written`."""
  write_bytes(path, text.encode())


def append_line(path: Path, line: str) -> None:
  """Appends a line to a file, which is created if needed; first ends a partial line before it.

  An object is read and written again as a whole, so that two who append at once may lose a line.

  Raises:
    OSError: as `written`; the file may then end with part of the line.
  """
  path = storage.path(path)
  if storage.is_remote(path):
    before = path.read_bytes() if path.is_file() else b""
    path.write_bytes(before + f"{line}\n".encode())
    return
  with named(path), path.open("a+b") as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":
        line = f"\n{line}"
    file.write(f"{line}\n".encode())


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
  """Makes an OSError that leaves the block name the file that the block writes."""
  try:
    yield
  except OSError as error:
    known = error.filename is not None and not str(error.filename).startswith(
      str(path.with_name(".unfinished."))
    )
    if known:
      raise
    number = error.errno or errno.EIO
    raise OSError(number, error.strerror or str(error), str(path)) from error


def owner() -> str:
  """Identifies this process as 'PID.START.HOST', so that others can see whether it still runs."""
  return f"{os.getpid()}.{_start(os.getpid())}.{socket.gethostname()}"


def is_gone(identity: str) -> bool:
  """Tells whether the process of an `owner()` has certainly ended; unknown for another host's."""
  pid, start, host = (*identity.split(".", 2), "", "")[:3]
  if host != socket.gethostname() or not pid.isdecimal():
    return False
  return _start(int(pid)) != start  # process numbers are reused, most of all in containers


def is_here(identity: str) -> bool:
  """Tells whether the process of an `owner()` certainly runs, on this host."""
  return identity.endswith(f".{socket.gethostname()}") and not is_gone(identity)


def _start(pid: int) -> str:
  """Returns when a process began, in the kernel's ticks; '' where it does not run."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
  except OSError:
    return ""
