"""Files that are there whole or not at all, whatever kills their process or fills their disk."""

import contextlib
import errno
import hashlib
import os
import pathlib
import socket
from collections.abc import Iterator

Path = str | os.PathLike[str]


@contextlib.contextmanager
def written(path: Path) -> Iterator[pathlib.Path]:
  """Another name to write a file under; after the block it has taken its place at `path`.

  That name is hidden, lies beside `path` and ends as it does. It is gone after an error, and what
  a killed process left of the same file is gone, too.

  Raises:
    OSError: what the block or the disk raised; names `path`, also where a library did not.
  """
  path = pathlib.Path(path)
  # Of one length: a name beside the longest that a disk takes would be too long.
  end = f".{hashlib.sha256(path.name.encode(errors='replace')).hexdigest()[:8]}{path.suffix}"
  half = path.with_name(f".unfinished.{owner()}{end}")
  with named(path):
    try:
      for left in path.parent.glob(f".unfinished.*{end}"):
        if is_gone(left.name.removeprefix(".unfinished.").removesuffix(end)):
          left.unlink(missing_ok=True)
      yield half
      with half.open("rb") as file:
        os.fsync(file.fileno())  # before it has its name: after a power cut it would be empty
      os.replace(half, path)
    except BaseException:
      with contextlib.suppress(OSError):
        half.unlink(missing_ok=True)
      raise


def write_bytes(path: Path, data: bytes) -> None:
  """Writes a file, see `written`."""
  with written(path) as half:
    half.write_bytes(data)


def write_text(path: Path, text: str) -> None:
  """Writes a file of UTF-8, see `written`."""
  write_bytes(path, text.encode())


def append_line(path: Path, line: str) -> None:
  """Adds a line to a file that may not be there yet; half a line at its end is never added to.

  Raises:
    OSError: as `written`; the file ends with half of the line.
  """
  with named(pathlib.Path(path)), open(path, "a+b") as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":
        line = f"\n{line}"
    file.write(f"{line}\n".encode())


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
  """Around the writing of a file: an OSError that leaves the block tells which file it was."""
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
  """This process, for others to see whether it still runs: 'PID.START.HOST'."""
  return f"{os.getpid()}.{_start(os.getpid())}.{socket.gethostname()}"


def is_gone(of: str) -> bool:
  """Whether an earlier `owner()` has ended for certain: of another host's nobody here knows."""
  pid, start, host = (*of.split(".", 2), "", "")[:3]
  if host != socket.gethostname() or not pid.isdecimal():
    return False
  return _start(int(pid)) != start  # numbers come again, in a container most of all


def _start(pid: int) -> str:
  """When a process began, in the kernel's ticks; '' where it does not run."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
  except OSError:
    return ""
