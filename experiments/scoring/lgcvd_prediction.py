"""LGC-VD's --mode=evaluate: predictions and interpolations beside trivial ones, in evaluations/.

videodiff_jax/metrics/protocols.py defines the clips and the measures of each protocol.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np
from absl import flags, logging

from experiments.measures import digits, set_scores
from experiments.measures.trajectories import SHOWN, Judge, Kept, Measured, measure, one_of_each
from experiments.scoring import lgcvd_generation, score_files, use_of_condition
from experiments.setup import checks, errors, frame_stores
from experiments.workdirs import outputs
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.lgcvd.pipeline import Chunks, Pipeline
from videodiff_jax.metrics import baselines, i3d, images, lpips, prediction, resampling
from videodiff_jax.metrics.clip_protocols import GENERATED_VIDEOS
from videodiff_jax.metrics.protocols import PROTOCOLS, PredictionProtocol
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained import lpips as lpips_weights
from videodiff_jax.pretrained.files import restricted_pickle
from videodiff_jax.training import hosts
from videodiff_jax.training.checkpoints import fingerprint
from videodiff_jax.training.writers import format_table, plot_lines

_CURVES = {
  "psnr": "PSNR, dB",
  "ssim": "SSIM",
  "lpips": "LPIPS",
  "brightness": "mean brightness, 0..255",
  "edges": "gradient energy",
  "position_error": "position error, px",
  "rms": "rms pixel difference, 0..255",
  "digit_right": "frames that read as their digit",
}

Features = Callable[[np.ndarray], np.ndarray]


def mode(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, options: flags.FlagValues
) -> None:
  """--mode=evaluate: scores by a protocol for predictions, or by one for generated videos."""
  if options.protocol in GENERATED_VIDEOS:
    lgcvd_generation.evaluate(workdir, config, options.protocol)
  else:
    evaluate(workdir, config, options.protocol)


def evaluate(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict | None,
  name: str | PredictionProtocol | None = None,
  features: Features | None = None,
  reuse: bool = False,
) -> dict[str, Any]:
  """Scores predictions and interpolations of held-out videos.

  Every score stands beside those of trivial predictions: the last given frame repeated, black,
  and the mean of the true frames, which no predictor can know. Interpolations stand beside linear
  blending. Earlier evaluations in the workdir are kept; this one gets the next free name. A killed
  evaluation goes on with the next chunk of trajectories when it is run again (trajectories.py).

  Args:
    workdir: folder of the run.
    config: configuration whose `sample` and `evaluate` replace the workdir's own; or None.
    name: name of the protocol, or the protocol itself; None takes config.evaluate.protocol.
    features: result of `features_of`, given to share its memory; None makes a new one.
    reuse: whether to return an earlier evaluation of the same weights, settings and protocol.

  Raises:
    UserError: the protocol is unknown, or does not suit this test split or machine.
  """
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  chosen = (config or pipeline.config).evaluate
  name = name or chosen.protocol
  protocol = find_protocol(name) if isinstance(name, str) else name
  pipeline = follow(pipeline, protocol)
  store = frame_stores.open_store(pipeline.config, protocol.split)
  check(protocol, store)
  params = _lpips_params(protocol, pipeline.networks.frame_shape)
  made_with = _settings(workdir, pipeline, store, protocol, params is not None)
  out = outputs.folder(workdir) / "evaluations"
  if reuse and (record := score_files.find(out, protocol, made_with)):
    return record

  real, videos = held_out(pipeline, store, protocol)
  used = use_of_condition.of_lgcvd(pipeline, store) if "prediction" in protocol.tasks else None
  count = len(real) * protocol.trajectories
  size = min(pipeline.chunk_size(count), count)
  features = features or features_of(protocol)
  reader = labels = None
  if chosen.digits:
    reader = digits.reader(frame_stores.open_store(pipeline.config, "train"))
    labels = digits.labels_of(store, videos)
  judge = Judge(protocol, real, params, chosen.motion, features, size, reader, labels)
  provenance = score_files.provenance(pipeline.config)
  same = {
    "protocol": protocol.written(),
    "settings": made_with,
    "weights": fingerprint(pipeline.params),
    "motion": chosen.motion,
    "digits": chosen.digits,
    "size": size,
    **provenance,
  }
  kept = {task: Kept(out, f"{protocol.name}.{task}", same) for task in protocol.tasks}
  sets = {task: _MEASURES[task](pipeline, judge, kept[task]) for task in protocol.tasks}
  rows = {task: {what: _row(*one) for what, one in many.items()} for task, many in sets.items()}
  groups: list[dict[str, Any]] = [
    {task: {what: row[i] for what, row in many.items()} for task, many in rows.items()}
    for i in range(3)
  ]
  scores, intervals, deviations = groups
  predicted = sets.get("prediction", {})
  if used is not None:
    scores[use_of_condition.GROUP], intervals[use_of_condition.GROUP] = used
  record = {
    "protocol": protocol.written(),
    "scores": scores,
    "intervals": intervals,
    "deviations": deviations,  # of the best figures
    "curves": _rounded(_curves(predicted, real, protocol)),  # per frame, from first_scored on
    "videos": _rounded(_videos(predicted)),  # means over trajectories
    "settings": made_with,
    **provenance,
  }
  what, (drawn, *_) = next(iter(sets[protocol.tasks[0]].items()))
  shown = {"real": real[:SHOWN, : drawn.shown.shape[1]], what: drawn.shown}
  plot = functools.partial(_plot, record, protocol.first_scored) if record["curves"] else None
  score_files.write(out, record, shown, plot)
  hosts.decide(functools.partial(_remove, kept))
  logging.info("%s", report(record))
  return record


def find_protocol(name: str) -> PredictionProtocol:
  """Returns the protocol of a name; UserError for an unknown one lists all."""
  return errors.entry("protocol", name, PROTOCOLS)


def follow(pipeline: Pipeline, protocol: PredictionProtocol) -> Pipeline:
  """Returns the pipeline with the sampling settings of a protocol."""
  with checks.as_user_error():
    pipeline = pipeline.with_settings(**protocol.settings())
  checks.check_config(ml_collections.ConfigDict(pipeline.config.to_dict()))
  return pipeline


def check(protocol: PredictionProtocol, store: FrameStore) -> None:
  """Raises an error, before anything is drawn, if something that a protocol needs is missing."""
  if store.num_videos < protocol.num_videos:
    raise checks.UserError(
      f"Protocol {protocol.name!r} needs {protocol.num_videos} videos, but the {store.split} "
      f"split has {store.num_videos}. Choose another: {', '.join(PROTOCOLS)}."
    )
  if "prediction" in protocol.tasks:
    restricted_pickle.locate(i3d_weights.WEIGHTS)
  if protocol.lpips_required:
    restricted_pickle.locate(lpips_weights.WEIGHTS[protocol.lpips_net])


def features_of(protocol: PredictionProtocol) -> Features:
  """Returns the protocol's function from clips to features; it caches every set it has seen."""
  known: dict[bytes, np.ndarray] = {}

  def features(videos: np.ndarray) -> np.ndarray:
    key = hashlib.sha256(np.ascontiguousarray(videos)).digest()
    if key not in known:
      known[key] = i3d.features(videos, resize=protocol.i3d_resize)
    return known[key]

  return features


