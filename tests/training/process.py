"""One of several processes of a training run; started by two_processes_test.py."""

import os
import pathlib
import sys


def main(folder: str, port: str, index: str, count: str, steps: str) -> None:
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
  import jax

  jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
  from tests.training import toy
  from videodiff_jax.training import loop, partitioning

  share = 8 // int(count)

  def batches(start: int):
    for batch in toy.batches(start):
      rows = slice(int(index) * share, (int(index) + 1) * share)
      yield {name: value[rows] for name, value in batch.items()}

  mesh = partitioning.make_mesh(4, 2)
  run = toy.run(pathlib.Path(folder), int(steps), mesh=mesh)
  finished = loop.train(toy.make_stage(), run, toy.FROZEN, batches, {}, lambda *_: None)
  jax.distributed.shutdown()
  sys.exit(0 if finished else 3)


if __name__ == "__main__":
  main(*sys.argv[1:])
