"""Paths in object storage, s3://BUCKET/... and gs://BUCKET/..., beside paths of disks.

Objects differ from files, and this module is where the difference is known:

- An object appears whole, by one request, or not at all. Nothing can be appended to it.
- There are no folders: one exists while an object lies below it, and making one does nothing.
- Renaming a folder copies and deletes its objects, one by one.
- The only atomic test is to create an object if there is none of its name (`Remote.create`).

Credentials and endpoints are those of s3fs and gcsfs: the environment's or the machine's.
"""

import datetime
import functools
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from etils import epath

# Scheme -> the package that reaches it, and its name for fsspec.
SCHEMES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}
_MARK = "://"

_Base: Any = type(epath.Path("s3://bucket"))


class Stat(NamedTuple):
  """What is known of an object; the names are those of os.stat_result, and etils' own.

  Attributes:
    st_size: bytes.
    st_mtime_ns: time of the last change, nanoseconds since 1970; S3 tells whole seconds.
    is_directory: whether objects lie below the name.
  """

  st_size: int
  st_mtime_ns: int
  is_directory: bool

  @property
  def st_mtime(self) -> float:
    return self.st_mtime_ns / 1e9

  @property
  def length(self) -> int:
    return self.st_size

  @property
  def mtime(self) -> int:
    return self.st_mtime_ns // 10**9


class Remote(_Base):
  """An address in object storage, with the methods of pathlib.Path.

  etils' own path lacks some of them, asks for each answer twice, and takes an unreachable store for
  an empty one.
  """

  @property
  def files(self) -> Any:
    """The fsspec file system of the address; its methods take str(self)."""
    return _file_system(str(self).partition(_MARK)[0])

  def absolute(self) -> "Remote":
    return self

  def resolve(self, strict: bool = False) -> "Remote":
    return self

  def expanduser(self) -> "Remote":
    return self

  def exists(self) -> bool:
    return self._info() is not None

  def is_file(self) -> bool:
    return (self._info() or {}).get("type") == "file"

  def is_dir(self) -> bool:
    return (self._info() or {}).get("type") == "directory"

  def stat(self) -> Stat:
    """Returns size and time; raises FileNotFoundError where nothing has this name."""
    info = self.files.info(str(self))
    changed = info.get("LastModified") or info.get("mtime") or info.get("updated")
    if isinstance(changed, str):
      changed = datetime.datetime.fromisoformat(changed)
    nanoseconds = int(changed.timestamp() * 1e6) * 1000 if changed else 0
    return Stat(info.get("size") or 0, nanoseconds, info["type"] == "directory")

  def iterdir(self) -> Iterator["Remote"]:
    """Yields what lies directly below; raises FileNotFoundError where nothing does."""
    for name in self.files.ls(str(self), detail=False):
      if name.strip("/") != str(self).partition(_MARK)[2]:  # an empty object marks some folders
        yield self / name.strip("/").rpartition("/")[2]

  def glob(self, pattern: str) -> Iterator["Remote"]:
    """Yields what matches a pattern below the address, in which * stays within a folder."""
    scheme = str(self).partition(_MARK)[0]
    for name in self.files.glob(str(self / pattern)):
      yield type(self)(f"{scheme}{_MARK}{name.strip('/')}")

  def open(self, mode: str = "r", **options: Any) -> Any:
    """Opens an object; one that is written appears when it is closed."""
    return self.files.open(str(self), mode, **options)

  def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
    """Does nothing: a folder comes into being with what is written below it."""

  def read_bytes(self) -> bytes:
    return self.files.cat_file(str(self))

  def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
    return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

  def write_bytes(self, data: bytes) -> int:
    self.files.pipe_file(str(self), bytes(data))
    return len(data)

  def write_text(self, text: str, encoding: str | None = None, errors: str | None = None) -> int:
    return self.write_bytes(text.encode(encoding or "utf-8", errors or "strict"))

  def create(self, data: bytes) -> None:
    """Writes the object if there is none of this name, in one atomic request.

    Args:
      data: the content; it must be this process's own, as that of a lock.

    Raises:
      FileExistsError: there is one, with another content.
    """
    try:
      self.files.pipe_file(str(self), data, mode="create")
    except FileExistsError:
      # The answer to a request that succeeded may be lost; its repetition then finds the object.
      if self.read_bytes() != data:
        raise

  def unlink(self, missing_ok: bool = False) -> None:
    if not missing_ok and not self.exists():
      raise FileNotFoundError(2, os.strerror(2), str(self))
    try:
      self.files.rm_file(str(self))
    except FileNotFoundError:
      if not missing_ok:
        raise

  def rename(self, target: os.PathLike[str] | str) -> "Remote":
    """Copies an object, or all of a folder, to another address of the store and deletes it."""
    own, other = (str(place).partition(_MARK)[2] for place in (self, type(self)(target)))
    names = self.files.find(str(self))
    if not names:
      raise FileNotFoundError(2, os.strerror(2), str(self))
    for name in names:
      self.files.cp_file(name, other + name.strip("/").removeprefix(own))
    for name in names:
      self.files.rm_file(name)
    return type(self)(target)

  def rmtree(self, missing_ok: bool = False) -> None:
    if missing_ok and not self.exists():
      return
    self.files.rm(str(self), recursive=True)

  def _info(self) -> dict[str, Any] | None:
    try:
      return self.files.info(str(self))
    except FileNotFoundError:
      return None


