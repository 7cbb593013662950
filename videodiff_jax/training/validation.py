"""Validation: the loss of held-out clips under the averaged weights, always with the same noise.

Clips, timesteps and noise depend neither on the step nor on the run's seed. So losses at two steps
differ only by the weights, and two runs of one configuration can be compared.
"""

import dataclasses
import math
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from videodiff_jax.training import hosts, means, partitioning
from videodiff_jax.training.compiled_steps import beside
from videodiff_jax.training.curves import Expected
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.writers import VALIDATION

CLIPS = 64
SEED = 0  # the seed of the clips, which does not depend on the run's seed
_BATCH = 16
# Folded into the key; large like the previews' number, as the first are those of a key's splits.
_DRAWS = 2**31 + 1


@dataclasses.dataclass(frozen=True)
class Validation:
  """When a stage is validated, and on what.

  Attributes:
    every: steps between two validations; one more is made at the stage's end.
    read: returns this host's rows of the batches that `sizes` describes; called once per host.
    expected: losses of another run to compare with, or None.
  """

  every: int
  read: Callable[[], list[dict[str, np.ndarray]]]
  expected: Expected | None = None

  def due(self, step: int, steps: int) -> bool:
    """Tells whether to validate after `step` of `steps`."""
    return step % self.every == 0 or step == steps


def sizes(mesh: Mesh) -> tuple[int, int]:
  """Returns (examples per batch, batches), the same on all meshes whose devices divide 16."""
  batch = math.lcm(_BATCH, mesh.devices.size)
  return batch, -(-CLIPS // batch)


class Losses:
  """Computes a stage's validation losses; the first call compiles and reads the clips."""

  def __init__(self, stage: Stage, mesh: Mesh, validation: Validation):
    self.validation, self._mesh = validation, mesh
    self._batches: list[dict[str, np.ndarray]] = []
    validate = stage.validate
    assert validate is not None  # who asks for losses has looked

    def losses(state: TrainState, frozen: Any, batch: dict, number: jax.Array) -> dict:
      whole = dataclasses.replace(state, ema_params=partitioning.gather(state.ema_params))
      key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), _DRAWS), number)
      return validate(whole, partitioning.gather(frozen), batch, key)

    self._losses = jax.jit(losses, out_shardings=NamedSharding(mesh, P()))
    self._program: Callable | None = None

  def __call__(
    self,
    state: TrainState,
    frozen: Any,
    wait: Callable[[futures.Future], Callable | None] = futures.Future.result,
  ) -> dict[str, float] | None:
    """Returns {'validation_loss': mean over all clips, ...} of a state, which is not changed.

    None if `wait` gives up before the program is compiled.
    """
    self._batches = self._batches or hosts.everywhere(self.validation.read)

    def arguments(number: int, batch: dict[str, np.ndarray]) -> tuple:
      return state, frozen, partitioning.put_batch(batch, self._mesh), np.int32(number)

    if self._program is None:
      first = arguments(0, self._batches[0])
      self._program = wait(beside(lambda: self._losses.lower(*first).compile()))
    if self._program is None:
      return None
    # All batches are started before the first result is awaited.
    found = jax.device_get([
      self._program(*arguments(number, batch)) for number, batch in enumerate(self._batches)
    ])  # fmt: skip
    rows = [{name: np.float64(value) for name, value in row.items()} for row in found]
    return {VALIDATION + name: float(mean) for name, mean in means.over(rows).items()}
