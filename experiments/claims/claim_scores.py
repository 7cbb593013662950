"""Scores a run of either system for --mode=ablation; figures are per video or one for all."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from experiments.measures import set_scores
from experiments.scoring import (
  drift,
  glober_ladder,
  lgcvd_prediction,
  score_files,
  use_of_condition,
)
from experiments.setup import checks, frame_stores
from videodiff_jax.metrics.configured_protocols import LADDER
from videodiff_jax.training.workdir import steps_done

Figures = dict[str, np.ndarray]  # column -> (v,) of the videos, or (1,)

# How much the loss of the next fragment rises where the encoder is given another video's.
_USE = "use_of_fragment"
# Name in the records -> (heading, digits after the point).
_PREDICTION = {
  "digit_right": ("frames read right", 3),
  "digit_right_back": ("since it came back", 3),
  _USE: ("use of the fragment before", 3),
  "sharpness": ("sharpness", 2),
  "psnr": ("PSNR, dB", 2),
  "ssim": ("SSIM", 3),
  "lpips": ("LPIPS", 3),
  "fvd": ("FVD", 1),
  "i3d_kernel_distance": ("KID", 3),
  "position_error": ("position error, px", 2),
  "brightness_shift": ("brightness shift", 2),
  "brightness_shift_last": ("at the last frame", 2),
  "brightness_error": ("brightness error", 2),
}
_OF_LADDER = {
  "fvd.reconstruction": ("FVD, reconstructed", 1),
  "fvd.generated": ("FVD, generated", 1),
  "i3d_kernel_distance.reconstruction": ("KID, reconstructed", 3),
  "i3d_kernel_distance.generated": ("KID, generated", 3),
  "digits.reconstruction.frames_right": ("frames read right, reconstructed", 3),
  "digits.reconstruction.agreement": ("agreement, reconstructed", 3),
  "digits.generated.clip_right": ("clips read right, generated", 3),
  "digits.generated.agreement": ("agreement, generated", 3),
  "sharpness.reconstruction": ("sharpness, reconstructed", 2),
  "sharpness.generated": ("sharpness, generated", 2),
  "frames.reconstruction.psnr": ("PSNR, dB", 2),
  "motion.sets.reconstruction.position_error": ("position error, px", 2),
  "motion.sets.reconstruction.identity_flicker": ("flicker, reconstructed", 3),
  "motion.sets.generated.identity_flicker": ("flicker, generated", 3),
  "motion.sets.generated.jitter": ("jitter, generated, px", 2),
}


_DRIFT = {
  **{f"fvd_{part}": (f"FVD of quarter {part}", 1) for part in range(1, drift.PARTS + 1)},
  "agreement_first": ("read alike, first quarter", 3),
  "agreement_last": ("last quarter as the first", 3),
  "sharpness_first": ("sharpness, first quarter", 2),
  "sharpness_last": ("last quarter", 2),
  "step_last": ("step in the last, px", 2),
  "brightness_last": ("brightness in the last", 2),
}


@dataclasses.dataclass(frozen=True)
class Scorer:
  """How every run of an ablation is scored.

  Attributes:
    columns: name -> (heading, digits after the point); columns without figures are left out.
    settings: settings of the measurement.
    about: the settings in words.
    score: (workdir, configuration) of a trained run -> its figures; earlier scores are reused.
  """

  columns: Mapping[str, tuple[str, int]]
  settings: Any
  about: str
  score: Callable[[pathlib.Path, ml_collections.ConfigDict], Figures]


def _lgcvd(config: ml_collections.ConfigDict, protocol_name: str | None) -> Scorer:
  protocol = lgcvd_prediction.find_protocol(protocol_name or config.evaluate.protocol)
  lgcvd_prediction.check(protocol, frame_stores.open_store(config, protocol.split))
  features = lgcvd_prediction.features_of(protocol)

  def score(workdir: pathlib.Path, of_run: ml_collections.ConfigDict) -> Figures:
    record = lgcvd_prediction.evaluate(workdir, of_run, protocol.name, features, reuse=True)
    videos, scores = record["videos"]["predicted"], record["scores"]["prediction"]["predicted"]
    used = record["scores"].get(use_of_condition.GROUP, {}).get("fragment of another video")
    if used:  # with an encoder
      scores = scores | {_USE: used["loss_change"]}
    # Figures of the whole set, such as FVD, have one value.
    return {
      name: np.array(videos[name] if name in videos else [scores[name]])
      for name in _PREDICTION
      if name in videos or name in scores
    }

  about = (
    f"{protocol.num_frames} frames predicted from {protocol.past} of {protocol.num_videos} "
    f"{protocol.split} videos, protocol {protocol.name!r}. Brightness: drawn minus true mean, in "
    "levels of 255, over the horizon and at its last frame; its error is the mean absolute value. "
    "Use of the fragment before: how much the loss rises where the sequence encoder is given "
    "another video's, in units of the loss; 0 where it is dead."
  )
  return Scorer(_PREDICTION, dataclasses.asdict(protocol), about, score)


def _glober(config: ml_collections.ConfigDict, protocol_name: str | None) -> Scorer:
  if protocol_name:
    raise checks.UserError("GLOBER's ablation is scored by its ladder: remove --protocol.")
  set_scores.locate()
  counts = config.evaluate

  def score(workdir: pathlib.Path, of_run: ml_collections.ConfigDict) -> Figures:
    same = {
      "sample": of_run.sample.to_dict(),
      "steps": {name: steps_done(workdir, name) for name in of_run.stages},
      **{name: counts[name] for name in ("num_real", "num_fake")},
    }
    found = score_files.find(workdir / "evaluations", LADDER, same)
    record = found or glober_ladder.evaluate(workdir, of_run)
    figures = {name: _at(record["scores"], name.split(".")) for name in _OF_LADDER}
    return {name: np.array([value]) for name, value in figures.items() if value is not None}

  about = (
    f"{counts.num_fake} held-out clips reconstructed, and as many generated under their "
    f"conditions; distances are to {counts.num_real} training clips."
  )
  return Scorer(_OF_LADDER, {"evaluate": counts.to_dict()}, about, score)


def _drift(config: ml_collections.ConfigDict, protocol_name: str | None) -> Scorer:
  if protocol_name:
    raise checks.UserError("config.ablation.scored_by is 'drift': remove --protocol.")
  set_scores.locate()
  counts = {"num_real": config.evaluate.num_real, "num_drawn": config.evaluate.num_fake}

  def score(workdir: pathlib.Path, of_run: ml_collections.ConfigDict) -> Figures:
    scores = drift.score(workdir, of_run, **counts)["scores"]
    return {name: np.array([scores[name]]) for name in _DRIFT}

  about = (
    f"{counts['num_drawn']} new videos of {drift.length(config)} frames against "
    f"{counts['num_real']} held-out ones, each quarter of the frames by itself. Read alike: share "
    "of the frames that a reader of digits takes for what most of the first quarter read as. "
    "Sharpness: energy of the gradients to that of held-out videos. Step: pixels that the light's "
    "centre moves a frame."
  )
  return Scorer(_DRIFT, counts, about, score)


# Name in config.ablation.scored_by -> (configuration, --protocol) -> scorer of the runs.
SCORERS: Mapping[str, Callable[[ml_collections.ConfigDict, str | None], Scorer]] = {
  "ladder": _glober,
  "prediction": _lgcvd,
  "drift": _drift,
}


def _at(tree: Any, keys: list[str]) -> float | None:
  for key in keys:
    if key not in tree:
      return None
    tree = tree[key]
  return tree
