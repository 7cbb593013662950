"""The files of both systems' golden folders: where they are and how their arrays lie."""

import functools
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

Arrays = dict[str, np.ndarray]


def folder_of(config: pytest.Config) -> pathlib.Path:
  """The folder that this test run takes its recordings from."""
  return config.getoption("--golden-dir").resolve()


def read(path: pathlib.Path) -> tuple[dict[str, Any], Arrays, Arrays, Arrays]:
  """A file's config, and its arrays 'param/...', 'in/...' and 'out/...' by the names behind.

  A file of more than a megabyte may go on in `NAME.npz.1`, `NAME.npz.2` and so on.
  """
  groups: dict[str, Arrays] = {"param": {}, "in": {}, "out": {}}
  for part in [path, *path.parent.glob(f"{path.name}.*")]:
    with np.load(part) as file:
      for key in file.files:
        if key != "config":
          group, name = key.split("/", 1)
          groups[group][name] = file[key]
  return read_config(path), *groups.values()


@functools.cache
def read_config(path: pathlib.Path) -> dict[str, Any]:
  with np.load(path) as file:
    return json.loads(str(file["config"]))


def channels_last(x: np.ndarray) -> np.ndarray:
  """(n, c, ..., h, w) -> (n, ..., h, w, c)."""
  return np.moveaxis(x, 1, -1)


def channels_first(x: Any) -> np.ndarray:
  """(n, ..., h, w, c) -> (n, c, ..., h, w)."""
  return np.moveaxis(np.asarray(x), -1, 1)


def shapes_of(module: nn.Module, *inputs: Any) -> dict[str, Any]:
  """The shapes of a module's parameters; nothing is computed."""
  return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def apply(module: nn.Module, params: Any, *inputs: Any, **options: Any) -> Any:
  """A module's compiled call on these parameters."""
  return jax.jit(functools.partial(module.apply, **options))({"params": params}, *inputs)
