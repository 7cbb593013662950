"""One of two processes of a training run; started by two_processes_test.py."""

import pathlib
import sys
from collections.abc import Iterator

import jax
import pytest

from tests.training import toy
from videodiff_jax.training import hosts, loop, partitioning, validation


def main(folder: str, steps: str) -> None:
  hosts.join()
  check_agreement()
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


if __name__ == "__main__":
  main(*sys.argv[1:])
