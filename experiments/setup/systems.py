"""A system as a value: everything that the commands need from it, and the registry of systems.

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
from videodiff_jax.inputs.clips import Content
from videodiff_jax.training.stage import Stage

GROUP = "videodiff_jax.systems"
_BUILT_IN = {
  "glober": "experiments.setup.glober:SYSTEM",
  "lgcvd": "experiments.setup.lgcvd:SYSTEM",
}


class Stages(Protocol):
  """The module of a system's stages.

  Attributes:
    NAMES: names of the stages in order; each may take the networks of those before it.
  """

  @property
  def NAMES(self) -> Sequence[str]: ...

  def make_stage(self, config: ConfigDict, name: str) -> Stage:
    """Makes the stage of a name."""

  def frozen_networks(self, name: str, ema: dict[str, dict[str, Any]]) -> Any:
    """Makes a stage's `frozen` argument from {'ema_params', 'statistics'} of the earlier stages."""


@dataclasses.dataclass(frozen=True)
class System:
  """Everything that the commands need from a system. Fields with defaults are optional.

  Attributes:
    name: name that configurations give as `system`.
    base: () -> the configuration that all of its configurations start from.
    ranges: 'a.b' -> the rule for that key's value, for every key of `base()`.
    networks: class of the object that `build` returns.
    build: configuration -> the networks.
    stages: stages that the training loop runs.
    contents: stage -> (content, other settings) of the `ClipSampler` of its batches.
    abstract_batch: (configuration, stage) -> the shapes of a batch.
    modes: mode of a finished workdir -> 'module:function', which takes (workdir, configuration or
      None, flags). The module is imported when the mode runs.
    hooks: name -> 'module:attribute', the system's part in a table, a sweep or a benchmark. A
      command reports an error if the system lacks its hook.
    flags: sampling flags that only this system reads.
    identity: keys whose values decide which row of a paper's table a run fills.
    clip_settings: configuration -> settings of its clips beside length, stride, flips and sampling.
    store_options: configuration -> options of an embedded data set's builder, beside its size.
    needs: (configuration, modes after training) -> the clips that they take; raises UserError for a
      mode that the configuration does not support.
    check: configuration -> None; raises UserError for values from which nothing can be built.
    check_pretrained: (configuration, stages); raises ValueError for weights that do not fit.
    countable: changes a copy of a configuration to drop operations that multiply nothing.
    given: configuration -> further abstract entries that `frozen_networks` needs.
    updates: configuration -> optimiser steps over all stages; an iteration may make several.
    network_figures: networks -> (network, parameters, FLOPs of a forward pass, its input).
  """

  name: str
  base: Callable[[], ConfigDict]
  ranges: Mapping[str, Rule]
  networks: type
  build: Callable[[ConfigDict], Any]
  stages: Stages
  contents: Mapping[str, tuple[Content, Mapping[str, Any]]]
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
    """Imports and returns a hook.

    Raises:
      UserError: the system has no such hook.
    """
    if name not in self.hooks:
      raise UserError(f"System {self.name!r} has no {name.replace('_', ' ')}.")
    return find(self.hooks[name])


def names() -> tuple[str, ...]:
  """Lists all systems, those of this repository first."""
  found = importlib.metadata.entry_points(group=GROUP)
  return (*_BUILT_IN, *sorted({point.name for point in found} - _BUILT_IN.keys()))


@functools.cache
def by_name(name: str) -> System:
  """Returns the system of a name.

  Raises:
    KeyError: there is no such system.
  """
  if name in _BUILT_IN:
    return find(_BUILT_IN[name])
  (point,) = importlib.metadata.entry_points(group=GROUP, name=name) or [None]
  if point is None:
    raise KeyError(name)
  return point.load()


def of(config: ConfigDict) -> System:
  """Returns a configuration's system."""
  return by_name(config.system)


def of_networks(networks: Any) -> System:
  """Returns the system whose `build` made these networks."""
  return next(s for s in map(by_name, names()) if isinstance(networks, s.networks))


def find(path: str) -> Any:
  """Imports 'module:attribute' and returns the attribute, or the module for 'module' alone."""
  module, _, attribute = path.partition(":")
  found = importlib.import_module(module)
  return getattr(found, attribute) if attribute else found
