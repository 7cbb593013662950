"""Checks that the store and the weights suffice for a run, from training to the modes after it.

The lengths of videos are known from the store, or from the builder of a set that is made here. So
the check comes before anything is prepared, written or compiled.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from experiments.setup.errors import UserError
from videodiff_jax.inputs.clips import ClipSampler
from videodiff_jax.pretrained.files import restricted_pickle

if TYPE_CHECKING:  # systems.py imports this module
  from experiments.setup.systems import System


@dataclasses.dataclass(frozen=True)
class Need:
  """Clips that one part of a run takes from a split.

  Attributes:
    what: part of the run that takes them, as the subject of a sentence.
    split: split of the store.
    num_frames: frames of a clip.
    stride: stored frames from one frame of a clip to the next.
    keys: configuration keys that set the length of these clips.
    count: number of clips.
    count_key: configuration key that sets this number.
    videos: whether each clip must come from a different video; with num_frames = 1, videos of any
      length count.
  """

  what: str
  split: str
  num_frames: int
  stride: int
  keys: str
  count: int = 1
  count_key: str = ""
  videos: bool = False

  def check(self, frames: Sequence[int], where: str) -> None:
    """Raises UserError if videos of these lengths, in frames, do not hold the clips."""
    span = ClipSampler(self.num_frames, self.stride, content="clip").span
    starts = np.maximum(np.asarray(frames) - span + 1, 0)
    found = int(np.count_nonzero(starts) if self.videos else starts.sum())
    if found >= self.count:
      return
    clips = "videos" if self.videos else "clips"
    if self.num_frames > 1:
      clips += f" of {self.num_frames} frames at stride {self.stride}"
    if not found:
      raise UserError(
        f"{self.what} takes {clips} of the {self.split} split, {span} stored frames each, but the "
        f"longest video there has {max(frames, default=0)} ({where}): lower {self.keys}, or give a "
        "store of longer videos."
      )
    raise UserError(
      f"{self.what} takes {self.count} {clips} of the {self.split} split, which holds only {found} "
      f"different ones ({where}): change {self.count_key}, or give a store of more videos."
    )


def check_installed(*weights: restricted_pickle.WeightFile) -> None:
  """Raises UserError if weights that a mode after training scores with are not installed."""
  for file in weights:
    try:
      restricted_pickle.locate(file)
    except FileNotFoundError as error:
      raise UserError(f"{error} Or remove the mode from config.after.") from error


def of(config: ml_collections.ConfigDict, system: "System", after: Sequence[str]) -> list[Need]:
  """Lists the clips that a run of a system and the modes `after` it take, in the order of use.

  Raises:
    UserError: a mode asks for clips that no store could hold.
  """
  data = config.data
  keys = "config.data.num_frames or config.data.stride"
  multiples = system.clip_settings(config).get("stride_multiples", (1,))
  validated = any(config.train[name].validate_every for name in config.stages)
  found = []
  for multiple in multiples:
    more = " or config.data.stride_multiples" if multiple > 1 else ""
    for split in ("train", "test") if validated else ("train",):
      what = "Training" if split == "train" else "Validation"
      found.append(Need(what, split, data.num_frames, data.stride * multiple, keys + more))
  found.append(Need("A preview", "test", data.num_frames, data.stride, keys))
  return found + system.needs(config, after)


def check(
  wanted: Sequence[Need], videos: Mapping[str, Sequence[Mapping[str, Any]]], where: str
) -> None:
  """Raises UserError for the first need that its split does not meet; unknown splits are skipped.

  Args:
    wanted: needs, from `of`.
    videos: split -> its videos, each with its number of 'frames'.
    where: location of the videos, for the message.
  """
  for need in wanted:
    if need.split in videos:
      need.check([video["frames"] for video in videos[need.split]], where)
