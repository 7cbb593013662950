"""A stage that compiles in no time: fits a vector to the mean of its examples.

Run as a module it trains on in a folder, until it is killed.
"""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from videodiff_jax.training import loop, optimizers, partitioning, state, validation
from videodiff_jax.training.stage import Stage

WIDTH = 8
FROZEN = {"shift": np.full(WIDTH, 0.5, np.float32)}


def make_stage(steps: int = 100) -> Stage:
  optimizer = optimizers.make_optimizer(0.1, steps=steps)
  ema = state.Ema(decay=0.9)

  def init(key: jax.Array) -> state.TrainState:
    params = {"centre": jax.random.normal(key, (WIDTH,))}
    other = {"scale": jnp.ones(WIDTH)}
    return state.create(
      key,
      params,
      optimizer,
      {"frames": {"mean": jnp.zeros(WIDTH), "std": jnp.ones(WIDTH)}},
      state.Adversary(other, optimizer.init(other)),
    )

  def train_step(train: state.TrainState, frozen: Any, batch: dict) -> tuple:
    # Each row has noise of its own: a loss tells which example sits where.
    noise = jax.random.normal(jax.random.fold_in(train.key, train.step), batch["frames"].shape)

    def loss(params: Any) -> jax.Array:
      noised = batch["frames"] * (1 + 0.1 * noise)
      error = params["centre"] - noised.mean((0, 1)) - frozen["shift"]
      return jnp.square(error).sum()

    value, gradient = jax.value_and_grad(loss)(train.params)
    adversary = train.adversary.apply_gradients({"scale": noise.mean((0, 1))}, optimizer)
    metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return state.apply_gradients(train, gradient, optimizer, ema).replace(
      adversary=adversary
    ), metrics

  def validate(train: state.TrainState, frozen: Any, batch: dict, key: jax.Array) -> dict:
    noised = batch["frames"] * (1 + 0.1 * jax.random.normal(key, batch["frames"].shape))
    error = (train.ema_params["centre"] - frozen["shift"])[None, None] - noised
    return {"loss": jnp.square(error).sum(-1).mean()}

  def preview(train: state.TrainState, frozen: Any, batch: dict, key: jax.Array) -> dict:
    clips = jnp.broadcast_to(train.ema_params["centre"][:1], (8, 1, 4, 4, 1))
    return {"centre": partitioning.split_batch(clips)}

  def measure(frozen: Any, batch: dict, key: jax.Array) -> dict:
    return {"frames": batch["frames"]}

  return Stage("toy", init, ((0, train_step),), preview, validate, measure, measured_examples=16)


def batches(start: int, poison: int | None = None) -> Iterator[dict[str, np.ndarray]]:
  """Batches of 8 examples, each a pure function of its place; one place may hold a NaN."""
  place = start
  while True:
    rows = [np.random.default_rng(place + i).normal(3.0, 2.0, (1, WIDTH)) for i in range(8)]
    frames = np.stack(rows).astype(np.float32)
    if poison is not None and place <= poison < place + 8:
      frames[poison - place] = np.nan
    yield {"frames": frames, "video": np.arange(place, place + 8, dtype=np.int32)}
    place += 8


def held_out(mesh: Mesh) -> list[dict[str, np.ndarray]]:
  """This host's rows of the validation's batches."""
  size, count = validation.sizes(mesh)
  rows = partitioning.local_rows(mesh, size)
  rng = np.random.default_rng(7)
  frames = rng.normal(3.0, 2.0, (count, size, 1, WIDTH)).astype(np.float32)
  return [{"frames": batch[rows]} for batch in frames]


def run(folder: pathlib.Path, steps: int, **changes: Any) -> loop.Run:
  settings = {
    "folder": folder,
    "mesh": partitioning.make_mesh(devices=jax.devices()[:1]),
    "seed": 0,
    "steps": steps,
    "batch_size": 8,
    "log_every": 2,
    "checkpoint_every": 4,
    "preview_every": 100,
    "keep": 3,
    "meta": {"config": {}, "code": "test"},
  }
  return loop.Run(**(settings | changes))


if __name__ == "__main__":
  endless = run(pathlib.Path(sys.argv[1]), steps=10**6, log_every=1)
  loop.train(make_stage(), endless, FROZEN, batches, {}, lambda *_: None)
