"""Partitioning over a ('data', 'fsdp') mesh: batches over both axes, large parameters over fsdp.

Network and loss code has no mesh names. The loop opens the mesh with `jax.set_mesh`. Inside the
compiled step, `gather`, `scatter` and `split_batch` then state the shardings that XLA must not
guess (on its own it drifts into tensor parallelism). Without a mesh they return their argument.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp")
BATCH = P(AXES)

# Smaller tensors are cheaper to replicate than to gather.
_MIN_SHARDED_SIZE = 2**14


def make_mesh(data: int = -1, fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
  """Makes a mesh over all devices of all hosts; data = -1 uses the devices that fsdp leaves.

  Raises:
    ValueError: data x fsdp is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if fsdp < 1 or count % fsdp or (data != -1 and data * fsdp != count):
    fitting = [f"{count // n} x {n}" for n in range(1, count + 1) if count % n == 0]
    raise ValueError(
      f"config.mesh (data={data}, fsdp={fsdp}) does not fit {count} device(s). "
      f"data x fsdp may be: {', '.join(fitting)}; data=-1 takes what fsdp leaves."
    )
  shape = (count // fsdp, fsdp)
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def mesh_after(fsdp: int) -> Mesh:
  """Makes a mesh over all devices for what follows a training with `fsdp`, there or elsewhere.

  Parameters are split over the most devices that divide both `fsdp` and the number of devices.
  """
  return make_mesh(fsdp=math.gcd(fsdp, jax.device_count()))


def spec(shape: tuple[int, ...], fsdp: int) -> P:
  """Splits the largest axis that fsdp divides; small arrays stay whole."""
  if fsdp == 1 or np.prod(shape) < _MIN_SHARDED_SIZE:
    return P()
  for axis in np.argsort(shape)[::-1]:
    if shape[axis] % fsdp == 0:
      return P(*(None,) * axis, "fsdp")
  return P()


def shardings(tree: Any, mesh: Mesh | jax.sharding.AbstractMesh) -> Any:
  """Returns a NamedSharding for each (abstract) array of a tree."""
  fsdp = mesh.shape["fsdp"]
  return jax.tree.map(lambda x: NamedSharding(mesh, spec(x.shape, fsdp)), tree)


def with_shardings(tree: Any, mesh: Mesh) -> Any:
  """Returns the tree's shapes as ShapeDtypeStructs with their shardings."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings(tree, mesh)
  )


def gather(tree: Any) -> Any:
  """Inside a compiled function, replicates every array on every device: parameters before use."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.lax.with_sharding_constraint(tree, P())


def scatter(tree: Any) -> Any:
  """Inside a compiled function, splits each array as `shardings` does: gradients."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return tree
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(x, spec(x.shape, mesh.shape["fsdp"])), tree
  )


def split_batch(tree: Any) -> Any:
  """Inside a compiled function, splits the leading axis over all devices: data, noise, times."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.lax.with_sharding_constraint(tree, BATCH)


def place(tree: Any) -> Any:
  """Outside a compiled function, splits leading axes over all devices and replicates scalars."""
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    return tree
  placed = jax.tree.map(lambda x: NamedSharding(mesh, BATCH if x.ndim else P()), tree)
  if not mesh.is_multi_process:
    return jax.device_put(tree, placed)
  # device_put does not take the devices of other hosts.
  held = jax.tree.map(lambda x: np.asarray(x) if x.is_fully_addressable else x, tree)
  return jax.jit(_identity, out_shardings=placed)(held)


def _identity(tree: Any) -> Any:
  return tree


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
  """Returns the rows of a global batch on this host's devices, in the order of `put_batch`."""
  places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
  rows = [index[0] for index in places if index is not None]
  return sorted(row for of_device in rows for row in range(*of_device.indices(batch_size)))


K = TypeVar("K")


def put_batch(batch: Mapping[K, np.ndarray], mesh: Mesh) -> dict[K, jax.Array]:
  """Turns this host's rows of a batch (see `local_rows`) into global arrays over the mesh."""
  sharding = NamedSharding(mesh, BATCH)
  return {
    name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()
  }


def put_whole(batch: Mapping[K, np.ndarray], mesh: Mesh) -> dict[K, jax.Array]:
  """Turns a batch that every host holds whole into global arrays over the mesh."""
  if mesh.is_multi_process:
    rows = local_rows(mesh, len(next(iter(batch.values()))))
    batch = {name: value[rows] for name, value in batch.items()}
  return put_batch(batch, mesh)
