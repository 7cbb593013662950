"""GLOBER's --mode=evaluate: scores beside the references that explain them, in evaluations/."""

import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import flags, logging

from experiments.measures import digits, directions, ladder, nearest, set_scores
from experiments.sampling import glober_samples
from experiments.scoring import glober_protocols, score_files, use_of_condition
from experiments.setup import checks, errors, frame_stores
from experiments.workdirs import numbered, outputs, provenance
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.inputs import clips, video_io
from videodiff_jax.metrics import i3d
from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, ClipProtocol
from videodiff_jax.metrics.configured_protocols import LADDER
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained.files import restricted_pickle
from videodiff_jax.training import hosts
from videodiff_jax.training.workdir import steps_done
from videodiff_jax.training.writers import format_table

_SEED = 0


def mode(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """--mode=evaluate: the ladder, or a named protocol."""
  protocol = errors.entry(
    "protocol", options.protocol or LADDER.name, {LADDER.name: LADDER, **CLIP_PROTOCOLS}
  )
  if isinstance(protocol, ClipProtocol):
    glober_protocols.evaluate(workdir, config, protocol)
  else:
    evaluate(workdir, config)


def evaluate(workdir: pathlib.Path, config: ml_collections.ConfigDict | None) -> dict[str, Any]:
  """Scores held-out reconstructions and generated clips.

  All scores use the same held-out clips and seeds: the FVD ladder (real, KL-VAE, reconstructed,
  generated, shuffled, frozen, blurred, each against training clips), the same sets' inception
  scores, and PSNR and SSIM beside trivial predictions. config.evaluate adds the motion of the
  object (motion), whether digits read as their class (digits), and whether they move as prompts
  say (directions). Memory does not grow with the number of clips. A later evaluation of the same
  workdir gets files of its own; nothing is overwritten.
  """
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  counts = (config or pipeline.config).evaluate
  restricted_pickle.locate(i3d_weights.WEIGHTS)  # reported before the long sampling, not after it
  whole = frame_stores.clip_sampler(pipeline.config, "clip")
  if whole.num_frames < i3d.MIN_FRAMES:
    raise checks.UserError(
      f"This run's clips have {whole.num_frames} frames; FVD needs {i3d.MIN_FRAMES} or more: train "
      "with a larger config.data.num_frames."
    )
  # Every clip is read once, so keeping frames in memory would not help.
  stores = {
    split: frame_stores.open_store(pipeline.config, split, False) for split in ("train", "test")
  }
  with checks.as_user_error():
    reference = clips.evaluation_places(stores["train"], whole, counts.num_real, _SEED)
    real = clips.evaluation_places(stores["test"], whole, counts.num_fake, _SEED)
    bank = nearest.one_of_each(stores["train"], whole)
    labels, prompts = glober_samples.conditions_of(pipeline, stores["test"], real.videos)
    if prompts is not None:
      pipeline.encode_prompts(prompts[:1])  # a missing encoder is reported now, too

  used, spread_of_use = use_of_condition.of_glober(pipeline, stores["test"])
  held_out = ladder.HeldOut(real, labels, prompts)
  reading = None
  if counts.digits:
    conditioned = labels is not None or prompts is not None
    true = digits.labels_of(stores["test"], real.videos)
    reading = ladder.Reading(digits.reader(stores["train"]), true, conditioned)
  found = ladder.measure(pipeline, reference, held_out, _SEED, counts.motion, reading)
  of_sets, spread_of_sets = ladder.set_figures(found, _SEED)
  frames, spread_of_frames, curves = ladder.frame_figures(found, _SEED)
  sharpness, spread_of_sharpness = ladder.sharpness_figures(found, _SEED)
  scores: dict[str, Any] = {**of_sets, "sharpness": sharpness, "frames": frames}
  intervals = {**spread_of_sets, "sharpness": spread_of_sharpness, "frames": spread_of_frames}
  if counts.motion:
    scores["motion"] = ladder.motion_figures(found)
  if counts.digits:
    scores["digits"], intervals["digits"] = digits.summary(found.readings, _SEED)
  scores[use_of_condition.GROUP], intervals[use_of_condition.GROUP] = used, spread_of_use
  near, distances, spread = nearest.search(found.searched, bank)
  scores["nearest_training_clip"], intervals["nearest_training_clip"] = distances, spread
  record = {
    "protocol": LADDER.written(),
    "scores": scores,
    "intervals": intervals,
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
      "code": provenance.code_version(),
    },
    **score_files.provenance(pipeline.config),
  }
  directed: dict[str, np.ndarray] = {}
  if counts.directions:
    read_by = None if reading is None else reading.reader
    scores["directions"], directed = directions.score(pipeline, _SEED, read_by)
  file = hosts.decide(
    lambda: str(_write(workdir, record, found.shown, near["generated"], directed))
  )
  tables = report(scores, len(reference), len(real))
  drawn_by = score_files.drawn_by(record["settings"]["sample"])
  logging.info("%s\n\n%s\nWritten to %s.", tables, drawn_by, file)
  return record


