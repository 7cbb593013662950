"""--mode=doctor on every host: one block from each, and what the first one sees by comparing them.

A block has the devices, the host's share of a batch and of the data, and the speed of the storage.
"""

import json
import os
import pathlib
import platform
import socket
import statistics
import time
from collections.abc import Mapping, Sequence

import jax
import ml_collections
import numpy as np

from experiments.setup import checks
from experiments.tools import doctor, doctor_buckets
from experiments.workdirs import provenance
from videodiff_jax import storage, typed
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import hosts, partitioning
from videodiff_jax.training.writers import format_table

_BYTES = 64 * 2**20  # written and read to measure the storage
_CHUNK = 2**20
_ROUNDS = 5  # looks at the clocks
_APART = 1.0  # seconds by which clocks may differ
_COMPARED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")


def show(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None) -> None:
  """Prints this host's block; the first host prints the report before and a comparison after it.

  Args:
    config: the configuration whose mesh, batches and data are told; None: none.
    workdir: a folder, which need not exist, on the storage to be measured; None: the current one.

  Raises:
    UserError: config.mesh does not fit the devices.
  """
  first, together = jax.process_index() == 0, jax.process_count() > 1
  if first:
    print(doctor.report())
  if not together and config is None and workdir is None:
    return
  print(f"\n{block(config, workdir)}", flush=True)
  if together:
    seen = [json.loads(message) for message in hosts.gather(json.dumps(_versions()))]
    apart = _clocks()
    if first:
      print(f"\n{compared(seen, apart)}", flush=True)


def block(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None) -> str:
  """Describes this host."""
  devices = jax.local_devices()
  lines = [
    f"host {jax.process_index()} of {jax.process_count()}: {socket.gethostname()}",
    f"devices: {len(devices)} x {devices[0].device_kind} of {jax.device_count()}",
  ]
  if config is not None:
    with checks.as_user_error():
      mesh = partitioning.make_mesh(config.mesh.data, config.mesh.fsdp)
    lines.append(f"mesh: {', '.join(f'{name} {size}' for name, size in mesh.shape.items())}")
    lines += [_share(config, name, mesh) for name in config.stages]
    if config.data.dir:
      lines.append(_store(typed.path(config.data.dir, "config.data.dir"), config.data.local_dir))
  lines.append(_storage(workdir or pathlib.Path()))
  return "\n".join(lines)


def compared(seen: Sequence[Mapping[str, str]], apart: Sequence[float]) -> str:
  """Compares the hosts.

  Args:
    seen: {what: version} of each host.
    apart: seconds by which each host's clock is ahead of the first one's.
  """
  different = {name for name in seen[0] if len({of[name] for of in seen}) > 1}
  rows = [(name, *(of[name] for of in seen)) for name in seen[0] if name in different]
  told = (
    f"Versions differ: install the same on all hosts.\n"
    f"{format_table(rows, ('', *(f'host {i}' for i in range(len(seen)))))}"
    if rows
    else f"All {len(seen)} hosts have the same versions."
  )
  most = max(apart, key=abs)
  clocks = f"Clocks: at most {abs(most):.3f} s from the first host's (host {apart.index(most)})."
  if abs(most) > _APART:
    clocks += " Set them by NTP: locks and logs compare times."
  return f"{told}\n{clocks}"


def _versions() -> dict[str, str]:
  found = {name: doctor.version(name) or "missing" for name in _COMPARED}
  return {"code": provenance.code_version(), "Python": platform.python_version(), **found}


def _share(config: ml_collections.ConfigDict, name: str, mesh: jax.sharding.Mesh) -> str:
  """Tells which rows of a stage's batches are this host's."""
  size = config.train[name].batch_size
  if size % mesh.devices.size:
    return f"{name}: a batch of {size} does not divide among {mesh.devices.size} devices"
  rows = np.array(partitioning.local_rows(mesh, size))
  spans = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
  told = ", ".join(f"{span[0]}-{span[-1]}" for span in spans)
  return f"{name}: rows {told} of a batch of {size}"


def _store(folder: pathlib.Path, copied_to: str) -> str:
  if storage.is_remote(folder):
    return doctor_buckets.store(folder, copied_to, _BYTES)
  try:
    store = FrameStore.open(folder, "train")
  except (OSError, ValueError) as error:
    return f"data: {error}"
  files = [file for file in folder.rglob("*") if file.is_file()]
  size = sum(file.stat().st_size for file in files)
  largest = max(files, key=lambda file: file.stat().st_size)
  speed, _ = _read(largest)
  return (
    f"data: {store.num_videos} training videos, {size / 1e9:.2f} GB in {folder}, read at "
    f"{speed / 1e6:.0f} MB/s"
  )


def _storage(folder: pathlib.Path) -> str:
  """Measures how fast a file is written beside the workdir, and read again past the page cache."""
  if storage.is_remote(folder):
    return doctor_buckets.speed(folder, _BYTES)
  while not folder.exists():
    folder = folder.parent
  file = folder / f".doctor-{socket.gethostname()}-{os.getpid()}"
  try:
    began = time.monotonic()
    with file.open("wb") as stream:
      chunk = os.urandom(_CHUNK)
      for _ in range(_BYTES // _CHUNK):
        stream.write(chunk)
      stream.flush()
      os.fsync(stream.fileno())
    written = _BYTES / (time.monotonic() - began)
    speed, cached = _read(file)
  except OSError as error:
    return f"storage: {folder.absolute()}: {error}"
  finally:
    file.unlink(missing_ok=True)
  where = " from memory" if cached else ""
  return (
    f"storage: {folder.absolute()}, written at {written / 1e6:.0f} MB/s, read at "
    f"{speed / 1e6:.0f} MB/s{where}"
  )


def _read(file: pathlib.Path) -> tuple[float, bool]:
  """Returns bytes a second of a file's beginning, and whether memory may have held it."""
  began, count = time.monotonic(), 0
  with file.open("rb", buffering=0) as stream:
    forgets = hasattr(os, "posix_fadvise")  # not on macOS
    if forgets:
      os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    while count < _BYTES and (chunk := stream.read(_CHUNK)):
      count += len(chunk)
  return count / max(time.monotonic() - began, 1e-9), not forgets


def _clocks() -> list[float]:
  """Returns by how many seconds each host's clock is ahead of the first one's.

  All look right after they have met, which they do to within milliseconds.
  """
  rounds = []
  for _ in range(_ROUNDS):
    hosts.gather("")
    rounds.append([float(told) for told in hosts.gather(repr(time.time()))])
  apart = np.array(rounds) - np.array(rounds)[:, :1]
  return [statistics.median(of_host) for of_host in apart.T.tolist()]
