"""What a run takes of its store and of weights, from training to the scores of config.after.

A store knows how long its videos are, and so does the builder of a set that is made here: whether
they will do is told before anything is prepared, written or compiled.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from experiments.setup.errors import UserError
from videodiff_jax.inputs.clips import ClipSampler
from videodiff_jax.pretrained.files import restricted_pickle

if TYPE_CHECKING:  # which holds functions that return needs
  from experiments.setup.systems import System


@dataclasses.dataclass(frozen=True)
class Need:
  """Clips that are taken of a split.

  Attributes:
    what: takes them, as a sentence begins.
    split: of the store.
    num_frames: of a clip.
    stride: stored frames from one frame of a clip to the next.
    keys: of the configuration, that ask for clips of this length.
    count: how many.
    count_key: of the configuration, that asks for so many.
    videos: whether each is of another video; with one frame, any video will do.
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
    """Raises UserError where videos of so many `frames` each do not hold them."""
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
  """Raises UserError where weights that a mode after training scores by are not installed."""
  for file in weights:
    try:
      restricted_pickle.locate(file)
    except FileNotFoundError as error:
      raise UserError(f"{error} Or leave the mode out of config.after.") from error


def of(config: ml_collections.ConfigDict, system: "System", after: Sequence[str]) -> list[Need]:
  """What a run of a system and the modes `after` it take, in the order in which it is taken.

  Raises:
    UserError: a mode asks for what no store could give.
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
  """Raises UserError for the first need of a known split that it does not meet.

  Args:
    wanted: by `of`.
    videos: split -> its videos, each with its number of 'frames'.
    where: the videos are.
  """
  for need in wanted:
    if need.split in videos:
      need.check([video["frames"] for video in videos[need.split]], where)
