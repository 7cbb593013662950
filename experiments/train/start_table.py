"""The table that every run starts with: devices, stages, steps, estimated minutes, disk."""

import os
import pathlib
import shutil
import time

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from jax.sharding import Mesh

from experiments.setup import checks
from experiments.train import plan
from videodiff_jax import storage
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.training import flops, hosts
from videodiff_jax.training.workdir import steps_done
from videodiff_jax.training.writers import format_table

# Measured training speeds, used for estimates only: FLOP/s of a CPU core (the stages of
# glober_digits reach 32, 33 and 65 GFLOP/s on each of two), and the share of a GPU's or TPU's peak.
_CPU_CORE = 40e9
_TYPICAL_SHARE = {"gpu": 0.3, "tpu": 0.35}


def show(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  mesh: Mesh,
  store: FrameStore,
  only: str | None = None,
) -> None:
  """Logs the table of all stages or of one, and checks that the disk can hold the checkpoints.

  Raises:
    UserError: the checkpoints need more disk than is free.
  """
  speed = device_speed() * mesh.devices.size
  rows, needed = [], 0
  for name in config.stages if only is None else (only,):
    figures = plan.stage_figures(config, name)
    done = steps_done(workdir, name) or 0
    steps = plan.steps_of(config, name)
    minutes = plan.flops_between(config, name, done, steps) / speed / 60
    # A stage with given weights has one checkpoint.
    size = figures.state_bytes * (config.train[name].keep if steps else 1)
    needed += size if steps > done or steps_done(workdir, name) is None else 0
    rows.append(
      (name, f"{figures.parameters:,}", str(steps or "given"), str(done),
       f"{max(minutes, 0.1) if steps else 0:.1f}", f"{size / 1e9:.2f}")
    )  # fmt: skip
  heading = ("stage", "parameters", "steps", "done", "minutes (estimate)", "disk, GB")
  on_disk = not storage.is_remote(workdir)
  free = hosts.decide(lambda: shutil.disk_usage(_existing_parent(workdir)).free) if on_disk else 0
  room = f"{free / 1e9:.1f} GB free" if on_disk else "in object storage"
  data = config.data.dir or config.data.name
  logging.info(
    "%s\ndevices: %s, mesh %s\ndata: %s, %d training videos\nworkdir: %s, %s\n%s\n"
    "The minutes are an estimate, from %.3g GFLOP/s in all; compiling, previews and validation are "
    "not counted.",
    "videodiff_jax", checks.local_devices(), dict(mesh.shape), data, store.num_videos,
    workdir, room, format_table(rows, heading), speed / 1e9,
  )  # fmt: skip
  if on_disk and free < needed:
    raise checks.UserError(
      f"The checkpoints need about {needed / 1e9:.1f} GB, but the disk of {workdir} has "
      f"{free / 1e9:.1f} GB free. Free some space, use another --workdir or a smaller "
      "config.train.<stage>.keep."
    )


def device_speed() -> float:
  """Estimates a device's training speed in FLOP/s; the devices of a CPU share its cores."""
  device = jax.devices()[0]
  if device.platform == "cpu":
    return _CPU_CORE * cores() / jax.local_device_count()
  share = _TYPICAL_SHARE.get(device.platform, 0.3)
  if peak := flops.peak_flops(device):
    return share * peak
  side = 1024
  product = jax.jit(jnp.dot)
  x = jnp.ones((side, side))
  product(x, x).block_until_ready()
  began = time.monotonic()
  for _ in range(4):
    product(x, x).block_until_ready()
  return share * 4 * 2 * side**3 / (time.monotonic() - began)


def _existing_parent(path: pathlib.Path) -> pathlib.Path:
  path = path.absolute()
  while not path.exists():
    path = path.parent
  return path


def cores() -> int:
  """Returns the number of processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
