"""Compiles a stage's training steps, each one while the step before it trains."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, TypeVar

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from videodiff_jax import command
from videodiff_jax.training import flops, partitioning
from videodiff_jax.training.stage import Stage, TrainStep
from videodiff_jax.training.state import TrainState

T = TypeVar("T")


def beside(make: Callable[[], T]) -> "futures.Future[T]":
  """Compiles in another thread and under this one's mesh, so that this one can answer to signals.

  A compiler cannot be interrupted: what runs when the process ends is left behind
  (`command.fail`).
  """
  pool, mesh = futures.ThreadPoolExecutor(1, command.COMPILING), jax.sharding.get_mesh()

  def compile() -> T:
    if mesh.empty:
      return make()
    with jax.set_mesh(mesh):  # each thread has its own
      return make()

  compiling = pool.submit(compile)
  pool.shutdown(wait=False)
  return compiling


def compile_for(jitted: Any, arguments: tuple) -> Callable:
  """Compiles a jitted function for these arguments."""
  return jitted.lower(*arguments).compile()


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled step.

  Attributes:
    run: (state, frozen, batch) -> (state, metrics); the state is donated.
    flops: operations of one call, over all devices.
    end: number of steps after which another program, or none, takes over.
  """

  run: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
  flops: int
  end: int


class Programs:
  """Hands out a stage's programs in order, while the next one compiles in the background.

  On GPUs nothing compiles in the background: the compiler times kernels there, and training at
  the same time would distort the timings.
  """

  def __init__(self, stage: Stage, arguments: tuple[Any, Any, Any], step: int, steps: int):
    """Starts compiling; `arguments` is (state, frozen, batch), for training `step` to `steps`."""
    self._shapes = jax.tree.map(_shape, arguments)
    self._mesh = jax.tree.leaves(self._shapes[0])[0].sharding.mesh
    self._ahead = self._mesh.devices.flat[0].platform != "gpu"
    self._pool = futures.ThreadPoolExecutor(1, command.COMPILING)
    self._rest = self._spans(stage, step, steps)
    self._next = self._submit()

  def take(
    self, wait: Callable[[futures.Future], Program | None] = futures.Future.result
  ) -> Program | None:
    """Waits for the next program; None if `wait` gives up before it is compiled."""
    compiling = self._next = self._next or self._submit()
    if compiling is None:
      raise RuntimeError("No program is left: the last one goes to the end of training.")
    program = wait(compiling)
    if program is None:
      return None
    self._next = self._submit() if self._ahead else None
    return program

  def close(self) -> None:
    """Cancels waiting compilations; one that is running cannot be stopped."""
    self._pool.shutdown(wait=False, cancel_futures=True)

  def _spans(self, stage: Stage, step: int, steps: int) -> Iterator[tuple[TrainStep, int]]:
    """Yields the functions used from `step` on, each with the step at which it ends."""
    while step < steps:
      later = [first for first, _ in stage.train_steps if first > step]
      end = min([*later, steps])
      yield stage.step_from(step)[1], end
      step = end

  def _submit(self) -> futures.Future | None:
    span = next(self._rest, None)
    return None if span is None else self._pool.submit(self._compile, *span)

  def _compile(self, function: TrainStep, end: int) -> Program:
    with jax.set_mesh(self._mesh):  # each thread has its own mesh
      traced = trace_step(function, *self._shapes)
      return Program(traced.lower().compile(), flops.count(traced.jaxpr), end)


def trace_step(function: TrainStep, state: Any, frozen: Any, batch: Any) -> Any:
  """Traces the sharded step: gathers parameters, splits the new state, donates the old one."""

  def step(state: TrainState, frozen: Any, batch: dict) -> tuple[TrainState, dict]:
    whole = dataclasses.replace(state, params=partitioning.gather(state.params))
    if state.adversary is not None:
      discriminator = partitioning.gather(state.adversary_params)
      adversary = dataclasses.replace(state.adversary, params=discriminator)
      whole = dataclasses.replace(whole, adversary=adversary)
    return function(whole, partitioning.gather(frozen), batch)

  shardings = jax.tree.map(lambda x: x.sharding, state)
  replicated = NamedSharding(jax.tree.leaves(shardings)[0].mesh, P())
  jitted = jax.jit(step, out_shardings=(shardings, replicated), donate_argnums=0)
  return jitted.trace(state, frozen, batch)


def _shape(x: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
