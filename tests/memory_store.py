"""Object storage in this process's memory, under the address s3://bucket: for tests of paths."""

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from videodiff_jax import storage


class Memory(MemoryFileSystem):
  """A memory of its own for each instance."""

  protocol = "s3"
  cachable = False

  def __init__(self) -> None:
    super().__init__()
    self.store, self.pseudo_dirs = {}, [""]

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return super()._strip_protocol(path.removeprefix("s3://"))

  def info(self, path: str, **options: object) -> dict:
    found = super().info(path, **options)
    return found | {"LastModified": found.get("created")}


def use(monkeypatch: pytest.MonkeyPatch) -> storage.Remote:
  """Puts the memory in place of S3; returns the address of a run in it."""
  memory = Memory()
  monkeypatch.setattr(storage, "_file_system", lambda scheme: memory)
  run = storage.path("s3://bucket/run")
  assert isinstance(run, storage.Remote)
  return run
