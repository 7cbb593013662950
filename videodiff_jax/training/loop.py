"""The training loop, shared by all stages of all systems. Read `train` from top to bottom."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import logging
from clu import parameter_overview
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from videodiff_jax.training import flops, hosts, means, partitioning, periodic
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints, fingerprint
from videodiff_jax.training.compiled_steps import Program, Programs, beside, compile_for
from videodiff_jax.training.previews import Previews
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.stopping import Stop, on_sigterm
from videodiff_jax.training.validation import Losses, Validation
from videodiff_jax.training.writers import (
  VALIDATION,
  MetricWriter,
  best_validation,
  plot_curves,
  points,
  read_metrics,
)

HostBatch = dict[str, np.ndarray]

# Number of steps the host may be ahead of the devices: enough to keep them busy.
_RUN_AHEAD = 4


class NonFiniteLossError(FloatingPointError):
  """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Run:
  """The settings of a stage's training.

  Attributes:
    folder: the stage's folder, inside the workdir.
    mesh: from partitioning.make_mesh.
    seed: seed of the initial parameters and of all random numbers.
    steps: steps to train in all.
    batch_size: examples per step, over all hosts.
    log_every: steps between two lines of metrics.
    checkpoint_every: steps between checkpoints; one more is written at the end.
    preview_every: steps between previews; one more is drawn at the end.
    keep: number of newest checkpoints to keep.
    meta: JSON dict stored with each checkpoint (config, code version).
    checksums: whether checkpoints get checksums.
    trace: steps of each call whose XLA trace is written into `folder`/trace.
  """

  folder: pathlib.Path
  mesh: Mesh
  seed: int
  steps: int
  batch_size: int
  log_every: int
  checkpoint_every: int
  preview_every: int
  keep: int
  meta: dict[str, Any]
  checksums: bool = True
  trace: periodic.Trace = dataclasses.field(default_factory=periodic.Trace)

  def draws(self, step: int) -> bool:
    """Tells whether a preview is due after a step."""
    return step % self.preview_every == 0 or step == self.steps


def train(
  stage: Stage,
  run: Run,
  frozen: Any,
  batches: Callable[[int], Iterator[HostBatch]],
  preview_batch: HostBatch,
  write_preview: Callable[[int, dict[str, np.ndarray]], None],
  validation: Validation | None = None,
  has_preview: Callable[[int], bool] = lambda step: True,
) -> bool:
  """Trains a stage to `run.steps`, from its newest checkpoint if there is one.

  A stage without training steps is saved as it is initialised. If an earlier call was killed
  before it drew a preview or the curves, they are drawn first.

  Args:
    stage: the stage to train.
    run: how to train it.
    frozen: networks of earlier stages, an argument of every step.
    batches: maps the examples consumed so far (over all hosts) to an iterator over this host's
      batches.
    preview_batch: fixed examples for the previews, the same on every host.
    write_preview: called with (step, {name: uint8 videos (n, f, h, w, c)}) on the first host.
    validation: held-out clips; None skips validation.
    has_preview: tells whether a step's preview was written; called on the first host with the
      step that training resumes from.

  Returns:
    True if the stage is finished. False if SIGTERM came, after saving: it ends training after the
    current step or, while a program compiles, at once.

  Raises:
    NonFiniteLossError: the loss is not finite; the message names the step, its examples and the
      last good checkpoint.
    CheckpointError: the checkpoint is damaged, or was trained with other frozen networks.
  """
  first_host = jax.process_index() == 0
  checkpoints = Checkpoints(run.folder / "checkpoints", run.keep, run.checksums)
  writer = hosts.everywhere(lambda: MetricWriter(run.folder, first_host))
  meta = run.meta | {"frozen": fingerprint(frozen)}
  with jax.set_mesh(run.mesh), on_sigterm() as stop, contextlib.ExitStack() as stack:
    stack.callback(checkpoints.close)
    stack.callback(writer.close)
    state = _restore_or_init(stage, run, checkpoints, meta, frozen, batches, stop)
    if state is None:
      logging.info("Stopped by SIGTERM before the first step of %s.", stage.name)
      return False
    step = int(state.step)
    if not stage.train_steps and checkpoints.latest_step() is None:
      checkpoints.save(step, state, meta | {"examples": 0})
      checkpoints.wait()
    if not stage.train_steps:
      return True

    previews = Previews(stage, run.mesh, run.seed, frozen, preview_batch, write_preview, stop)
    losses = None if validation is None else Losses(stage, run.mesh, validation)
    # Converted weights begin at a step that has neither.
    if step and "source" not in checkpoints.meta(step):
      if losses is not None and losses.validation.due(step, run.steps):
        if not hosts.decide(lambda: _is_validated(run.folder, step)):
          _validate(step, losses, state, frozen, writer, stop)
      if run.draws(step) and not hosts.decide(lambda: has_preview(step)):
        previews.show(step, state)
    if step >= run.steps:
      hosts.decide(functools.partial(_make_up_curves, run.folder))
      return True

    stream = batches(step * run.batch_size)
    if hasattr(stream, "close"):
      stack.callback(stream.close)
    session = _Session(stage, run, frozen, meta, checkpoints, writer, previews, losses, state)
    del state  # each step consumes the state before it
    step = session.train_on(step, stream, stop)
    checkpoints.wait()
    finished = step == run.steps and not stop.came()
  hosts.decide(functools.partial(_tell_curves, stage.name, run.folder))
  if step < run.steps:
    logging.info("Stopped by SIGTERM at step %d of %s; saved.", step, stage.name)
  return finished


