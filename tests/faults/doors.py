"""Commands in this process, up to the door of what would be compiled: there they end with 0."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from absl.testing import flagsaver

from data import prepare as stores
from tests.faults import toys
from tests.faults.commands import Outcome, call
from videodiff_jax import command, glober, lgcvd


def train(argv: Sequence[str]) -> Outcome:
  """The command of the experiments, with the real networks: of --mode=train."""
  return _experiment(argv, contextlib.nullcontext())


def draw(argv: Sequence[str]) -> Outcome:
  """The same with the linear networks, for modes that read a workdir of theirs."""
  return _experiment(argv, toys.installed())


def prepare(dataset: str, out: pathlib.Path, **options: Any) -> Outcome:
  """What `data.prepare` does, whole, without its flags, which are others than the experiments'."""
  return call(lambda: _told(lambda: stores.ensure(dataset, out, **options)))


def verify(out: pathlib.Path) -> Outcome:
  """`data.prepare --verify`."""

  def run() -> None:
    if problems := stores.verify(out):
      raise ValueError("; ".join(problems))

  return call(lambda: _told(run))


def load(system: str, workdir: pathlib.Path) -> Outcome:
  """`Pipeline.from_workdir`, with the linear networks."""

  def run() -> None:
    with toys.installed():
      {"glober": glober, "lgcvd": lgcvd}[system].Pipeline.from_workdir(workdir)

  return call(lambda: _told(run))


def _told(function: Callable[[], Any]) -> None:
  with command.door():
    function()


def _experiment(argv: Sequence[str], networks: contextlib.AbstractContextManager) -> Outcome:
  from experiments import main
  from experiments.train import start_table
  from videodiff_jax.training import loop

  def ends(*_, **__) -> None:
    raise SystemExit(0)

  patches = [
    mock.patch.object(main, "_quiet_libraries", lambda: None),
    mock.patch.object(main, "enable_compilation_cache", lambda: None),
    mock.patch.object(start_table, "show", lambda *_: None),
    mock.patch.object(loop, "train", ends),
    mock.patch.object(glober.Pipeline, "_in_chunks", ends),
    mock.patch.object(lgcvd.Pipeline, "_drawn", ends),
    networks,
  ]

  def run() -> None:
    typed = [main.__name__, *argv]
    with flagsaver.flagsaver(), contextlib.ExitStack() as stack:
      # Where ml_collections reads --config.a.b=value.
      for patch in (mock.patch.object(sys, "argv", typed), *patches):
        stack.enter_context(patch)
      main.main(main.parse_flags(typed))

  return call(run)
