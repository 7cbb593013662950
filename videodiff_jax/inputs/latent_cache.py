"""The latent cache: posteriors' means and log-variances, computed once and read for frames.

A file's name has its kind, the weights that computed it and a hash of everything it depends on. So
files from other weights lie beside it, and no file is ever overwritten. A .json of the same name
lists all this for people, and is compared before the file is read. A .crc32 has the CRC-32 of the
header and of every row's views, which are checked at each read.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tqdm
from absl import logging

from videodiff_jax import locks, text_files, whole_files

_SUMMED = "crc32"  # this key of the .json marks a file with checksums; early files have none
_SUM = np.dtype("<u4")
KINDS = ("latents", "global_features")


class MomentsError(ValueError):
  """A file of moments is damaged or belongs to other data; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Moments:
  """Moments of a store's frames or clips, read from disk as needed.

  Attributes:
    kind: 'latents', one row per frame, or 'global_features', one row per clip.
    file: a .npy file (rows, views, h, w, 2 c). View 0 is the stored frame or clip; view 1, which
      exists where clips are mirrored, its mirror image.
    first: (num_videos,) the row of each video's first frame or clip.
    target_frames: whether batches also hold the target frames, for a loss on pixels.
  """

  kind: str
  file: pathlib.Path
  first: np.ndarray
  target_frames: bool = False

  @functools.cached_property
  def _rows(self) -> np.memmap:
    return np.load(self.file, mmap_mode="r")

  @functools.cached_property
  def _sums(self) -> np.ndarray | None:
    """The checksums (rows, views), or None where the file has none."""
    return _read_sums(self.file, self._rows)

  def __reduce__(self) -> tuple[Any, ...]:
    # Only the file's name is pickled; a pickled memmap would hold the whole file.
    return Moments, (self.kind, self.file, self.first, self.target_frames)

  def read(self, video: int, places: np.ndarray | int, flip: bool) -> np.ndarray:
    """Reads means and log-variances (..., h, w, 2 c) of frames, or of clips by their start.

    Args:
      video: index of the video.
      places: indices of its frames, or starts of its clips.
      flip: reads the mirrored view.

    Raises:
      MomentsError: a row is not as it was written.
    """
    rows = self.first[video] + places
    values = self._rows[rows, int(flip)]
    if self._sums is not None:
      each = values.reshape(-1, *self._rows.shape[2:])
      for row, value in zip(np.ravel(rows), each):
        if _crc32(value) != self._sums[row, int(flip)]:
          raise _damaged(self.file, f"row {row} is not as it was written")
    return values


def path_of(folder: pathlib.Path, about: dict[str, Any]) -> pathlib.Path:
  """Returns the path in a folder of the file that `about` describes by 'kind', 'weights', ..."""
  digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
  return folder / f"{about['kind']}-{about['weights']}-{digest}.npy"


def check(file: pathlib.Path, about: dict[str, Any]) -> None:
  """Checks that a file is intact and is the one that `about` describes.

  Raises:
    MomentsError: it is damaged or differs; the message names the first difference.
  """
  try:
    found = text_files.read_json(file.with_suffix(".json"))
    summed = found.pop(_SUMMED, False)
    rows = np.load(file, mmap_mode="r")
  except (OSError, ValueError, EOFError) as error:
    raise _damaged(file, error) from error
  for key in sorted(found.keys() | about.keys()):
    if found.get(key) != about.get(key):
      raise MomentsError(
        f"{file} was made with {key} {found.get(key)}, not {about.get(key)}: move it away and make "
        "it again."
      )
  if summed != (_read_sums(file, rows) is not None):
    raise _damaged(file, f"{file.with_suffix('.crc32').name} is missing")
  if not summed:
    logging.info("%s was written without checksums: it is read as it is.", file)