class _Session:
  """Runs the steps of one call of `train`, and writes metrics and checkpoints between them."""

  def __init__(
    self,
    stage: Stage,
    run: Run,
    frozen: Any,
    meta: dict[str, Any],
    checkpoints: Checkpoints,
    writer: MetricWriter,
    previews: Previews,
    losses: Losses | None,
    state: TrainState,
  ):
    self._stage, self._run, self._frozen, self._meta = stage, run, frozen, meta
    self._checkpoints, self._writer, self._previews = checkpoints, writer, previews
    self._losses, self._state = losses, state
    self._pending = _Pending(run, checkpoints)

  def train_on(self, step: int, stream: Iterator[HostBatch], stop: Stop) -> int:
    """Trains from a step to the last one, or until SIGTERM; returns the step reached."""
    run = self._run
    batch, ids, waited = _next_batch(stream, run)
    programs = Programs(self._stage, (self._state, self._frozen, batch), step, run.steps)
    with contextlib.closing(programs):
      program = programs.take(stop.unless)
      last = stop.came()
      progress = periodic.actions.ReportProgress(num_train_steps=run.steps)
      self._clock = clock = _Clock(step, progress)
      if last and self._checkpoints.latest_step() is None:
        self._save(step)
      profiler = periodic.Profiler(run.trace, run.folder / "trace", step)
      with (
        contextlib.closing(profiler),
        tqdm.tqdm(total=run.steps, initial=step, desc=self._stage.name, disable=None) as bar,
      ):
        while not last:
          assert program is not None  # only a stop leaves none, and ends the loop
          self._state, metrics = program.run(self._state, self._frozen, batch)
          step += 1
          self._pending.add(step, metrics, ids)
          bar.update()
          progress(step)
          profiler(step, metrics)
          # The next batch is fetched while the devices work on this step.
          if step < run.steps:
            batch, ids, wait = _next_batch(stream, run)
            waited += wait

          following: Program | None = program
          if step == program.end < run.steps:
            with clock.paused("compiling"):
              following = programs.take(stop.unless)
          last = step == run.steps or following is None or stop.after(step)
          if step % run.log_every == 0 or last:
            self._log(step, batch, program.flops, waited, last)
            waited = 0.0
          last = self._keep(step, last, stop)
          program = following
    return step

  def _log(self, step: int, batch: dict, flops: int, waited: float, last: bool) -> None:
    """Writes a line with the metrics' means since the last line, and the speed."""
    values = self._pending.read(keep=0 if last else 1)
    speed = self._clock.steps_per_second(step)
    values |= _speeds(speed, batch, self._run, flops, waited, self._clock)
    self._writer.write(step, values, (self._run.steps - step) / speed)
    self._clock.restart(step)

  def _keep(self, step: int, last: bool, stop: Stop) -> bool:
    """Validates, saves and draws a preview after a step, each where it is due.

    If SIGTERM has come, it only saves, and the next start makes up for the others.

    Returns:
      Whether the step is the last one: `last`, or SIGTERM came while one of them compiled.
    """
    run, clock = self._run, self._clock
    saves = step % run.checkpoint_every == 0 or last
    if saves:
      with clock.paused("checkpoints"):
        self._pending.read(keep=0)  # a state after a non-finite loss is never saved
    stopped = last and step < run.steps
    # Validate before saving: a killed run resumes after its checkpoint.
    losses = self._losses
    if losses is not None and losses.validation.due(step, run.steps) and not stopped:
      with clock.paused("validation"):
        stopped = not _validate(step, losses, self._state, self._frozen, self._writer, stop)
    if saves or stopped:
      self._save(step)
    if run.draws(step) and not stopped:
      with clock.paused("previews"):
        stopped = not self._previews.show(step, self._state)
      if stopped and not saves:
        self._save(step)
    return last or stopped

  def _save(self, step: int) -> None:
    self._writer.send()  # the lines up to a checkpoint are there before it is
    meta = self._meta | {"examples": step * self._run.batch_size}
    with self._clock.paused("checkpoints"):
      self._pending.read(keep=0)  # a state after a non-finite loss is never saved
      self._checkpoints.save(step, self._state, meta)


