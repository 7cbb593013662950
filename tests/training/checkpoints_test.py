"""The fingerprint of frozen networks."""

import jax
import numpy as np

from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import fingerprint


def tree(seed: int = 0) -> dict:
  rng = np.random.default_rng(seed)
  return {"a": rng.normal(size=(128, 256)).astype(np.float32), "b": np.ones(3, np.float32)}


def test_any_change_shows() -> None:
  original = fingerprint(tree())
  assert original == fingerprint(tree())
  nudged = tree()
  nudged["a"][3, 5] = np.nextafter(nudged["a"][3, 5], np.float32(9))
  swapped = tree()
  swapped["a"][[0, 1]] = swapped["a"][[1, 0]]
  renamed = {"a": tree()["a"], "c": tree()["b"]}
  reshaped = tree() | {"a": tree()["a"].reshape(256, 128)}
  changed = [fingerprint(t) for t in (nudged, swapped, renamed, reshaped)]
  assert len({original, *changed}) == 5


def test_sharding_does_not_show() -> None:
  mesh = partitioning.make_mesh(2, 4)
  placed = jax.device_put(tree(), partitioning.shardings(tree(), mesh))
  assert not placed["a"].sharding.is_fully_replicated
  assert fingerprint(placed) == fingerprint(tree())
