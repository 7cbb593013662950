"""Previews of a stage in training: drawn on fixed examples, written by the first host."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from videodiff_jax.models.pixels import to_uint8
from videodiff_jax.training import hosts
from videodiff_jax.training.compiled_steps import beside, compile_for
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.stopping import Stop

# Folded into the run's key for previews. It is large because the first numbers are those of the
# key's splits, from which a stage draws its parameters.
_PREVIEWS = 2**31


class Previews:
  """Draws previews of a stage on fixed examples; the first host writes them."""

  def __init__(
    self,
    stage: Stage,
    mesh: Mesh,
    seed: int,
    frozen: Any,
    batch: dict[str, np.ndarray],
    write: Callable[[int, dict[str, np.ndarray]], None],
    stop: Stop,
  ):
    self._given, self._write, self._stop = (frozen, batch), write, stop
    self._compiled: Callable | None = None
    self._draw = jax.jit(
      lambda *arguments: jax.tree.map(to_uint8, stage.preview(*arguments)),
      out_shardings=NamedSharding(mesh, P()),
    )
    self._key = jax.random.fold_in(jax.random.key(seed), _PREVIEWS)

  def show(self, step: int, state: TrainState) -> bool:
    """Draws and writes; False if SIGTERM comes while their program compiles."""
    arguments = state, *self._given, self._key
    self._compiled = self._compiled or self._stop.unless(
      beside(lambda: compile_for(self._draw, arguments))
    )
    if self._compiled is None:
      return False
    drawn = self._compiled(*arguments)

    def write() -> None:
      videos = {name: np.asarray(video.addressable_data(0)) for name, video in drawn.items()}
      self._write(step, videos)

    hosts.decide(write)
    return True