def held_out(
  pipeline: Pipeline, store: FrameStore, protocol: PredictionProtocol
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the protocol's clips (n, f, h, w, c) uint8 and the indices (n,) of their videos."""
  sampler = frame_stores.clip_sampler(pipeline.config, "clip", num_frames=protocol.video_frames)
  with checks.as_user_error():
    real, videos, _ = clips.evaluation_clips(
      store, sampler, protocol.num_videos, protocol.seed, protocol.choice == "spaced"
    )
  if protocol.flip:
    mirrored = np.random.default_rng(protocol.seed).random(len(real)) < 0.5
    real = np.where(mirrored[:, None, None, None, None], real[:, :, :, ::-1], real)
  return real, videos


def report(record: dict[str, Any]) -> str:
  """Formats the scores as tables."""
  protocol, tables = record["protocol"], []
  for task in protocol["tasks"]:
    rows = record["scores"][task]
    columns = list(next(iter(rows.values())))
    lines = [
      (name, *(f"{row[key]:.3f}" if key in row else "" for key in columns))
      for name, row in rows.items()
    ]
    heading = f"{task} of {protocol['num_videos']} videos"
    tables.append(format_table(lines, (heading, *map(_short, columns))))
  best = f"_best: the best of {protocol['trajectories']} trajectories, as best={protocol['best']!r}"
  drawn_by = score_files.drawn_by(record["settings"]["sample"])
  if used := record["scores"].get(use_of_condition.GROUP):
    tables.append(use_of_condition.report(used))
  return "\n\n".join([*tables, f"protocol {protocol['name']!r}; {best}. {drawn_by}"])


def _short(column: str) -> str:
  column = column.replace("i3d_kernel_distance", "kid").removeprefix("i3d_")
  return column.replace("brightness", "bright").replace("position", "pos")


def _settings(
  workdir: pathlib.Path,
  pipeline: Pipeline,
  store: FrameStore,
  protocol: PredictionProtocol,
  with_lpips: bool,
) -> dict[str, Any]:
  """Returns the settings that change a figure beside the protocol."""
  lpips_file = lpips_weights.WEIGHTS[protocol.lpips_net]
  return {
    **score_files.settings(workdir, pipeline.config, store),
    "lpips_sha256": lpips_file.sha256 if with_lpips else None,
  }


def _lpips_params(
  protocol: PredictionProtocol, frame_shape: tuple[int, int, int]
) -> dict[str, Any] | None:
  """Loads LPIPS's weights; returns None and logs the reason if LPIPS cannot be computed."""
  side, least = protocol.lpips_size or frame_shape[0], lpips.SMALLEST[protocol.lpips_net]
  if side < least:
    reason = f"its network needs {least} pixels a side, but frames have {side}"
    if protocol.lpips_required:
      raise checks.UserError(
        f"Protocol {protocol.name!r} needs LPIPS, but {reason}: choose another --protocol."
      )
  else:
    try:
      return lpips.load_params(protocol.lpips_net)
    except FileNotFoundError as error:
      reason = str(error)  # not if LPIPS is required: `check` came first
  logging.warning("LPIPS is left out: %s", reason)
  return None


# Row -> the measured set, the real videos' features for FVD, and the protocol.
Sets = dict[str, tuple[Measured, np.ndarray | None, PredictionProtocol]]


def _prediction(pipeline: Pipeline, judge: Judge, kept: Kept) -> Sets:
  """Measures the drawn horizon and the trivial predictions of it."""
  protocol, real = judge.protocol, judge.real
  past, ahead = protocol.past, protocol.num_frames
  reals = None
  if real.shape[1] < i3d.MIN_FRAMES:
    judge = dataclasses.replace(judge, features=None)
  elif judge.features is not None:
    reals = judge.features(real)

  def draw(begin: int) -> Chunks:
    return pipeline.predict_chunks(
      real[:, :past],
      num_frames=ahead,
      trajectories=protocol.trajectories,
      seed=protocol.seed,
      begin=begin,
    )

  def begun(true: np.ndarray, rest: np.ndarray) -> np.ndarray:
    return np.concatenate([true[:, :past], rest], axis=1)

  trivial: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "repeat last": lambda true: begun(true, np.repeat(true[:, past - 1 : past], ahead, axis=1)),
    "black": lambda true: begun(true, baselines.black(true[:, past:])),
    "mean frame": lambda true: begun(true, baselines.mean_frame(true[:, past:])),
  }
  if judge.reader is not None:
    trivial["real"] = lambda true: true  # how well digits of real videos read
  sets = {"predicted": measure(draw, judge, kept)}
  alone = dataclasses.replace(protocol, trajectories=1)
  judge = dataclasses.replace(judge, protocol=alone, size=min(judge.size, len(real)))
  for what, predict in trivial.items():
    sets[what] = measure(functools.partial(one_of_each, judge, predict), judge)
  return {what: (measured, reals, protocol) for what, measured in sets.items()}


