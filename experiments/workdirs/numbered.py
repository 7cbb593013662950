"""Numbered names in a workdir: each is claimed before anything is drawn for it.

A claim is the folder NUMBER.unfinished beside the others, and making it is what no two processes
can do at once. All is written into it and takes its place, whole, at the end. What a kill leaves of
a claim the next one removes; drawn samples that were written whole then get their name after all.
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from absl import logging

from experiments.workdirs import outputs
from videodiff_jax import whole_files

UNFINISHED = ".unfinished"
SAMPLES = "samples.npz"
_OWNER = ".owner"
_FOLDER = re.compile(r"(\d+)_[a-z]+_seed\d+")  # of samples


def sample_folders(samples: pathlib.Path) -> list[pathlib.Path]:
  """The finished folders of samples that hold one, by time: a number may come again."""
  found = []
  for name in filter(_FOLDER.fullmatch, _names(samples)):
    with contextlib.suppress(OSError):
      found.append(((samples / name / SAMPLES).stat().st_mtime_ns, samples / name))
  return [folder for _, folder in sorted(found)]


class SampleFolder:
  """samples/NUMBER_MODE_seedSEED while it is being made; a context.

  Without `finish` the folder goes with the block, unless its samples.npz is there, which is whole.
  """

  def __init__(self, workdir: pathlib.Path, mode: str, seed: int, needed: int):
    """`needed`: bytes that will be written, about; less on the disk is an error on entering."""
    self._samples = outputs.folder(workdir) / "samples"
    self.mode, self._what, self._needed = mode, f"{mode}_seed{seed}", needed

  def __enter__(self) -> "SampleFolder":
    """Raises OSError or UserError where nothing could be written."""
    outputs.check_room(self._samples, self._needed)

    def taken() -> list[int]:
      return [int(found[1]) for found in map(_FOLDER.fullmatch, _names(self._samples)) if found]

    _, self.unfinished = _claim(self._samples, taken, lambda n: f"{n:03d}", 0, self._what)
    return self

  def finish(self) -> pathlib.Path:
    """Gives the folder its name."""
    folder = self.unfinished.with_name(f"{self.unfinished.stem}_{self._what}")
    (self.unfinished / _OWNER).unlink(missing_ok=True)
    self.unfinished.rename(folder)
    return folder

  def __exit__(self, *_: object) -> None:
    _settle(self.unfinished, self._what)


@contextlib.contextmanager
def files(folder: pathlib.Path, *names: str) -> Iterator[list[pathlib.Path]]:
  """Where to write files of those names, which get one number that none of them has yet.

  'quick.json' and 'sets.png', then 'quick_2.json' and 'sets_2.png', ... Those that were written
  take their places after the block, the first one last: where it is, the others are.

  Raises:
    OSError: nothing can be written there.
  """
  patterns = [
    re.compile(rf"{re.escape(path.stem)}(?:_(\d+))?{re.escape(path.suffix)}")
    for path in map(pathlib.Path, names)
  ]

  def taken() -> list[int]:
    found = (pattern.fullmatch(name) for name in _names(folder) for pattern in patterns)
    return [int(match[1] or 1) for match in found if match]

  def numbered(name: str, number: int) -> str:
    return pathlib.Path(name).stem + ("" if number == 1 else f"_{number}")

  number, claim = _claim(folder, taken, lambda n: numbered(names[0], n), 1)
  try:
    made = [claim / (numbered(name, number) + pathlib.Path(name).suffix) for name in names]
    yield made
    for file in reversed(made):
      if file.is_file():
        os.replace(file, folder / file.name)
  finally:
    shutil.rmtree(claim, ignore_errors=True)


def _claim(
  folder: pathlib.Path,
  taken: Callable[[], list[int]],
  name: Callable[[int], str],
  first: int,
  what: str = "",
) -> tuple[int, pathlib.Path]:
  """The number after the highest one, now this process's, and the folder that says so.

  `what` is the end of the name that the folder will have.
  """
  folder.mkdir(parents=True, exist_ok=True)
  _clean(folder)
  number = max(taken(), default=first - 1) + 1
  while True:
    claim = folder / f"{name(number)}{UNFINISHED}"
    try:
      claim.mkdir()
    except FileExistsError:  # another process draws
      number += 1
      continue
    if number <= max(taken(), default=first - 1):  # another one has finished since
      claim.rmdir()
      number += 1
      continue
    try:
      whole_files.write_text(claim / _OWNER, f"{whole_files.owner()} {what}")
    except OSError:
      shutil.rmtree(claim, ignore_errors=True)
      raise
    return number, claim


def _clean(folder: pathlib.Path) -> None:
  """Settles the claims of processes that were killed."""
  for claim in folder.glob(f"*{UNFINISHED}"):
    with contextlib.suppress(OSError):  # none of ours, or another process settles it
      owner, _, what = (claim / _OWNER).read_text(errors="replace").partition(" ")
      if whole_files.is_gone(owner):
        _settle(claim, what)


def _settle(claim: pathlib.Path, what: str) -> None:
  """Removes what is left of a claim; samples that were drawn get their name all the same."""
  if not (claim / SAMPLES).is_file():
    shutil.rmtree(claim, ignore_errors=True)
    return
  for half in claim.glob(".unfinished.*"):
    half.unlink()
  folder = claim.with_name(f"{claim.stem}_{what}")
  (claim / _OWNER).unlink(missing_ok=True)
  claim.rename(folder)
  logging.warning("%s holds what was drawn; its pictures and clips are not all there.", folder)


def _names(folder: pathlib.Path) -> list[str]:
  return [path.name for path in folder.iterdir()] if folder.is_dir() else []
