"""Numbered names in a workdir; each is claimed before anything is drawn for it.

A claim is the folder NUMBER.unfinished beside the others; making a folder is atomic, so that no two
processes can claim one number. Files are written into it and moved to their place at the end. The
next claim removes what a killed process left; its samples are kept if they were written whole.

In object storage a claim is an object of that name, since creating one is as atomic. Files are
written into a temporary folder of a disk, and sent at the end.
"""

import contextlib
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator

from absl import logging

from experiments.workdirs import outputs
from videodiff_jax import copies, shares, storage, whole_files
from videodiff_jax.training import hosts

UNFINISHED = ".unfinished"
SAMPLES = "samples.npz"
_OWNER = ".owner"
_FOLDER = re.compile(r"(\d+)_[a-z]+_seed\d+")  # a folder of samples


def sample_folders(samples: pathlib.Path) -> list[pathlib.Path]:
  """Lists the finished folders with samples, oldest first; numbers may be reused."""
  found = []
  for name in filter(_FOLDER.fullmatch, _names(samples)):
    with contextlib.suppress(OSError):
      found.append(((samples / name / SAMPLES).stat().st_mtime_ns, samples / name))
  return [folder for _, folder in sorted(found)]


class SampleFolder:
  """Context in which samples/NUMBER_MODE_seedSEED is made.

  Unless `finish` is called, the folder is removed at the end of the block. It is kept if its
  samples.npz exists, since that file is always whole. Of several hosts, all enter and leave the
  block, and the first makes the folder.
  """

  def __init__(self, workdir: pathlib.Path, mode: str, seed: int, needed: int):
    """`needed`: about how many bytes will be written; entering fails if the disk has fewer."""
    self._samples = outputs.folder(workdir) / "samples"
    self.mode, self._what, self._needed = mode, f"{mode}_seed{seed}", needed

  def __enter__(self) -> "SampleFolder":
    """Claims the number; raises OSError or UserError if nothing can be written."""

    def taken() -> list[int]:
      return [int(found[1]) for found in map(_FOLDER.fullmatch, _names(self._samples)) if found]

    def claim() -> str:
      outputs.check_room(self._samples, self._needed)
      return str(_claim(self._samples, taken, lambda n: f"{n:03d}", 0, self._what)[1])

    self._claim = storage.path(hosts.decide(claim))
    self.unfinished = copies.scratch() if storage.is_remote(self._claim) else self._claim
    return self

  def finish(self) -> pathlib.Path:
    """Gives the folder its final name."""
    folder = self._claim.with_name(f"{self._claim.stem}_{self._what}")
    if storage.is_remote(folder):
      copies.send(self.unfinished, folder, last=SAMPLES)
      self._claim.unlink()
      return folder
    (self.unfinished / _OWNER).unlink(missing_ok=True)
    self.unfinished.rename(folder)
    return folder

  def __exit__(self, *_: object) -> None:
    if storage.is_remote(self._claim):
      if shares.is_first():
        self._claim.unlink(missing_ok=True)
      shutil.rmtree(self.unfinished, ignore_errors=True)
    elif shares.is_first():
      _settle(self.unfinished, self._what)


@contextlib.contextmanager
def files(folder: pathlib.Path, *names: str) -> Iterator[list[pathlib.Path]]:
  """Yields paths to write files of these names to; all get the same number, the next free one.

  The names are 'quick.json' and 'sets.png', then 'quick_2.json' and 'sets_2.png', and so on. After
  the block the written files move to their places, the first one last: if it exists, all do.

  Raises:
    OSError: the folder cannot be written to.
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
  remote = storage.is_remote(claim)
  unfinished = copies.scratch() if remote else claim
  try:
    made = [unfinished / (numbered(name, number) + pathlib.Path(name).suffix) for name in names]
    yield made
    for file in reversed(made):
      if file.is_file() and remote:
        copies.put(file, folder / file.name)
      elif file.is_file():
        os.replace(file, folder / file.name)
  finally:
    if remote:
      claim.unlink(missing_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)


def _claim(
  folder: pathlib.Path,
  taken: Callable[[], list[int]],
  name: Callable[[int], str],
  first: int,
  what: str = "",
) -> tuple[int, pathlib.Path]:
  """Claims the number after the highest one; returns it and the claim: a folder, or an object.

  `what` is the end of the name that the folder will get.
  """
  folder.mkdir(parents=True, exist_ok=True)
  _clean(folder)
  number = max(taken(), default=first - 1) + 1
  while True:
    claim = folder / f"{name(number)}{UNFINISHED}"
    try:
      if isinstance(claim, storage.Remote):
        claim.create(f"{whole_files.owner()} {what} {uuid.uuid4()}".encode())
      else:
        claim.mkdir()
    except FileExistsError:  # another process draws
      number += 1
      continue
    if number <= max(taken(), default=first - 1):  # another one has finished since
      claim.unlink() if storage.is_remote(claim) else claim.rmdir()
      number += 1
      continue
    if storage.is_remote(claim):
      return number, claim
    try:
      whole_files.write_text(claim / _OWNER, f"{whole_files.owner()} {what}")
    except OSError:
      shutil.rmtree(claim, ignore_errors=True)
      raise
    return number, claim


def _clean(folder: pathlib.Path) -> None:
  """Removes or completes the claims of processes that were killed."""
  for claim in folder.glob(f"*{UNFINISHED}"):
    with contextlib.suppress(OSError):  # not our claim, or another process completes it
      if storage.is_remote(claim):
        if whole_files.is_gone(claim.read_text(errors="replace").partition(" ")[0]):
          claim.unlink(missing_ok=True)
        continue
      owner, _, what = (claim / _OWNER).read_text(errors="replace").partition(" ")
      if whole_files.is_gone(owner):
        _settle(claim, what)


def _settle(claim: pathlib.Path, what: str) -> None:
  """Removes what is left of a claim; complete samples get their final name instead."""
  if not (claim / SAMPLES).is_file():
    shutil.rmtree(claim, ignore_errors=True)
    return
  for half in claim.glob(".unfinished.*"):
    half.unlink()
  folder = claim.with_name(f"{claim.stem}_{what}")
  (claim / _OWNER).unlink(missing_ok=True)
  claim.rename(folder)
  logging.warning("%s holds all samples, but some of its pictures and clips are missing.", folder)


def _names(folder: pathlib.Path) -> list[str]:
  return [path.name for path in folder.iterdir()] if folder.is_dir() else []