def _write(
  workdir: pathlib.Path,
  record: dict[str, Any],
  shown: dict[str, np.ndarray],
  near: np.ndarray,
  directed: dict[str, np.ndarray],
) -> pathlib.Path:
  """Writes the score file and its pictures; `directed` are the strip's rows of prompts, if any."""
  out = outputs.folder(workdir) / "evaluations"
  names = ("sets.png", "sets.gif", "nearest_training_clips.png", "directions.png")
  with numbered.files(out, f"{LADDER.name}.json", *names) as files:
    scores_file, sets_file, clips_file, nearest_file, directions_file = files
    if directed:
      video_io.write_strip(directions_file, directed)
    write_neighbours(nearest_file, shown["generated"], near)
    video_io.write_strip(sets_file, {name: videos[0] for name, videos in shown.items()})
    video_io.write_gif(clips_file, video_io.mosaic(shown.values()))
    score_files.save(scores_file, record)
  return out / scores_file.name


def report(scores: dict[str, Any], num_real: int, num_fake: int) -> str:
  """Formats the scores as tables."""
  columns = (
    ("fvd", ".1f"),
    ("i3d_kernel_distance", ".3f"),
    ("i3d_precision", ".2f"),
    ("i3d_recall", ".2f"),
    ("i3d_inception_score", ".2f"),
    ("sharpness", ".2f"),
  )
  fvd = format_table(
    [
      (name, *(format(scores[key][name], places) for key, places in columns if key in scores))
      for name in scores["fvd"]
    ],
    (f"{num_fake} clips against {num_real}", *(key for key, _ in columns if key in scores)),
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
  if "digits" in scores:
    keys = ("frames_right", "clip_right", "agreement", "visible")
    rows = [
      (name, *(f"{row[key]:.3f}" if key in row else "" for key in keys))
      for name, row in scores["digits"].items()
    ]
    heading = (
      "digits read",
      "frames right",
      "clips right",
      "agreement of frames",
      "frames with a digit",
    )
    tables.append(format_table(rows, heading))
  if used := scores.get(use_of_condition.GROUP):
    tables.append(use_of_condition.report(used))
  if "directions" in scores:
    columns = {
      "as_told": "move as prompted",
      "same_side": "within 90 degrees",
      "digit_read": "read as prompted",
      "both": "move and read as prompted",
    }
    rows = {name: row for name, row in scores["directions"].items() if name != "prompts"}
    shown = {key: title for key, title in columns.items() if key in next(iter(rows.values()))}
    lines = [
      (name, f"{row['scale']:g}", *(row[key] for key in shown)) for name, row in rows.items()
    ]
    heading = (f"{scores['directions']['prompts']} prompts", "scale", *shown.values())
    tables.append(format_table(lines, heading))
  rows = [(name, f"{value:.2f}") for name, value in scores["nearest_training_clip"].items()]
  tables.append(format_table(rows, ("nearest training clip", "levels of 255 away")))
  return "\n\n".join(tables)


def write_neighbours(path: pathlib.Path, generated: np.ndarray, near: np.ndarray) -> None:
  """Writes a strip with each generated clip above the training clip nearest to it in pixels."""
  rows: dict[str, np.ndarray] = {}
  for i, (clip, neighbour) in enumerate(zip(generated, near)):
    rows |= {f"generated {i}": clip, f"nearest {i}": neighbour}
  video_io.write_strip(path, rows)
