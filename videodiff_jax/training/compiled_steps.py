"""A stage's compiled training steps, each made while the one before it trains."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from videodiff_jax.training import flops, partitioning
from videodiff_jax.training.stage import Stage, TrainStep
from videodiff_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled step.

  Attributes:
    run: (state, frozen, batch) -> (state, metrics); the state is donated.
    flops: of one call over all devices.
    end: the number of steps after which another program, or none, is in force.
  """

  run: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
  flops: int
  end: int


class Programs:
  """Hands out a stage's programs in order, with the next one compiling in the background.

  Not so on GPUs, where the compiler times kernels and training beside it would falsify them.
  """

  _POLL = 0.2  # seconds between two questions whether to stop while one compiles

  def __init__(self, stage: Stage, arguments: tuple[Any, Any, Any], step: int, steps: int):
    """`arguments`: (state, frozen, batch); training goes from `step` to `steps`."""
    self._shapes = jax.tree.map(_shape, arguments)
    self._mesh = jax.tree.leaves(self._shapes[0])[0].sharding.mesh
    self._ahead = self._mesh.devices.flat[0].platform != "gpu"
    self._pool = futures.ThreadPoolExecutor(1, "compile")
    self._rest = self._spans(stage, step, steps)
    self._next = self._submit()

  def take(self, stopped: Callable[[], bool] = lambda: False) -> Program | None:
    """The next program, waited for; None where it is not there yet and `stopped` says to end."""
    if self._next is None:
      self._next = self._submit()
    while not self._next.done():
      if stopped():
        return None
      futures.wait([self._next], timeout=self._POLL)
    program, self._next = self._next.result(), None
    if self._ahead:
      self._next = self._submit()
    return program

  def close(self) -> None:
    """Drops what nobody waits for; a compilation under way cannot be stopped."""
    self._pool.shutdown(wait=False, cancel_futures=True)

  def _spans(self, stage: Stage, step: int, steps: int) -> Iterator[tuple[TrainStep, int]]:
    """The functions in force from `step` on, each with the step it ends at."""
    while step < steps:
      later = [first for first, _ in stage.train_steps if first > step]
      end = min([*later, steps])
      yield stage.step_from(step)[1], end
      step = end

  def _submit(self) -> futures.Future | None:
    span = next(self._rest, None)
    return None if span is None else self._pool.submit(self._compile, *span)

  def _compile(self, function: TrainStep, end: int) -> Program:
    with jax.set_mesh(self._mesh):  # of this thread
      traced = trace_step(function, *self._shapes)
      return Program(traced.lower().compile(), flops.count(traced.jaxpr), end)


def trace_step(function: TrainStep, state: Any, frozen: Any, batch: Any) -> Any:
  """Traces the sharded step: parameters gathered, state split again and donated."""

  def step(state: TrainState, frozen: Any, batch: dict) -> tuple[TrainState, dict]:
    whole = state.replace(params=partitioning.gather(state.params))
    if state.adversary is not None:
      adversary = state.adversary
      whole = whole.replace(
        adversary=adversary.replace(params=partitioning.gather(adversary.params))
      )
    return function(whole, partitioning.gather(frozen), batch)

  shardings = jax.tree.map(lambda x: x.sharding, state)
  replicated = NamedSharding(jax.tree.leaves(shardings)[0].mesh, P())
  jitted = jax.jit(step, out_shardings=(shardings, replicated), donate_argnums=0)
  return jitted.trace(state, frozen, batch)


def _shape(x: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
