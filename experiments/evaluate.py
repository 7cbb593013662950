"""--mode=evaluate: every score beside what makes it readable, into workdir/evaluations."""

import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments import checks, directions, sample, score_files, set_scores, train
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import baselines, frechet, i3d, images, motion, resampling
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained import restricted_pickle
from videodiff_jax.training.workdir import steps_done, unused
from videodiff_jax.training.writers import format_table

_PROTOCOL = "ladder"
_SEED = 0
_NEIGHBOUR_BANK = 2000  # training clips searched for the nearest
_NEIGHBOURS_SHOWN = 6
_SHOWN = 6  # clips a set


def evaluate(workdir: pathlib.Path, config: ml_collections.ConfigDict | None) -> dict[str, Any]:
  """Scores held-out reconstructions and generated clips.

  Everything is computed on the same held-out clips and seeds: the FVD ladder (real, KL-VAE,
  reconstructed, generated, shuffled, frozen, blurred, each against training clips), the same sets'
  inception scores, PSNR and SSIM beside trivial predictions, and, where config.evaluate.motion says
  so, how the object moves, and where .directions does, whether it moves as prompts say.
  A later evaluation of the same workdir gets files of its own: nothing is written over.
  """
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  counts = (config or pipeline.config).evaluate
  restricted_pickle.locate(i3d_weights.WEIGHTS)  # told now, not after the drawing
  whole = train.clip_sampler(pipeline.config, "clip")
  if whole.num_frames < i3d.MIN_FRAMES:
    raise checks.UserError(
      f"This run's clips have {whole.num_frames} frames; FVD needs {i3d.MIN_FRAMES} or more: train "
      "with a larger config.data.num_frames."
    )
  stores = {split: train.open_store(pipeline.config, split) for split in ("train", "test")}
  with checks.told():
    reference, _, _ = clips.evaluation_clips(stores["train"], whole, counts.num_real, _SEED)
    real, videos, _ = clips.evaluation_clips(stores["test"], whole, counts.num_fake, _SEED)
    bank = neighbour_bank(stores["train"], whole)
    labels, prompts = sample.told_of(pipeline, stores["test"], videos)
    if prompts is not None:
      pipeline.encode_prompts(prompts[:1])  # what is missing is told now, too

  features = pipeline.encode(real)
  sets = {
    "real": real,
    "kl_vae": pipeline.reconstruct_frames(real),
    "reconstruction": pipeline.redraw(features, None, labels, _SEED, prompts).videos,
    "generated": pipeline.generate(len(real), None, labels, _SEED, prompts).videos,
    "shuffled": baselines.shuffled_frames(real, _SEED),
    "frozen": baselines.frozen_first_frame(real),
    "blurred": baselines.blurred(real),
  }
  ladder, ladder_spread = _ladder(reference, sets)
  frames, frames_spread, curves = _frame_scores(pipeline, real, sets)
  scores: dict[str, Any] = {**ladder, "frames": frames}
  if counts.motion:
    scores["motion"] = _motion(pipeline, features, (labels, prompts), sets)
  out = workdir / "evaluations"
  out.mkdir(exist_ok=True)
  scores_file, sets_file, clips_file, nearest_file, directions_file = unused(
    out,
    f"{_PROTOCOL}.json",
    "sets.png",
    "sets.gif",
    "nearest_training_clips.png",
    "directions.png",
  )
  if counts.directions:
    scores["directions"] = directions.score(pipeline, directions_file, _SEED)
  write_neighbours(nearest_file, sets["generated"], bank)
  video_io.write_strip(sets_file, {name: clip[0] for name, clip in sets.items()})
  video_io.write_gif(clips_file, video_io.mosaic(clip[:_SHOWN] for clip in sets.values()))
  record = {
    "protocol": _PROTOCOL,
    "scores": scores,
    "intervals": {**ladder_spread, "frames": frames_spread},
    "curves": curves,
    "settings": {
      "num_real": len(reference),
      "num_fake": len(real),
      "num_frames": whole.num_frames,
      "stride": whole.stride,
      "image_size": pipeline.config.data.image_size,
      "crop": "centre square",
      "range": "uint8",
      "codec": stores["train"].codec,
      "resize_to_224": "bilinear, half-pixel centres, not antialiased",
      "reference_split": "train",
      "fake_split": "test",
      "detector_sha256": i3d_weights.WEIGHTS.sha256,
      "inception_splits": set_scores.SETTINGS["inception_splits"],
      "data_fingerprint": stores["train"].fingerprint,
      "neighbour_bank": len(bank),
      "seed": _SEED,
      "sample": pipeline.config.sample.to_dict(),
      "steps": {name: steps_done(workdir, name) for name in pipeline.config.stages},
      "code": train.code_version(),
    },
    **score_files.provenance(pipeline.config),
  }
  score_files.save(scores_file, record)
  tables = report(scores, len(reference), len(real))
  drawn_by = score_files.drawn_by(record["settings"]["sample"])
  logging.info("%s\n\n%s\nWritten to %s.", tables, drawn_by, scores_file)
  return record