def write(
  file: pathlib.Path,
  about: dict[str, Any],
  shape: tuple[int, ...],
  dtype: np.dtype,
  chunk: int,
  compute: Callable[[np.ndarray], Any],
) -> None:
  """Computes a file's rows in order, continuing where a killed call stopped.

  Rows are appended to FILE.unfinished, and their checksums to FILE.crc32.unfinished. The lengths
  of both are the progress: only whole chunks count, up to the first damaged row. The finished
  files are renamed.

  Args:
    file: from `path_of`; an existing file is checked and kept.
    about: everything that the values depend on.
    shape: (rows, views, h, w, 2 c).
    dtype: the values' type.
    chunk: rows per call of `compute`.
    compute: maps row numbers (chunk,) to their values (chunk, ...); the last call repeats the last
      row. It may return an array that a device still computes: that array is awaited only after
      the next call.

  Raises:
    MomentsError: the disk is too full, or an existing file is damaged or differs.
    LockedError: another process writes the file.
  """
  sums = file.with_suffix(".crc32.unfinished")
  if file.is_file():
    check(file, about)
    sums.unlink(missing_ok=True)  # a call that was killed at its very end leaves it behind
    logging.info("%s is there already.", file)
    return
  file.parent.mkdir(parents=True, exist_ok=True)
  unfinished = file.with_suffix(".unfinished")
  row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
  header = _header(shape, dtype)
  lock = locks.hold(file.with_suffix(".lock"), f"writes {file}")
  with lock, whole_files.named(file), unfinished.open("ab") as out, sums.open("ab") as out_sums:
    # Continue after the whole chunks of a killed call.
    done = _whole_rows(unfinished, sums, header, shape, row_bytes) // chunk * chunk
    _check_disk(file, shape[0] * row_bytes, (shape[0] - done) * row_bytes, done)
    _write_about(file, about)
    out.truncate(len(header) + done * row_bytes if done else 0)
    out_sums.truncate(_SUM.itemsize * (1 + done * shape[1]) if done else 0)
    if not done:
      out.write(header)
      out_sums.write(_SUM.type(zlib.crc32(header)).tobytes())
    # Each chunk is written while the device computes the next one.
    pending = None
    with tqdm.tqdm(total=shape[0], initial=done, desc=about["kind"], disable=None) as bar:
      for begin in range(done, shape[0], chunk):
        values = compute(np.minimum(np.arange(begin, begin + chunk), shape[0] - 1))
        if pending is not None:
          _append(out, out_sums, pending, chunk, dtype)
          bar.update(chunk)
        pending = values
      rest = (shape[0] - done - 1) % chunk + 1
      if pending is not None:
        _append(out, out_sums, pending, rest, dtype)
        bar.update(rest)
    # Finish: the checksums first, so that a file with its final name always has them.
    os.fsync(out.fileno())
    whole_files.write_bytes(file.with_suffix(".crc32"), sums.read_bytes())
    os.replace(unfinished, file)
    sums.unlink()


def _damaged(file: pathlib.Path, why: object) -> MomentsError:
  return MomentsError(f"{file} is damaged ({why}): move it away and make it again.")


def _crc32(values: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(values))


def _whole_rows(
  unfinished: pathlib.Path,
  sums: pathlib.Path,
  header: bytes,
  shape: tuple[int, ...],
  row_bytes: int,
) -> int:
  """Counts the rows of an unfinished file, from the first on, that match their checksums."""
  found, views = np.fromfile(sums, _SUM), shape[1]
  with unfinished.open("rb") as file:
    begin = file.read(len(header))
    if begin != header or not found.size or found[0] != zlib.crc32(header):
      return 0
    rows = min(shape[0], (len(found) - 1) // views)
    for row in range(rows):
      data = file.read(row_bytes)
      each = row_bytes // views
      read = [zlib.crc32(data[view * each : (view + 1) * each]) for view in range(views)]
      if read != found[1 + row * views : 1 + (row + 1) * views].tolist():
        return row
  return rows


def _read_sums(file: pathlib.Path, rows: np.memmap) -> np.ndarray | None:
  """Reads the checksums (rows, views) of a mapped file; None where there are none."""
  sums = file.with_suffix(".crc32")
  if not sums.is_file():
    return None
  found = np.fromfile(sums, _SUM)
  with file.open("rb") as opened:
    header = zlib.crc32(opened.read(rows.offset))
  if len(found) != 1 + np.prod(rows.shape[:2]) or found[0] != header:
    raise _damaged(file, f"its header or {sums.name} is not as it was written")
  return found[1:].reshape(rows.shape[:2])


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
  header = io.BytesIO()
  descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
  fields = {"descr": descr, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(header, fields)
  return header.getvalue()


def _append(
  out: io.BufferedWriter,
  sums: io.BufferedWriter,
  values: Any,
  count: int,
  dtype: np.dtype,
) -> None:
  rows = np.asarray(values)[:count].astype(dtype)
  each = np.array([_crc32(view) for row in rows for view in row], _SUM)
  for file, content in ((out, rows), (sums, each)):
    file.write(content.tobytes())
    file.flush()


def _check_disk(file: pathlib.Path, size: int, needed: int, done: int) -> None:
  free = shutil.disk_usage(file.parent).free
  logging.info(
    "%s: %.2f GB%s, %.1f GB free", file, size / 1e9, f", {done} rows done" if done else "",
    free / 1e9,
  )  # fmt: skip
  if needed > free:
    raise MomentsError(
      f"{file} needs {needed / 1e9:.2f} GB more, but its disk has {free / 1e9:.2f} GB free: make "
      "room there."
    )


def _write_about(file: pathlib.Path, about: dict[str, Any]) -> None:
  text = json.dumps(about | {_SUMMED: True}, indent=1) + "\n"
  whole_files.write_text(file.with_suffix(".json"), text)
