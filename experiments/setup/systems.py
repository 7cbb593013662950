"""A system as a value: all that the commands ask of one, and where systems are found.

The two of this repository are `glober.SYSTEM` and `lgcvd.SYSTEM`. Another package adds its own
without touching a file here: it declares the entry point

  [project.entry-points."videodiff_jax.systems"]
  toy = "toy_video.system:SYSTEM"

and its configurations say `system = "toy"`. See docs/adding_a_system.md.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from ml_collections import ConfigDict

from experiments.setup.errors import UserError
from experiments.setup.needs import Need
from experiments.setup.ranges import Rule
from videodiff_jax.training.stage import Stage

GROUP = "videodiff_jax.systems"
_BUILT_IN = {
  "glober": "experiments.setup.glober:SYSTEM",
  "lgcvd": "experiments.setup.lgcvd:SYSTEM",
}


class Stages(Protocol):
  """The module of a system's stages.

  Attributes:
    NAMES: of the stages, each of which may take the networks of those before it.
  """

  NAMES: Sequence[str]

  def make_stage(self, config: ConfigDict, name: str) -> Stage:
    """The stage of a name."""

  def frozen_networks(self, name: str, ema: dict[str, dict[str, Any]]) -> Any:
    """A stage's `frozen` argument, from {'ema_params', 'statistics'} of the stages before it."""


@dataclasses.dataclass(frozen=True)
class System:
  """What every command asks of a system. The fields with defaults may be left out.

  Attributes:
    name: as configurations give it.
    base: () -> the configuration that all of its configurations begin with.
    ranges: 'a.b' -> the rule for that key's value, for every key of `base()`.
    networks: the class of what `build` returns.
    build: its networks, from a configuration.
    stages: what the training loop runs.
    contents: stage -> (content, other settings) of the `ClipSampler` of its batches.
    abstract_batch: (configuration, stage) -> the shapes of a batch.
    modes: mode of a finished workdir -> 'module:function', which takes (workdir, configuration or
      None, flags). It is imported when it is run.
    hooks: what a table, a sweep or a benchmark asks of the system: name -> 'module:attribute'. A
      command that finds no hook says that the system has none.
    flags: those of sampling that this system alone reads.
    identity: keys whose values make a run that of a row of a paper's table.
    clip_settings: what its clips have beside length, stride, flips and sampling.
    store_options: options of an embedded data set's builder, beside its size.
    needs: (configuration, modes after training) -> the clips they take; raises UserError for a mode
      that the configuration cannot do.
    check: raises UserError for values that nothing could be made of.
    check_pretrained: (configuration, stages); raises ValueError for weights that do not fit.
    countable: changes a copy so that what multiplies nothing is not traced.
    given: abstract entries that `frozen_networks` needs beside those of the stages.
    updates: the optimiser's steps over all stages; an iteration may make several.
    network_figures: networks -> (network, parameters, FLOPs of a forward pass, what one is).
  """

  name: str
  base: Callable[[], ConfigDict]
  ranges: Mapping[str, Rule]
  networks: type
  build: Callable[[ConfigDict], Any]
  stages: Stages
  contents: Mapping[str, tuple[str, Mapping[str, Any]]]
  abstract_batch: Callable[[ConfigDict, str], dict[str, jax.ShapeDtypeStruct]]
  modes: Mapping[str, str]
  hooks: Mapping[str, str] = dataclasses.field(default_factory=dict)
  flags: tuple[str, ...] = ()
  identity: tuple[str, ...] = ()
  clip_settings: Callable[[ConfigDict], dict[str, Any]] = lambda config: {}
  store_options: Callable[[ConfigDict], dict[str, Any]] = lambda config: {}
  needs: Callable[[ConfigDict, Sequence[str]], list[Need]] = lambda config, after: []
  check: Callable[[ConfigDict], None] = lambda config: None
  check_pretrained: Callable[[ConfigDict, Sequence[str]], None] = lambda config, names: None
  countable: Callable[[ConfigDict], None] = lambda config: None
  given: Callable[[ConfigDict], dict[str, Any]] = lambda config: {}
  updates: Callable[[ConfigDict], int] = lambda config: sum(
    config.train[name].steps for name in config.stages
  )
  network_figures: Callable[[Any], list[tuple[str, int, int, str]]] = lambda networks: []

  def hook(self, name: str) -> Any:
    """What `hooks` names.

    Raises:
      UserError: the system has no such hook.
    """
    if name not in self.hooks:
      raise UserError(f"System {self.name!r} has no {name.replace('_', ' ')}.")
    return find(self.hooks[name])


def names() -> tuple[str, ...]:
  """All systems there are, those of this repository first."""
  found = importlib.metadata.entry_points(group=GROUP)
  return (*_BUILT_IN, *sorted({point.name for point in found} - _BUILT_IN.keys()))


@functools.cache
def by_name(name: str) -> System:
  """The system of a name.

  Raises:
    KeyError: there is none.
  """
  if name in _BUILT_IN:
    return find(_BUILT_IN[name])
  (point,) = importlib.metadata.entry_points(group=GROUP, name=name) or [None]
  if point is None:
    raise KeyError(name)
  return point.load()


def of(config: ConfigDict) -> System:
  """A configuration's system."""
  return by_name(config.system)


def of_networks(networks: Any) -> System:
  """The system whose `build` made these."""
  return next(s for s in map(by_name, names()) if isinstance(networks, s.networks))


def find(path: str) -> Any:
  """The attribute of 'module:attribute', or the module of 'module'."""
  module, _, attribute = path.partition(":")
  found = importlib.import_module(module)
  return getattr(found, attribute) if attribute else found