def _validate(
  step: int, losses: Losses, state: TrainState, frozen: Any, writer: MetricWriter, stop: Stop
) -> bool:
  """Writes a step's validation losses; False if SIGTERM comes while their program compiles."""
  values = losses(state, frozen, stop.unless)
  if values is None:
    return False
  writer.write_validation(step, values)
  expected = losses.validation.expected
  if jax.process_index() == 0 and expected:
    expected.compare(step, values["validation_loss"])
  return True


def _is_validated(folder: pathlib.Path, step: int) -> bool:
  rows = points(read_metrics(folder / "metrics.jsonl"), VALIDATION + "loss")
  return any(validated == step for validated, _ in rows)


def abstract_state(stage: Stage, seed: int, mesh: Mesh) -> TrainState:
  """Returns the stage's TrainState as shapes with shardings, without computing anything."""
  return partitioning.with_shardings(jax.eval_shape(stage.init, jax.random.key(seed)), mesh)


def _tell_curves(name: str, folder: pathlib.Path) -> None:
  plot_curves(folder / "metrics.jsonl", folder / "curves.png")
  if best := best_validation(read_metrics(folder / "metrics.jsonl")):
    logging.info("Stage %s: lowest validation loss %.4g, at step %d.", name, best[1], best[0])


def _make_up_curves(folder: pathlib.Path) -> None:
  """Plots the curves of a finished stage whose run was killed before it plotted them."""
  metrics, curves = folder / "metrics.jsonl", folder / "curves.png"
  if metrics.is_file() and not (
    curves.is_file() and curves.stat().st_mtime_ns >= metrics.stat().st_mtime_ns
  ):
    plot_curves(metrics, curves)


def _restore_or_init(
  stage: Stage,
  run: Run,
  checkpoints: Checkpoints,
  meta: dict,
  frozen: Any,
  batches: Callable,
  stop: Stop,
) -> TrainState | None:
  """Returns the state to train from; None if SIGTERM comes before there is one."""
  target = abstract_state(stage, run.seed, run.mesh)
  latest = checkpoints.latest_step()
  if latest is not None:
    saved = checkpoints.meta(latest)
    if saved["frozen"] != meta["frozen"]:
      raise CheckpointError(
        f"Stage {stage.name!r} was trained on other frozen networks (hash {saved['frozen']}) "
        f"than those given now ({meta['frozen']}). Restore the earlier stage's checkpoint or "
        "train this stage in a new --workdir."
      )
    logging.info("Stage %s resumes from step %d.", stage.name, latest)
    return checkpoints.restore(latest, target)
  shardings = jax.tree.map(lambda x: x.sharding, target)
  key = jax.random.key(run.seed)
  init = stop.unless(
    beside(lambda: compile_for(jax.jit(stage.init, out_shardings=shardings), (key,)))
  )
  if init is None:
    return None
  state = init(key)
  if stage.pretrained is not None:
    state = hosts.everywhere(functools.partial(stage.pretrained, state))
  parameter_overview.log_parameter_overview(
    state.params,
    include_stats="sharding",
    msg=f"Variables of stage {stage.name}:",
    jax_logging_process=0,
  )
  if stage.measure is None:
    return state
  statistics = _measure(stage, run, state.key, frozen, batches, stop)
  return None if statistics is None else dataclasses.replace(state, statistics=statistics)


