"""A third system in one file, as another package would bring it: it learns the mean clip."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import common
from experiments.sampling import glober_samples
from experiments.setup import range_table
from experiments.setup.ranges import Choice, Several
from experiments.setup.systems import System
from experiments.workdirs import numbered
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training import optimizers, partitioning, state
from videodiff_jax.training.stage import Batch, Metrics, Stage
from videodiff_jax.training.workdir import load_ema, read_config


@dataclasses.dataclass(frozen=True)
class Networks:
  """One parameter: the clip (f, h, w, c), in [-1, 1]."""

  shape: tuple[int, ...]


def base() -> ConfigDict:
  """What every system's configuration has, and nothing else."""
  whole = common.base().to_dict()
  names = (
    "expected",
    "checksums",
    "seed",
    "precision",
    "mesh",
    "init",
    "sample",
    "data",
    "profile",
  )
  config = ConfigDict({name: whole[name] for name in names})
  config.update(system="toy", stages=("mean",), after=("sample",))
  config.init = ConfigDict({"run": ""})
  config.sample = ConfigDict({"num_videos": 2})
  taken = ("name", "dir", "image_size", "channels", "num_frames", "stride", "flip", "sampling")
  config.data = ConfigDict({name: whole["data"][name] for name in (*taken, "threads")})
  config.train = ConfigDict({"mean": common.stage(steps=4, batch_size=8, learning_rate=0.1)})
  return config


def build(config: ConfigDict) -> Networks:
  data = config.data
  return Networks((data.num_frames, data.image_size, data.image_size, data.channels))


class Stages:
  """Where the two systems of the repository have a module."""

  NAMES = ("mean",)

  @staticmethod
  def make_stage(config: ConfigDict, name: str) -> Stage:
    shape, settings = build(config).shape, config.train[name]
    optimizer = optimizers.make_optimizer(steps=settings.steps, **settings.optimizer)
    ema = state.Ema(**settings.ema)

    def init(key: jax.Array) -> state.TrainState:
      return state.create(key, {"clip": jax.random.normal(key, shape)}, optimizer)

    def loss(params: Any, batch: Batch) -> jax.Array:
      return jnp.square(to_float(batch["frames"]) - params["clip"][None]).mean()

    def step(train: state.TrainState, frozen: Any, batch: Batch) -> tuple[Any, Metrics]:
      del frozen
      value, gradient = jax.value_and_grad(loss)(train.params, batch)
      metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
      return state.apply_gradients(train, gradient, optimizer, ema), metrics

    def validate(train: state.TrainState, frozen: Any, batch: Batch, key: jax.Array) -> Metrics:
      del frozen, key
      return {"loss": loss(train.ema_params, batch)}

    def preview(train: state.TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict:
      del frozen, key
      return {"mean": jnp.broadcast_to(train.ema_params["clip"], batch["frames"].shape)}

    return Stage(name, init, ((0, step),), preview, validate)

  @staticmethod
  def frozen_networks(name: str, ema: dict[str, dict[str, Any]]) -> dict[str, Any]:
    del name, ema
    return {}


def abstract_batch(config: ConfigDict, name: str) -> dict[str, jax.ShapeDtypeStruct]:
  shape = (config.train[name].batch_size, *build(config).shape)
  return {"frames": jax.ShapeDtypeStruct(shape, jnp.uint8)}


def sample(workdir: pathlib.Path, config: ConfigDict | None, options: Any) -> None:
  """--mode=sample: the learned clip, --num_videos times."""
  del config
  saved = read_config(workdir)
  stage = Stages.make_stage(saved, "mean")
  clip = load_ema(saved, workdir, stage, partitioning.make_mesh())["ema_params"]["clip"]
  count = options.num_videos or saved.sample.num_videos
  pixels = np.clip(np.rint(127.5 * (np.asarray(clip) + 1)), 0, 255).astype(np.uint8)
  videos = np.repeat(pixels[None], count, axis=0)
  with numbered.SampleFolder(workdir, "sample", options.seed, videos.nbytes) as place:
    glober_samples.save(place, saved, {"videos": videos})


SYSTEM = System(
  name="toy",
  base=base,
  ranges={
    **range_table.COMMON,
    "system": Choice(("toy",)),
    "stages": Several(Choice(Stages.NAMES), 1),
    "after": Several(Choice(("sample", "report"))),
  },
  networks=Networks,
  build=build,
  stages=Stages(),
  contents={"mean": ("clip", {})},
  abstract_batch=abstract_batch,
  modes={"sample": "tests.experiments.toy.system:sample"},
)
