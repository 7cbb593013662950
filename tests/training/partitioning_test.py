"""Where arrays live."""

import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from videodiff_jax.training import partitioning


def test_mesh_that_does_not_fit_lists_those_that_do() -> None:
  with pytest.raises(ValueError, match="8 x 1, 4 x 2, 2 x 4, 1 x 8"):
    partitioning.make_mesh(3, 2)
  with pytest.raises(ValueError, match="does not fit 8"):
    partitioning.make_mesh(-1, 3)


def test_after_training_parameters_are_split_as_far_as_the_devices_allow() -> None:
  for trained, split in ((1, 1), (2, 2), (4, 4), (16, 8), (12, 4), (3, 1)):
    assert partitioning.mesh_after(trained).shape == {"data": 8 // split, "fsdp": split}


def test_largest_divisible_axis_is_split_and_small_arrays_are_not() -> None:
  assert partitioning.spec((3, 3, 512, 1024), 4) == P(None, None, None, "fsdp")
  assert partitioning.spec((3, 3, 512, 1023), 4) == P(None, None, "fsdp")
  assert partitioning.spec((1023, 511), 4) == P()
  assert partitioning.spec((64, 64), 4) == P()
  assert partitioning.spec((1024, 1024), 1) == P()


def test_outside_a_mesh_nothing_happens() -> None:
  tree = {"a": jnp.ones(3)}
  for function in (partitioning.gather, partitioning.scatter, partitioning.split_batch):
    assert function(tree) is tree


def test_batch_is_split_over_both_axes() -> None:
  mesh = partitioning.make_mesh(2, 4)
  placed = partitioning.put_batch({"x": np.arange(16.0)}, mesh)["x"]
  assert len({str(shard.index) for shard in placed.addressable_shards}) == 8
  np.testing.assert_array_equal(placed, np.arange(16.0))


def test_rows_of_a_host_are_those_of_its_devices() -> None:
  """Also where the mesh orders devices otherwise than their hosts, as on a torus."""
  assert partitioning.local_rows(partitioning.make_mesh(2, 4), 16) == list(range(16))
  elsewhere = types.SimpleNamespace(
    addressable_devices_indices_map=lambda shape: {
      "a": (slice(12, 14),), "b": (slice(0, 2),), "c": (slice(8, 10),)
    }
  )  # fmt: skip
  with mock.patch.object(partitioning, "NamedSharding", lambda *_: elsewhere):
    assert partitioning.local_rows(None, 16) == [0, 1, 8, 9, 12, 13]


def test_gather_and_scatter_inside_a_program() -> None:
  mesh = partitioning.make_mesh(2, 4)
  w = np.ones((128, 256), np.float32)
  with jax.set_mesh(mesh):
    split = jax.device_put(w, partitioning.shardings(w, mesh))
    whole = jax.jit(partitioning.gather)(split)
    again = jax.jit(partitioning.scatter)(whole)
  assert split.sharding.spec == P(None, "fsdp")
  assert whole.sharding.is_fully_replicated
  assert again.sharding == split.sharding
