"""One of two processes of a training run; started by two_processes_test.py."""

import pathlib
import sys
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from tests.training import toy
from videodiff_jax import shares
from videodiff_jax.chunks import in_chunks
from videodiff_jax.training import hosts, loop, partitioning, validation


def main(folder: str, steps: str) -> None:
  hosts.join()
  check_agreement()
  check_leading()
  check_shares()
  check_disk(pathlib.Path(folder).parent)
  mesh = partitioning.make_mesh(4, 2)
  rows = partitioning.local_rows(mesh, 8)
  assert len(rows) == 4

  def batches(start: int) -> Iterator[loop.HostBatch]:
    for batch in toy.batches(start):
      yield {name: value[rows] for name, value in batch.items()}

  run = toy.run(pathlib.Path(folder), int(steps), mesh=mesh)
  validated = validation.Validation(3, lambda: toy.held_out(mesh))
  assert loop.train(toy.make_stage(), run, toy.FROZEN, batches, {}, lambda *_: None, validated)


def check_agreement() -> None:
  """What one host finds or fails in is what all learn, and nobody waits for ever."""
  index = jax.process_index()
  assert hosts.decide(lambda: [index, "x" * 3000]) == [0, "x" * 3000]
  assert hosts.everywhere(lambda: index) == index

  def fail() -> None:
    raise ValueError("torn")

  with pytest.raises(hosts.HostError if index else ValueError, match=r"^torn$"):
    hosts.decide(fail)
  told = "^torn$" if index == 1 else "^Host 1: torn$"
  with pytest.raises(ValueError if index == 1 else hosts.HostError, match=told):
    hosts.everywhere(fail if index == 1 else lambda: None)

  hosts.agree({"seed": "1"})
  with pytest.raises(
    hosts.HostError, match=r"^Host 1 \(.*\) has seed 1, but host 0 \(.*\) has 0\."
  ):
    hosts.agree({"seed": str(index)})


def check_leading() -> None:
  """The first host alone runs the program, and all make its calls."""
  calls: list[list[int]] = []
  led = hosts.lead(lambda call: [call([n]) for n in (3, 4)], calls.append)
  assert calls == [[3], [4]] and led == (None if jax.process_index() else [None, None])

  def fail(call) -> None:
    call(5)
    raise ValueError("full")

  with pytest.raises(hosts.HostError if jax.process_index() else ValueError, match=r"^full$"):
    hosts.lead(fail, calls.append)
  assert calls[2:] == [5]


def check_disk(folder: pathlib.Path) -> None:
  """A folder that one host does not see is not shared; nothing stays in it."""
  assert hosts.share(folder)
  with pytest.MonkeyPatch.context() as patch:
    if jax.process_index():
      patch.setattr(pathlib.Path, "exists", lambda _: False)
    assert not hosts.share(folder)
  hosts.everywhere(lambda: None)  # the first host has removed its file
  assert not [file for file in folder.iterdir() if "seen" in file.name]


def check_shares() -> None:
  """Each host has its rows, and all get all results in order."""
  index = jax.process_index()
  for total in (1, 2, 5):
    parts = shares.split(lambda rows: 2 * np.arange(rows.start, rows.stop), total)
    assert len(parts) == min(total, 2)
    np.testing.assert_array_equal(np.concatenate(parts), 2 * np.arange(total))
  assert (
    shares.split(lambda rows: [shares.parts(), shares.split(str, 3)], 2)
    == [[1, ["slice(0, 3, None)"]]] * 2
  )

  def torn(rows: slice) -> None:
    if rows.start:
      raise ValueError("torn")

  with pytest.raises(ValueError if index else shares.HostError, match=r"torn$"):
    shares.split(torn, 2)
  assert shares.parts() == 2

  mesh, rows = partitioning.make_mesh(), np.arange(11, dtype=np.float32)
  doubled = jax.jit(lambda x: 2 * x)
  found = in_chunks(lambda x: doubled(partitioning.put_whole({"x": x}, mesh)["x"]), (rows,), 8)
  np.testing.assert_array_equal(found, 2 * rows)


if __name__ == "__main__":
  main(*sys.argv[1:])
