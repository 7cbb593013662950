"""The HDF5 shards into which MCVD and LGC-VD convert their data sets."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data.builder import SplitSourceOptions, Video, VideoBuilder
from videodiff_jax.inputs.folders import Entry, natural_key
from videodiff_jax.inputs.video_io import VideoError

# Errors that h5py raises for a damaged file; the type depends on the damaged byte.
_DAMAGE = (KeyError, OSError, RuntimeError, TypeError, ValueError)


def _import_h5py() -> Any:
  try:
    import h5py
  except ImportError as error:
    raise ImportError('hdf5_shards is read by h5py: pip install -e ".[hdf5]".') from error
  return h5py


@dataclasses.dataclass(frozen=True)
class Hdf5ShardsOptions(SplitSourceOptions):
  """Options of `hdf5_shards`; others as in `SplitSourceOptions`.

  Attributes:
    source: the folder in which train, val and test hold *.hdf5 or *.h5.
    size: side of the square frames in pixels; MCVD's BAIR has 64, its Cityscapes 128.
  """

  def __post_init__(self) -> None:
    super().__post_init__()
    _import_h5py()  # Fails before anything is started.


class Hdf5Shards(VideoBuilder):
  """Videos that MCVD's or LGC-VD's converters wrote; splits are theirs.

  A shard has a group 'len' with the number of frames of each video, '0', '1' and so on, and a
  group of that name with a dataset a frame, '0', '1' and so on, uint8 (h, w, 3). Shards may be
  empty: the writer leaves one at the end where the videos fill the others exactly.
  """

  OPTIONS = Hdf5ShardsOptions
  CROP = "integer_lanczos"
  VIDEOS_PER_PART = 64

  options: Hdf5ShardsOptions

  @functools.cached_property
  def _found(self) -> dict[str, Entry]:
    """By the name 'SPLIT/SHARD', a shard's with '.h5' where it ends so."""
    return {
      f"{split}/{entry.name.removesuffix('.hdf5')}": entry
      for split, folder in self.options.folders().items()
      for entry in self.entries(folder)
      if entry.path.suffix in (".hdf5", ".h5")
    }

  def candidates(self) -> Mapping[str, int]:
    h5py = _import_h5py()
    found: dict[str, int] = {}
    for name, entry in self._found.items():
      try:
        if entry.fault:
          raise OSError(entry.fault)
        with h5py.File(entry.path) as file:
          keys = sorted(file["len"], key=natural_key)
        found |= {f"{name}/{key}": entry.size for key in keys}
      except _DAMAGE:
        found[name] = entry.size  # `load` reports the fault.
    return found

  def load(self, name: str) -> Video:
    if name in self._found:
      fault = self._found[name].fault or "no HDF5 file with a group 'len'"
      raise VideoError(name, fault)
    shard, key = name.rsplit("/", 1)
    return Video(_frames(self._found[shard].path, key))


def _frames(path: pathlib.Path, key: str) -> Iterator[np.ndarray]:
  """Yields the frames of one video; raises `VideoError` if one cannot be read."""
  what = "the length"
  try:
    with _import_h5py().File(path) as file:
      for t in range(int(file["len"][key][()])):
        what = f"frame {t}"
        frame = np.asarray(file[key][str(t)][()])
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
          raise VideoError(
            path, f"{what} of video {key} is {frame.dtype} {frame.shape}, not uint8 (h, w, 3)"
          )
        yield frame
  except VideoError:
    raise
  except _DAMAGE as error:
    raise VideoError(path, f"{what} of video {key} cannot be read") from error
