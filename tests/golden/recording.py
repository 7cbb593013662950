"""One recorded file of LGC-VD's release, and how its arrays and ours are laid out."""

import contextlib
import lzma
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.golden import files
from tests.golden.files import Arrays, channels_first, shapes_of
from tests.helpers import needs
from videodiff_jax.diffusion.schedules import Schedule, make_schedule, spaced_timesteps
from videodiff_jax.lgcvd.model import ContextModel
from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder

# Kinds by stem, where a file's config does not say.
_STEMS = {
  "blocks": "blocks",
  "encoder": "sequence_encoder",
  "unet": "unet",
  "checkpoint": "checkpoint",
  "schedule": "schedule",
  "p_sample": "p_sample",
  "positional_mask": "cond_layout",
  "train": "train_iteration",
  "test": "test_loop",
  "metrics": "metrics",
}


class Recording(NamedTuple):
  path: pathlib.Path
  config: dict[str, Any]
  param: Arrays
  inputs: Arrays
  outputs: Arrays


def load(path: pathlib.Path) -> Recording:
  return Recording(path, *files.read(path))


def kind_of(path: pathlib.Path) -> str:
  by_stem = [kind for stem, kind in _STEMS.items() if path.stem.startswith(stem)]
  return files.read_config(path).get("kind") or (by_stem or [path.stem])[0]


def parametrize(metafunc: pytest.Metafunc, *kinds: str) -> None:
  """One test for each recorded file of these kinds, called with its `path`."""
  folder = files.folder_of(metafunc.config)
  paths = sorted(folder.glob("lgcvd/**/*.npz"))
  if not paths:
    raise pytest.UsageError(f"{folder} holds no lgcvd/*.npz; give --golden-dir.")
  paths = [path for path in paths if kind_of(path) in kinds]
  assert paths, f"{folder} holds no recording of {', '.join(kinds)}; give another --golden-dir."
  ids = [path.relative_to(folder).as_posix() for path in paths]
  metafunc.parametrize("path", paths, ids=ids)


@contextlib.contextmanager
def published(golden: Recording) -> Iterator[pathlib.Path]:
  """The checkpoint that a file is of, which may lie beside it packed; reading it needs PyTorch."""
  needs("torch")
  source = golden.path.with_name(golden.config["file"])
  with tempfile.TemporaryDirectory() as folder:
    if not source.exists():
      packed = source.with_name(f"{source.name}.xz").read_bytes()
      source = pathlib.Path(folder) / source.name
      source.write_bytes(lzma.decompress(packed))
    yield source


def close(ours: Any, truth: np.ndarray, atol: float, name: str) -> None:
  """Within atol + 1e-5 |truth|; maps of ours are channels last."""
  ours = np.asarray(ours) if np.ndim(ours) < 4 else channels_first(ours)
  assert ours.shape == truth.shape, f"{name}: {ours.shape} against {truth.shape}"
  np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=atol, err_msg=name)


def settings(config: dict[str, Any]) -> dict[str, Any]:
  """The release's constructor arguments as ours of either network."""
  side, width = config["img_size"], config["n_head_channels"]
  levels = range(len(config["dim_mults"]))
  return {
    "channels": config["dim"],
    "multipliers": tuple(config["dim_mults"]),
    "attention_rates": tuple(2**i for i in levels if side // 2**i in config["attn_resolutions"]),
    "head_channels": None if width == -1 else width,
  }


def schedule(num_timesteps: int) -> Schedule:
  """The release's: a cosine in float32."""
  return make_schedule("cosine", num_timesteps, max_beta=0.9999, precision="float32")


def respaced(num_timesteps: int, respacing: str) -> np.ndarray:
  """The timesteps that a respacing of the release keeps: 'n', 'a,b,c', 'ddimN' or 'fast27'."""
  if respacing.startswith("ddim"):
    count = int(respacing.removeprefix("ddim"))
    strides = (range(0, num_timesteps, i) for i in range(1, num_timesteps))
    return np.array(next(s for s in strides if len(s) == count))
  if respacing == "fast27":
    kept = spaced_timesteps(num_timesteps, [10, 10, 3, 2, 2])
    return np.array([*kept[:-1], num_timesteps - 3])
  return spaced_timesteps(num_timesteps, [int(count) for count in respacing.split(",")])


def steps(config: dict[str, Any]) -> tuple[int, ...]:
  """The `num_steps` of a file's sampler."""
  return tuple(int(count) for count in config["respacing"].split(","))


def context_model(config: dict[str, Any]) -> ContextModel:
  """Both networks of the release from its UNet's constructor arguments."""
  shared = settings(config)
  return ContextModel(LGCUNet(**shared, decoder_attention="mirrored"), SequenceEncoder(**shared))


def context_shapes(model: ContextModel, config: dict[str, Any]) -> dict[str, Any]:
  """{'unet': ..., 'encoder': ...}: the shapes of its parameters."""
  side, c, slots = config["img_size"], config["channels"], config["cond_frames"]
  fragment = np.zeros((1, side, side, c * (slots + config["new_frames"])), np.float32)
  condition = np.zeros((1, side, side, slots * (c + 1)), np.float32)
  return shapes_of(model, fragment, np.zeros(1, np.float32), condition, fragment)
