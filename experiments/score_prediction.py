"""LGC-VD's --mode=evaluate: predictions and fillings beside trivial ones, into evaluations/."""

import json
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments import train
from experiments.predict import held_out
from videodiff_jax.inputs import video_io
from videodiff_jax.lgcvd.pipeline import Pipeline
from videodiff_jax.metrics import baselines, frechet, i3d, images, motion
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained import restricted_pickle
from videodiff_jax.training.workdir import steps_done
from videodiff_jax.training.writers import format_table

_PROTOCOL = "prediction"
_SEED = 0
_SHOWN = 4  # videos on the strip
_MOST = 60.0  # dB: an exact copy would be infinite


def evaluate(workdir: pathlib.Path, config: ml_collections.ConfigDict | None) -> dict[str, Any]:
  """Scores predictions and interpolations of held-out videos.

  PSNR, SSIM and position error are of the drawn frames alone; FVD is between the real videos and
  the same with the drawn frames in place. Every score stands beside trivial predictions: the last
  given frame repeated, black, and the true frames' own mean, which no one could know.
  """
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  counts, sample = (config or pipeline.config).evaluate, pipeline.config.sample
  restricted_pickle.locate(i3d_weights.WEIGHTS)  # told now, not after the drawing
  real = held_out(pipeline, sample.past + sample.num_frames, counts.num_videos, _SEED)
  given, true = real[:, : sample.past], real[:, sample.past :]
  drawn = pipeline.predict(given, sample.num_frames, counts.trajectories, _SEED).videos
  frames = drawn[:, :, sample.past :]  # (n, N, f, h, w, c)
  trivial = {
    "repeat last": np.broadcast_to(real[:, sample.past - 1, None], true.shape),
    "black": baselines.black(true),
    "mean frame": baselines.mean_frame(true),
  }
  rows = {"predicted": _scores(frames, true, counts.motion)}
  rows |= {name: _scores(v[:, None], true, counts.motion) for name, v in trivial.items()}
  sets = {"predicted": drawn[:, 0]}
  sets |= {name: np.concatenate([given, video], axis=1) for name, video in trivial.items()}
  for name, value in _fvd(real, sets).items():
    rows[name]["fvd"] = value

  filled = _interpolation(pipeline, real, counts)
  out = workdir / "evaluations"
  out.mkdir(exist_ok=True)
  strip = {}
  for i in range(min(_SHOWN, len(real))):
    strip |= {f"real {i}": real[i], f"predicted {i}": drawn[i, 0]}
  video_io.write_strip(out / f"{_PROTOCOL}.png", strip)
  store = train.open_store(pipeline.config, "test")
  record = {
    "protocol": _PROTOCOL,
    "scores": {"prediction": rows, "interpolation": filled},
    "curves": _curves(frames, true),
    "settings": {
      "num_videos": len(real),
      "trajectories": counts.trajectories,
      "fvd_trajectories": 1,
      "past": sample.past,
      "num_frames": sample.num_frames,
      "stride": pipeline.config.data.stride,
      "image_size": pipeline.config.data.image_size,
      "crop": "centre square",
      "range": "uint8",
      "codec": store.codec,
      "resize_to_224": "bilinear, half-pixel centres, not antialiased",
      "split": "test",
      "detector_sha256": i3d_weights.WEIGHTS.sha256,
      "data_fingerprint": store.fingerprint,
      "seed": _SEED,
      "sample": sample.to_dict(),
      "steps": {name: steps_done(workdir, name) for name in pipeline.config.stages},
      "code": train.code_version(),
    },
  }
  (out / f"{_PROTOCOL}.json").write_text(json.dumps(record, indent=2) + "\n")
  logging.info("%s", report(record["scores"], len(real), counts.trajectories))
  return record


def report(scores: dict[str, Any], num_videos: int, trajectories: int) -> str:
  """The scores as tables."""
  tables = []
  for task, rows in scores.items():
    columns = list(next(iter(rows.values())))
    lines = [
      (name, *(f"{row[key]:.3f}" if key in row else "" for key in columns))
      for name, row in rows.items()
    ]
    tables.append(format_table(lines, (f"{task} of {num_videos} videos", *columns)))
  return "\n\n".join(tables) + f"\n\n_best: the best of {trajectories} trajectories a video."


def _scores(drawn: np.ndarray, true: np.ndarray, with_motion: bool) -> dict[str, float]:
  """Means over videos of (n, N, f, h, w, c): of all N trajectories, and of the best of each."""
  trajectories = drawn.shape[1]
  every = np.broadcast_to(true[:, None], drawn.shape)
  psnr = np.minimum(images.psnr(drawn, every), _MOST).mean(axis=-1)
  ssim = images.ssim(drawn, every).mean(axis=-1)
  scores = {"psnr": float(psnr.mean()), "ssim": float(ssim.mean())}
  if trajectories > 1:
    scores |= {"psnr_best": float(psnr.max(1).mean()), "ssim_best": float(ssim.max(1).mean())}
  if with_motion:
    scores["position_error"] = motion.position_error(drawn, every)
  return scores


def _curves(drawn: np.ndarray, true: np.ndarray) -> dict[str, list[float]]:
  """Means at each drawn frame: how far the horizon is good, and whether brightness drifts."""
  every = np.broadcast_to(true[:, None], drawn.shape)
  psnr = np.minimum(images.psnr(drawn, every), _MOST)
  curves = {
    "psnr": psnr.mean(axis=(0, 1)),
    "ssim": images.ssim(drawn, every).mean(axis=(0, 1)),
    "brightness": drawn.mean(axis=(0, 1, 3, 4, 5)),
    "true_brightness": true.mean(axis=(0, 2, 3, 4)),
  }
  return {name: curve.round(4).tolist() for name, curve in curves.items()}


def _fvd(real: np.ndarray, sets: dict[str, np.ndarray]) -> dict[str, float]:
  """FVD of each set against the real videos, or nothing where they are too short."""
  if real.shape[1] < i3d.MIN_FRAMES:
    logging.info("No FVD: %d frames are fewer than %d.", real.shape[1], i3d.MIN_FRAMES)
    return {}
  every = np.split(i3d.features(np.concatenate([real, *sets.values()])), len(sets) + 1)
  return {name: frechet.fvd(every[0], features) for name, features in zip(sets, every[1:])}


def _interpolation(
  pipeline: Pipeline, real: np.ndarray, counts: ml_collections.ConfigDict
) -> dict[str, dict[str, float]]:
  """One frame before and one after a gap of `sample.gap`, beside their linear blend."""
  gap = pipeline.config.sample.gap
  real = real[:, : gap + 2]
  drawn = pipeline.interpolate(real[:, :1], real[:, -1:], gap, counts.trajectories, _SEED).videos
  blended = baselines.crossfaded_keyframes(real, [0, gap + 1])[:, None]
  true = real[:, 1:-1]
  return {
    "interpolated": _scores(drawn[:, :, 1:-1], true, counts.motion),
    "linear blend": _scores(blended[:, :, 1:-1], true, counts.motion),
  }