def _interpolation(pipeline: Pipeline, judge: Judge, kept: Kept) -> Sets:
  """Measures the frames drawn in a gap, beside the linear blend of the frames around it."""
  protocol, gap = judge.protocol, judge.protocol.gap
  real = judge.real[:, : gap + 2]
  # Only the drawn frames, without the given one at the end.
  between = dataclasses.replace(
    protocol, past=1, num_frames=gap, first_scored=1, tasks=("prediction",)
  )
  judge = dataclasses.replace(judge, protocol=between, real=real[:, :-1], features=None)

  def draw(begin: int) -> Chunks:
    chunks = pipeline.interpolate_chunks(
      real[:, :1],
      real[:, -1:],
      gap=gap,
      trajectories=protocol.trajectories,
      seed=protocol.seed,
      begin=begin,
    )
    return ((which, videos[:, :-1]) for which, videos in chunks)

  def blended(begin: int) -> Chunks:
    whole = dataclasses.replace(judge, real=real)
    blend = functools.partial(baselines.crossfaded_keyframes, keyframe_indices=[0, gap + 1])
    return ((which, videos[:, :-1]) for which, videos in one_of_each(whole, blend, begin))

  sets = {"interpolated": measure(draw, judge, kept), "linear blend": measure(blended, judge)}
  return {what: (measured, None, between) for what, measured in sets.items()}


