"""Measures frame by frame how long generated videos keep the look of their start, in either system.

GLOBER draws all frames of a video at once; LGC-VD draws fragment after fragment from its own ones.
"""

import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments.measures import digits
from experiments.scoring import score_files
from experiments.setup import checks, frame_stores, systems
from experiments.workdirs import outputs
from videodiff_jax import glober, lgcvd
from videodiff_jax.inputs import clips
from videodiff_jax.metrics import frechet, i3d, images, motion
from videodiff_jax.metrics.configured_protocols import DRIFT
from videodiff_jax.metrics.digit_reader import DigitReader

PARTS = 4  # parts of a video's frames, each with its own Frechet distance
_SEED = 0


def score(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, num_real: int, num_drawn: int
) -> dict[str, Any]:
  """Scores new videos against held-out ones, or returns an earlier score of the same videos.

  Args:
    workdir: folder of a trained run.
    config: configuration of the run; its `sample` sets how videos are drawn.
    num_real: number of held-out videos.
    num_drawn: number of new videos.

  Returns:
    The content of evaluations/drift.json: 'scores', and 'curves' over the frames of drawn and of
    held-out videos.

  Raises:
    UserError: the held-out split has too few videos, or a part too few frames for I3D.
  """
  frames = length(config)
  store = frame_stores.open_store(config, "test")
  made_with = {
    **score_files.settings(workdir, config, store),
    "num_frames": frames,
    "num_real": num_real,
    "num_drawn": num_drawn,
  }
  out = outputs.folder(workdir) / "evaluations"
  if record := score_files.find(out, DRIFT, made_with):
    return record
  sampler = frame_stores.clip_sampler(config, "clip", num_frames=frames)
  with checks.as_user_error():
    real, _, _ = clips.evaluation_clips(store, sampler, num_real, _SEED)
  reader = digits.reader(frame_stores.open_store(config, "train"))
  drawn = systems.of(config).hook("drift")(workdir, config, frames, num_drawn)
  curves = {"drawn": curve(drawn, real, reader), "real": curve(real, real, reader)}
  record = {
    "protocol": DRIFT.written(),
    "scores": {**distances(real, drawn), **ends(curves["drawn"])},
    "curves": {what: {key: v.round(5).tolist() for key, v in of.items()}
               for what, of in curves.items()},
    "settings": made_with,
    **score_files.provenance(config),
  }  # fmt: skip
  file = score_files.write(out, record, {"real": real[:4], "drawn": drawn[:4]})
  logging.info("Drift: %s. Written to %s.", record["scores"], file)
  return record


def length(config: ml_collections.ConfigDict) -> int:
  """Returns the frames per video: of LGC-VD's whole data, or of GLOBER's clips."""
  return config.data.get("video_frames", config.data.num_frames)


def generate_glober(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, frames: int, count: int
) -> np.ndarray:
  """Generates clips (n, f, h, w, c) uint8 of all the frames that the system was trained on."""
  del frames
  pipeline = glober.Pipeline.from_workdir(workdir, **config.sample.to_dict())
  return pipeline.generate(count, seed=_SEED).videos


def generate_lgcvd(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, frames: int, count: int
) -> np.ndarray:
  """Generates videos (n, f, h, w, c) uint8 of `frames` frames, without given frames."""
  pipeline = lgcvd.Pipeline.from_workdir(workdir, **config.sample.to_dict())
  return pipeline.generate(count, num_frames=frames, seed=_SEED).videos


def curve(videos: np.ndarray, real: np.ndarray, reader: DigitReader) -> dict[str, np.ndarray]:
  """Computes curves over frames, averaged over videos (n, f, h, w, c): name -> (f,).

  'agreement': share of the videos whose frame reads as most frames of the video's first quarter.
  'sharpness': energy of the gradients relative to the real videos'. 'brightness': levels of 255.
  'step': pixels that the centre of brightness moves to the next frame; the last value is repeated.
  """
  begun = reader.read(videos[:, : videos.shape[1] // PARTS]).clips
  read = reader.read(videos).digits
  step = np.linalg.norm(np.diff(motion.centroid(videos), axis=1), axis=-1).mean(axis=0)
  return {
    "agreement": ((read == begun[:, None]) & (read >= 0)).mean(axis=0),
    "sharpness": images.gradient_energy(videos).mean(axis=0) / images.gradient_energy(real).mean(),
    "brightness": videos.mean(axis=(0, 2, 3, 4)),
    "step": np.append(step, step[-1:]),
  }


def distances(real: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
  """Computes 'fvd_1' to 'fvd_PARTS': FVD of each part of the frames to that of real videos."""
  each = real.shape[1] // PARTS
  if each < i3d.MIN_FRAMES:
    raise checks.UserError(
      f"A quarter of {real.shape[1]} frames is shorter than the {i3d.MIN_FRAMES} that FVD needs: "
      "measure drift on longer videos."
    )
  found = {}
  for part in range(PARTS):
    at = slice(part * each, (part + 1) * each)
    of_real, of_drawn = (i3d.features(videos[:, at]) for videos in (real, drawn))
    found[f"fvd_{part + 1}"] = frechet.fvd(of_real, of_drawn)
  return found


def ends(curves: dict[str, np.ndarray]) -> dict[str, float]:
  """Computes 'NAME_first' and 'NAME_last', a curve's means over the first and the last quarter."""
  found = {}
  for name, values in curves.items():
    each = len(values) // PARTS
    found[f"{name}_first"] = float(values[:each].mean())
    found[f"{name}_last"] = float(values[-each:].mean())
  return found