def _measure(
  stage: Stage, run: Run, key: jax.Array, frozen: Any, batches: Callable, stop: Stop
) -> dict[str, dict[str, jax.Array]] | None:
  """Measures per-channel mean and std over the first examples of the data; None after SIGTERM."""
  measure = stage.measure
  assert measure is not None  # who calls this has asked
  replicated = NamedSharding(run.mesh, P())

  @functools.partial(jax.jit, out_shardings=replicated)
  def sums(frozen: Any, batch: dict, key: jax.Array) -> dict[str, jax.Array]:
    def of(x: jax.Array) -> jax.Array:
      x = x.astype(jnp.float32).reshape(-1, x.shape[-1])
      return jnp.stack([x.mean(0), jnp.square(x).mean(0)])

    return jax.tree.map(of, measure(partitioning.gather(frozen), batch, key))

  stream = batches(0)
  count = -(-stage.measured_examples // run.batch_size)
  total: dict[str, Any] = collections.defaultdict(float)
  program: Callable | None = None
  for i in tqdm.trange(count, desc=f"{stage.name}: statistics", disable=None):
    batch, _, _ = _next_batch(stream, run)
    # The number lies far above every training step, so that no random numbers repeat.
    arguments = frozen, batch, jax.random.fold_in(key, 2**31 + i)
    if program is None:
      program = stop.unless(beside(functools.partial(compile_for, sums, arguments)))
    if program is None or stop.came():
      return None
    for name, value in program(*arguments).items():
      total[name] = total[name] + np.asarray(value, np.float64) / count
  return {
    name: {
      "mean": jax.device_put(np.float32(first), replicated),
      "std": jax.device_put(np.float32(np.sqrt(second - first**2)), replicated),
    }
    for name, (first, second) in total.items()
  }


def _next_batch(
  stream: Iterator[HostBatch], run: Run
) -> tuple[dict[str, jax.Array], list[int], float]:
  """Returns a batch on the devices, its videos' numbers, and the seconds spent waiting for it."""
  began = time.monotonic()
  host_batch = next(stream)
  waited = time.monotonic() - began
  return partitioning.put_batch(host_batch, run.mesh), host_batch["video"].tolist(), waited


def _speeds(
  speed: float, batch: dict, run: Run, flops_per_step: int, waited: float, clock: "_Clock"
) -> dict[str, float]:
  # Cached moments replace frames or come with them; either counts once.
  counts = {
    name.split("_")[0]: x.shape[1]
    for name, x in batch.items()
    if name.endswith(("frames", "moments"))
  }
  devices = run.mesh.devices.size
  per_device = flops_per_step * speed / devices
  values = {
    "steps_per_s": speed,
    "gflops_per_s": flops_per_step * speed / 1e9,
    "input_wait": waited / max(clock.seconds(), 1e-9),
  }
  if counts:  # none with cached global features, which stand for whole clips
    values["frames_per_s"] = speed * run.batch_size * sum(counts.values())
  peak = flops.peak_flops(run.mesh.devices.flat[0])
  return values | ({"mfu": per_device / peak} if peak else {})


class _Pending:
  """Metrics that are still on the devices, read late so that the loop never waits for new ones."""

  def __init__(self, run: Run, checkpoints: Checkpoints):
    self._run, self._checkpoints = run, checkpoints
    self._queue: collections.deque = collections.deque()

  def add(self, step: int, metrics: dict[str, jax.Array], ids: list[int]) -> None:
    """Adds a step and waits for an earlier one, so that memory and the time to stop are bounded."""
    self._queue.append((step, metrics, ids))
    if len(self._queue) > _RUN_AHEAD:
      jax.block_until_ready(self._queue[-1 - _RUN_AHEAD][1])

  def read(self, keep: int) -> dict[str, float]:
    """Returns means over all steps but the `keep` newest, and checks that each is finite."""
    count = len(self._queue)
    # At least one step is read, so that every line has numbers.
    taken = [self._queue.popleft() for _ in range(max(count - keep, min(count, 1)))]
    values = jax.device_get([metrics for _, metrics, _ in taken])
    for (step, _, ids), row in zip(taken, values):
      if not (np.isfinite(row["loss"]) and np.isfinite(row["gradient_norm"])):
        self._checkpoints.wait()
        raise NonFiniteLossError(
          f"Loss {row['loss']}, gradient norm {row['gradient_norm']} at step {step} (videos of "
          f"the batch: {ids}). Last good checkpoint: step {self._checkpoints.latest_step()} in "
          f"{self._checkpoints.folder}. Lower the learning rate or raise clip_norm, and run again."
        )
    return {name: float(mean) for name, mean in means.over(values).items()}


class _Clock:
  """Measures seconds of training, without the parts that `progress` counts by name."""

  def __init__(self, step: int, progress: Any):  # clu's ReportProgress, imported as a value
    self._progress = progress
    self.restart(step)

  def restart(self, step: int) -> None:
    self._step, self._began, self._paused = step, time.monotonic(), 0.0

  @contextlib.contextmanager
  def paused(self, part: str) -> Iterator[None]:
    began = time.monotonic()
    with self._progress.timed(part, wait_jax_async_dispatch=False):
      yield
    self._paused += time.monotonic() - began

  def seconds(self) -> float:
    return time.monotonic() - self._began - self._paused

  def steps_per_second(self, step: int) -> float:
    return (step - self._step) / max(self.seconds(), 1e-9)