_MEASURES = {"prediction": _prediction, "interpolation": _interpolation}


def _row(
  measured: Measured, reals: np.ndarray | None, protocol: PredictionProtocol
) -> tuple[dict[str, float], dict[str, list[float]], dict[str, float]]:
  """Computes a set's figures, their intervals over videos, and the deviations of the best ones.

  Args:
    measured: measurements of the set.
    reals: (n, d), features of the real videos; None leaves FVD, KID, precision and recall out.
    protocol: protocol of both.
  """
  known = None
  if reals is not None and measured.features is not None:
    known = set_scores.Predicted(reals, measured.features)

  def row(videos: np.ndarray) -> dict[str, float]:
    chosen = {name: values[videos] for name, values in measured.scores.items()}
    figures = prediction.summary(chosen, protocol)
    figures |= prediction.spread(measured.apart[videos], measured.error[videos])
    if known is not None:
      figures["fvd"] = prediction.fvd(known.real[videos], known.drawn[:, videos], protocol)
      figures |= known.figures(videos)
    return figures

  count = len(next(iter(measured.scores.values())))
  figures = row(np.arange(count))

  def again(rng: np.random.Generator) -> dict[str, float]:
    return row(resampling.with_replacement(rng, count))

  bests = prediction.bests(measured.scores, protocol)
  deviations = {name: float(values.std()) for name, values in bests.items()}
  return figures, resampling.intervals(figures, again, protocol.seed), deviations


def _curves(
  sets: Sets, real: np.ndarray, protocol: PredictionProtocol
) -> dict[str, prediction.Scores]:
  """Averages each frame over videos and trajectories; {} if nothing was predicted."""
  if not sets:
    return {}
  curves = {}
  for what in ("predicted", "repeat last"):
    measured = sets[what][0]
    curves[what] = {key: values.mean(axis=(0, 1)) for key, values in measured.frames.items()}
    curves[what]["rms"] = np.sqrt(measured.error.mean(axis=(0, 1)))
  apart = sets["predicted"][0].apart
  if apart.size:  # a right sampler's trajectories are as far from each other as from the truth
    curves["between trajectories"] = {"rms": np.sqrt(apart.mean(axis=(0, 1)))}
  scored = real[:, protocol.first_scored :]
  of_real = {
    "brightness": scored.mean(axis=(0, 2, 3, 4)),
    "edges": images.gradient_energy(scored).mean(axis=0),
  }
  if "real" in sets:
    of_real["digit_right"] = sets["real"][0].frames["digit_right"].mean(axis=(0, 1))
  return curves | {"real": of_real}


def _videos(sets: Sets) -> dict[str, prediction.Scores]:
  """Averages each predicted video over its trajectories; {} if nothing was predicted."""
  if not sets:
    return {}
  scores = sets["predicted"][0].scores
  return {"predicted": {key: values.mean(axis=1) for key, values in scores.items()}}


def _plot(record: dict[str, Any], first: int, file: pathlib.Path) -> None:
  """Plots the curves over the frames from `first` on."""
  panels = {
    title: {what: lines[key] for what, lines in record["curves"].items() if key in lines}
    for key, title in _CURVES.items()
    if key in record["curves"]["predicted"]
  }
  plot_lines(panels, first, "frame of the video", file)


def _rounded(tree: Any) -> Any:
  """Converts the tree's arrays to rounded lists for JSON."""
  if isinstance(tree, dict):
    return {key: _rounded(value) for key, value in tree.items()}
  return tree.round(5).tolist()


def _remove(kept: dict[str, Kept]) -> None:
  """Removes the chunks of every task."""
  for chunks in kept.values():
    chunks.remove()