def is_address(given: str | os.PathLike[str]) -> bool:
  """Tells whether a text is an address, of any scheme, and not a path of a disk."""
  return _MARK in os.fspath(given)


def is_remote(place: os.PathLike[str] | str) -> bool:
  """Tells whether a path, or its text, lies in object storage."""
  return isinstance(place, Remote) or (isinstance(place, str) and is_address(place))


def path(given: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a pathlib.Path or, for an address, a `Remote`, which has the same methods.

  Raises:
    ValueError: the address is of another scheme than s3 and gs, or names no bucket.
  """
  if isinstance(given, Remote):
    return cast(pathlib.Path, given)
  text = os.fspath(given)
  if not is_address(text):
    return pathlib.Path(text)
  scheme, _, rest = text.partition(_MARK)
  if scheme not in SCHEMES:
    raise ValueError(
      f"{text!r} is an address of another kind than s3:// and gs://: copy what it leads to, to a "
      "disk or a bucket."
    )
  if not rest.strip("/"):
    raise ValueError(f"{text!r} names no bucket: write {scheme}://BUCKET/FOLDER.")
  return cast(pathlib.Path, Remote(text.rstrip("/")))


def rmtree(folder: pathlib.Path) -> None:
  """Removes a folder and all below it, on a disk or in object storage."""
  if isinstance(folder, Remote):
    folder.rmtree(missing_ok=True)
  else:
    shutil.rmtree(folder)


def check(place: pathlib.Path, name: str = "") -> None:
  """Asks once for the bucket of an address; does nothing for a path of a disk.

  Raises:
    ValueError: there is no such bucket, it is not ours to read, nothing answers, or the package
      that reaches the store is not installed.
  """
  if not is_remote(place):
    return
  scheme, _, rest = str(place).partition(_MARK)
  bucket = f"{scheme}{_MARK}{rest.split('/')[0]}"
  prefix = f"{name}: " if name else ""
  files = _file_system(scheme)
  try:
    files.ls(bucket)
  except FileNotFoundError as error:
    raise ValueError(f"{prefix}there is no bucket {bucket}: make it first.") from error
  except Exception as error:  # each package has errors of its own for credentials and networks
    first = str(error).partition("\n")[0]
    raise ValueError(
      f"{prefix}{bucket} cannot be read ({type(error).__name__}: {first}): check the credentials, "
      "the endpoint and the network."
    ) from error


@functools.cache
def _file_system(scheme: str) -> Any:
  import fsspec  # late: only runs in object storage need it

  package, name = SCHEMES[scheme]
  if importlib.util.find_spec(package) is None:
    raise ValueError(f'{scheme}{_MARK} needs {package}: pip install -e ".[cloud]".')
  os.environ.setdefault("EPATH_USE_TF", "false")  # orbax's paths are to use fsspec, as ours do
  # Listings are never kept: other processes write here, too. `conf` also holds for orbax's paths.
  for each in ("s3", "gcs", "gs"):
    fsspec.config.conf.setdefault(each, {}).setdefault("use_listings_cache", False)
  return fsspec.filesystem(name)
