"""A variant of an ablation that is another system, trained on the same clips at equal FLOPs."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.tables import score_table
from experiments.train import plan

# Keys of config.data that both systems share.
_DATA = ("name", "dir", "image_size", "channels", "stride", "threads")


def other_system(
  config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """Makes the other system's configuration; its one stage takes the FLOPs of all of `config`'s.

  Args:
    config: configuration of the ablation, whose data and devices the other system uses, too.
    overrides: values for the other configuration; 'from' names its file as 'file:variants'.
  """
  overrides = dict(overrides)
  other = score_table.load(overrides.pop("from"))
  other.update(overrides)
  other.data.update({name: config.data[name] for name in _DATA}, flip=False)
  other.data.video_frames = config.data.num_frames
  other.ablation = config.ablation
  other.mesh = config.mesh
  (name,) = other.stages
  total = sum(plan.flops_between(config, stage, 0, config.train[stage].steps)
              for stage in config.stages)  # fmt: skip
  other.train[name].steps = max(round(total / plan.flops_between(other, name, 0, 1)), 1)
  return other
