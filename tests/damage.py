"""Files damaged as disks, copies and hands do it, one at a time."""

import pathlib
from collections.abc import Iterator

import numpy as np


def damages(folder: pathlib.Path, flips: int, seed: int = 0) -> Iterator[str]:
  """Damages each file below a folder in each way, and puts it back when the next is asked for.

  Args:
    folder: whose files are deleted, emptied, halved, and have one bit flipped.
    flips: how many bits of each file, one at a time, at random places.
    seed: of the places.

  Yields:
    What is damaged now, for messages.
  """
  rng = np.random.default_rng(seed)
  for file in sorted(file for file in folder.rglob("*") if file.is_file()):
    whole = file.read_bytes()
    torn: list[tuple[str, bytes | None]] = [("deleted", None), ("emptied", b"")]
    torn.append(("halved", whole[: len(whole) // 2]))
    for place in rng.integers(8 * len(whole), size=flips if whole else 0):
      flipped = bytearray(whole)
      flipped[place // 8] ^= 1 << place % 8
      torn.append((f"bit {place} flipped", bytes(flipped)))
    for way, content in torn:
      if content is None:
        file.unlink()
      else:
        file.write_bytes(content)
      yield f"{file.relative_to(folder)} {way}"
      file.write_bytes(whole)