def report(scores: dict[str, Any], num_real: int, num_fake: int) -> str:
  """The scores as tables."""
  inception = scores["i3d_inception_score"]
  fvd = format_table(
    [(name, f"{value:.1f}", f"{inception[name]:.2f}") for name, value in scores["fvd"].items()],
    (f"{num_fake} clips against {num_real}", "FVD", "inception score, I3D"),
  )
  frames = format_table(
    [(name, f"{row['psnr']:.2f}", f"{row['ssim']:.3f}") for name, row in scores["frames"].items()],
    ("held-out frames", "PSNR, dB", "SSIM"),
  )
  tables = [fvd, frames]
  if "motion" in scores:
    names = ("position_error", "jitter", "identity_flicker")
    rows = [
      (name, *(f"{row[key]:.3f}" if key in row else "" for key in names))
      for name, row in scores["motion"]["sets"].items()
    ]
    tables.append(format_table(rows, ("motion", "position error, px", "jitter, px", "flicker")))
    tables.append(f"half-index slope {scores['motion']['half_index_slope']:.3f} (1 is right)")
  if "directions" in scores:
    rows = [
      (name, f"{row['scale']:g}", row["as_told"], row["same_side"])
      for name, row in scores["directions"].items()
      if name != "prompts"
    ]
    asked = scores["directions"]["prompts"]
    heading = (f"{asked} prompts", "scale", "move as told", "within 90 degrees")
    tables.append(format_table(rows, heading))
  return "\n\n".join(tables)


def neighbour_bank(store: FrameStore, sampler: clips.ClipSampler) -> np.ndarray:
  """(n, f, h, w, c) uint8: a clip of every video long enough for one, or of some of very many."""
  usable = int(np.count_nonzero(clips.count_starts(store, sampler)))
  return clips.evaluation_clips(store, sampler, min(_NEIGHBOUR_BANK, usable), _SEED)[0]


def write_neighbours(path: pathlib.Path, generated: np.ndarray, bank: np.ndarray) -> None:
  """A strip with each generated clip above the training clip nearest to it in pixels."""
  shown = generated[:_NEIGHBOURS_SHOWN]
  nearest = baselines.nearest_neighbours(shown, bank)
  rows = {}
  for i, (clip, index) in enumerate(zip(shown, nearest)):
    rows |= {f"generated {i}": clip, f"nearest {i}": bank[index]}
  video_io.write_strip(path, rows)


def _ladder(
  reference: np.ndarray, sets: dict[str, np.ndarray]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
  """Groups 'fvd', distances to the reference clips, and 'i3d_inception_score'; their intervals.

  The distance of frames is left to the named protocols: with so many sets it takes too long.
  """
  every = i3d.features(np.concatenate([reference, *sets.values()]))
  known, *pieces = np.split(every, len(reference) + np.arange(len(sets)) * len(sets["real"]))

  def figures(of_reference: np.ndarray, of_sets: np.ndarray) -> dict[tuple[str, str], float]:
    drawn = {name: piece[of_sets] for name, piece in zip(sets, pieces)}
    distances = {("fvd", n): frechet.fvd(known[of_reference], x) for n, x in drawn.items()}
    scores = {("i3d_inception_score", n): set_scores.inception_score(x) for n, x in drawn.items()}
    return distances | scores

  def again(rng: np.random.Generator) -> dict[tuple[str, str], float]:
    counts = len(known), len(sets["real"])
    return figures(*(resampling.with_replacement(rng, count) for count in counts))

  def grouped(found: dict[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    groups = dict.fromkeys(group for group, _ in found)
    return {g: {n: value for (of, n), value in found.items() if of == g} for g in groups}

  found = figures(np.arange(len(known)), np.arange(len(sets["real"])))
  return grouped(found), grouped(resampling.intervals(found, again, _SEED))


def _frame_scores(
  pipeline: Pipeline, real: np.ndarray, sets: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Scores, their intervals over clips, and the decoders' curves over frames."""
  data = pipeline.config.data
  keys = clips.keyframe_indices(data.num_frames, data.num_keyframes)
  predictions = {
    "kl_vae": sets["kl_vae"],
    "reconstruction": sets["reconstruction"],
    "black": baselines.black(real),
    "mean frame": baselines.mean_frame(real),
    "nearest true keyframe": baselines.nearest_keyframe(real, keys),
    "cross-faded true keyframes": baselines.crossfaded_keyframes(real, keys),
  }
  scores, spread, curves = {}, {}, {}
  for name, prediction in predictions.items():
    # An exact copy (a keyframe) would be infinite; 60 dB keeps the mean a number.
    each = {
      "psnr": np.minimum(images.psnr(prediction, real), 60.0),
      "ssim": images.ssim(prediction, real),
    }  # (n, f)
    scores[name] = {key: float(values.mean()) for key, values in each.items()}

    def again(rng: np.random.Generator, each: dict[str, np.ndarray] = each) -> dict[str, float]:
      chosen = resampling.with_replacement(rng, len(real))
      return {key: values[chosen].mean() for key, values in each.items()}

    spread[name] = resampling.intervals(scores[name], again, _SEED)
    if name in sets:
      curves[name] = {key: values.mean(axis=0).round(5).tolist() for key, values in each.items()}
  return scores, spread, curves


def _motion(
  pipeline: Pipeline, features: np.ndarray, told: Any, sets: dict[str, np.ndarray]
) -> dict[str, Any]:
  """`told`: labels and prompts."""
  times = pipeline.frame_times
  halves = (times[:-1] + times[1:]) / 2
  labels, prompts = told
  at_half = pipeline.redraw(features, halves, labels, _SEED, prompts).videos
  rows = {}
  for name in ("real", "kl_vae", "reconstruction", "generated", "frozen"):
    rows[name] = {
      "jitter": motion.jitter(sets[name]),
      "identity_flicker": motion.identity_flicker(sets[name]),
    }
    if name != "generated":
      rows[name]["position_error"] = motion.position_error(sets[name], sets["real"])
  slope = motion.half_index_slope(sets["reconstruction"], at_half, sets["real"])
  return {"sets": rows, "half_index_slope": slope}
