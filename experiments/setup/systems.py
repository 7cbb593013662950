"""The systems by the name a configuration gives, and what every mode asks of one.

A system is a module of this folder with
  base: () -> the configuration that all of its configurations begin with.
  Networks, build: its networks, and how a configuration makes them.
  stages: NAMES, make_stage and frozen_networks, as the training loop wants them.
  CONTENTS: stage -> (content, other settings) of the `ClipSampler` of its batches.
  clip_settings(config): what its clips have beside length, stride, flips and sampling.
  needs(config, modes): the clips that modes after training take; UserError for what none has.
  store_options(config): of an embedded data set's builder, beside its size.
  check(config): raises UserError for values that nothing could be made of.
  check_pretrained(config, stages): raises ValueError for given weights that do not fit the stages.
  countable(config): changes a copy so that what multiplies nothing is not traced.
  abstract_batch(config, stage): the shapes of a batch.
  given(config): abstract entries that `frozen_networks` needs beside those of the stages.
  network_figures(networks): (network, parameters, FLOPs of a forward pass, what one is).
"""

from types import ModuleType
from typing import Any

import ml_collections

from experiments.setup import glober, lgcvd

SYSTEMS: dict[str, ModuleType] = {"glober": glober, "lgcvd": lgcvd}


def of(config: ml_collections.ConfigDict) -> ModuleType:
  """The module of a configuration's system."""
  return SYSTEMS[config.system]


def of_networks(networks: Any) -> ModuleType:
  """The module whose `build` made these."""
  return next(system for system in SYSTEMS.values() if isinstance(networks, system.Networks))
