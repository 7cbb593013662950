"""clu's periodic actions without TensorFlow, and with them an XLA trace of chosen steps."""

import contextlib
import dataclasses
import importlib
import pathlib
import sys
import types

import jax
from absl import logging

from videodiff_jax import copies, storage

_TENSORFLOWS = "clu.metric_writers.summary_writer"  # which imports TensorFlow to write its files


def _import_actions() -> types.ModuleType:
  """clu.periodic_actions, with a stand-in for the one module below it that needs TensorFlow."""
  stand_in = types.ModuleType(_TENSORFLOWS)
  vars(stand_in)["SummaryWriter"] = None  # training/writers.py writes TensorBoard's files
  added = sys.modules.setdefault(_TENSORFLOWS, stand_in) is stand_in
  try:
    return importlib.import_module("clu.periodic_actions")
  finally:
    if added:
      del sys.modules[_TENSORFLOWS]


actions = _import_actions()


@dataclasses.dataclass(frozen=True)
class Trace:
  """Which steps of a call are traced.

  Attributes:
    first_step: steps of the call before the trace: the first ones compile and warm up.
    num_steps: traced steps; 0 traces nothing.
  """

  first_step: int = 10
  num_steps: int = 0

  def __post_init__(self) -> None:
    if self.first_step < 1:
      raise ValueError(f"A trace begins after a step: first_step is {self.first_step}, not >= 1.")


class Profiler:
  """Traces steps for TensorBoard's profiler or Perfetto, into FOLDER/plugins/profile."""

  def __init__(self, trace: Trace, folder: pathlib.Path, step: int):
    """`step`: steps done when the call begins."""
    # A trace is many files, which only a disk takes one by one.
    self._trace, self._target = trace, folder if storage.is_remote(folder) else None
    self._folder = folder = copies.scratch() / "trace" if self._target else folder
    self._begin = step + trace.first_step
    self._end = self._begin + trace.num_steps
    self._action = None
    if trace.num_steps:
      self._action = actions.Profile(
        logdir=folder,
        first_profile=self._begin,
        num_profile_steps=trace.num_steps,
        profile_duration_ms=None,
        every_secs=None,
      )

  def __call__(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """To be called after every step with what it returned."""
    if self._action is None:
      return
    if step in (self._begin, self._end):  # what is under way belongs before the mark
      jax.block_until_ready(metrics)
    self._action(step)

  def close(self) -> None:
    """Ends a trace that the call's last step cut short."""
    if self._action is None:
      return
    with contextlib.suppress(RuntimeError):  # none is under way
      jax.profiler.stop_trace()
    if self._folder.is_dir():
      if self._target is not None:
        copies.send(self._folder, self._target)
      place = self._target or self._folder
      logging.info("XLA trace of %d steps: %s", self._trace.num_steps, place)
    else:
      logging.warning("No XLA trace: the call ended before step %d.", self._begin)
