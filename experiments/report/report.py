"""--mode=report: shows a workdir as one page, report.html, which needs no network."""

import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from experiments.report.page import GENERATOR, Element, Media, bars, chart, document, element, table
from experiments.scoring import score_files, use_of_condition
from experiments.setup import checks
from experiments.workdirs import numbered, outputs, provenance
from videodiff_jax import text_files, whole_files
from videodiff_jax.inputs.folders import text_of
from videodiff_jax.metrics.configured_protocols import LADDER
from videodiff_jax.training import writers
from videodiff_jax.training.workdir import read_config

_NAME = "report.html"
_MOST_BYTES = 24 * 2**20  # limit of embedded media; base64 adds a third
_MOST_EACH = 6 * 2**20
_VIDEOS_SHOWN = 16  # videos of a folder of samples
_SPEED = ("steps_per_s", "frames_per_s", "gflops_per_s", "input_wait")
_ABOUT_FVD = (
  "Distances of each set of held-out or drawn clips to training clips; lower is nearer. real is "
  "what remains between two sets of real clips; shuffled, frozen and blurred are real ones damaged "
  "on purpose."
)


def mode(workdir: pathlib.Path, config: object, options: object) -> None:
  """--mode=report."""
  del config, options
  write(workdir)


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Writes the page of a run; replaces an earlier page.

  Returns:
    The path of the page.

  Raises:
    CheckpointError: the folder is not a workdir.
    UserError: there is a report.html that this mode did not write.
  """
  config = read_config(workdir)
  place = outputs.folder(workdir)
  out = place / _NAME
  if out.exists() and GENERATOR not in out.read_text(errors="replace")[:1000]:
    raise checks.UserError(f"{out} was not written by --mode=report: move it, then run this again.")
  media = Media(workdir, _MOST_BYTES, _MOST_EACH)
  folders = dict.fromkeys((workdir, place))
  body = [
    *_part("The summary", _summary, workdir, config),
    element("h2", "Commands"),
    *_part("commands.jsonl", _commands, place),
  ]
  for name in config.stages:
    body += _part(f"The training of {name}", _training, workdir / name, media)
  for folder in folders:
    for file in sorted((folder / "evaluations").glob("*.json")):
      body.append(element("h2", f"Evaluation: {file.stem}"))
      body += _part(f"{file.name} is no score file, or", _evaluation, file, media)
  for folder in folders:
    body += _samples(folder, config, media)
  if media.left_out:
    body.append(element("h2", "Left out"))
    body.append(element("p", "Not on this page: ", ", ".join(media.left_out), "."))
  body += [element("h2", "Configuration"), _details(config.to_json(indent=2), "config.json")]
  place.mkdir(parents=True, exist_ok=True)
  whole_files.write_text(out, document(f"{config.system}: {workdir.resolve().name}", body))
  logging.info("The report: %s (%.1f MB)", out, out.stat().st_size / 1e6)
  return out


def _part(what: str, make: Callable[..., Iterable[Element]], *arguments: Any) -> list[Element]:
  """Makes a part of the page; if a file prevents it, a note takes its place."""
  try:
    return list(make(*arguments))
  except Exception as error:  # no single file should cost the whole page
    said = f"{text_of(what)} cannot be shown: {text_of(repr(error))}"
    logging.warning("In the report, %s", said)
    return [_note(said)]


def _summary(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> Iterator[Element]:
  table_rows = []
  for name in config.stages:
    rows = writers.read_metrics(workdir / name / "metrics.jsonl")
    last = (rows or [{}])[-1]
    best = writers.best_validation(rows)
    table_rows.append(
      (name, f"{last.get('step', 0):g}", f"{config.train[name].steps}",
       f"{last['loss']:.4g}" if "loss" in last else "",
       f"{best[1]:.4g} at {best[0]:g}" if best else "")
    )  # fmt: skip
  data = config.data
  yield element(
    "p",
    f"Data set {data.name}, {data.image_size} x {data.image_size} pixels, clips of "
    f"{data.num_frames} frames; seed {config.seed}.",
  )
  heading = ("stage", "steps logged", "of", "last loss", "lowest validation loss at step")
  yield table(heading, table_rows)


def _commands(workdir: pathlib.Path) -> Iterator[Element]:
  known = provenance.read(workdir)
  if not known:
    yield element(
      "p",
      "This run was made before its commands were recorded; its configuration stands below.",
      class_="note",
    )
    return
  yield element("pre", "\n".join(f"{entry['command']}  # {entry['code']}" for entry in known))


def _training(folder: pathlib.Path, media: Media) -> Iterator[Element]:
  rows = writers.read_metrics(folder / "metrics.jsonl")
  if not rows:
    return
  yield element("h2", f"Training: {folder.name}")
  best = {"loss": writers.best_validation(rows)}
  charts = {
    key: chart(key, writers.both_lines(rows, key), "step", best.get(key))
    for key in writers.panel_names(rows)
  }
  yield element("div", *(drawn for key, drawn in charts.items() if key not in _SPEED))
  speed = [drawn for key, drawn in charts.items() if key in _SPEED]
  yield element("details", element("summary", "speed"), *speed)
  previews = sorted((folder / "previews").glob("*.png"))
  ours = [strip for strip in previews if strip.stem.isdecimal()]
  for strip in ours[-1:]:
    caption = f"preview at step {int(strip.stem)}, held-out clips: the rows of the strip"
    yield from filter(None, [
      media.figure(strip.with_suffix(".gif"), caption), media.figure(strip, "the same as a strip")
    ])  # fmt: skip
  if others := [strip.name for strip in previews if strip not in ours]:
    yield _note(f"Beside the run's own previews: {', '.join(others)}.")


def _evaluation(file: pathlib.Path, media: Media) -> Iterator[Element]:
  record = text_files.read_json(file)
  yield from _scores(record)
  pictures = [file.with_suffix(".gif"), file.with_suffix(".png")]
  if score_files.name_of(record["protocol"]) == LADDER.name:
    number = file.stem.removeprefix(LADDER.name)
    names = ("sets.gif", "sets.png", "nearest_training_clips.png", "directions.png")
    pictures = [file.with_name(name.replace(".", f"{number}.")) for name in names]
  rows = f"{_rows_shown(record)}: a row each"
  for picture in pictures:
    caption = rows if picture.suffix == ".gif" else picture.stem.replace("_", " ")
    yield from filter(None, [media.figure(picture, caption)])
  yield _details(text_files.read(file), file.name)


def _rows_shown(record: dict[str, Any]) -> str:
  """Names the rows of an evaluation's GIF, from top to bottom."""
  scores = record["scores"]
  if "fvd" in scores:
    return ", ".join(scores["fvd"])
  rows = ["real", "predicted" if "prediction" in scores else next(iter(scores), "drawn")]
  return ", ".join(rows + ["nearest training clip"] * ("nearest_training_clip" in scores))


def _scores(record: dict[str, Any]) -> Iterator[Element]:
  """Yields tables of all scores, the ladder as bars, and the curves over frames."""
  protocol = record["protocol"]
  about = protocol if isinstance(protocol, str) else f"{protocol['name']}: {protocol['about']}"
  yield element("p", f"Protocol {about}", class_="note")
  if sample := record["settings"].get("sample"):
    yield element("p", score_files.drawn_by(sample), class_="note")
  for name, scores in record["scores"].items():
    yield element("h3", name)
    intervals = record.get("intervals", {}).get(name, {})
    if name == "fvd":
      notes = {row: _interval(intervals.get(row)) for row in scores}
      yield bars(scores, notes)
      yield element("p", _ABOUT_FVD, class_="note")
    else:
      yield from _tables(scores, intervals)
    if name == use_of_condition.GROUP:
      yield element("p", use_of_condition.ABOUT, class_="note")
  if curves := record.get("curves"):
    yield element("h3", "Frame by frame")
    first = protocol["first_scored"] if isinstance(protocol, dict) else 0
    for key in dict.fromkeys(key for lines in curves.values() for key in lines):
      lines = {
        name: list(enumerate(values[key], first))
        for name, values in curves.items()
        if key in values
      }
      yield chart(key, lines, "frame")


def _tables(scores: dict[str, Any], intervals: dict[str, Any]) -> Iterator[Element]:
  """Yields a table of rows by name, then tables of single numbers and deeper trees."""
  rows = {
    name: row
    for name, row in scores.items()
    if isinstance(row, dict) and not any(isinstance(cell, dict) for cell in row.values())
  }
  columns = list(dict.fromkeys(key for row in rows.values() for key in row))

  def cell(name: str, key: str) -> str:
    if key not in rows[name]:
      return ""
    return f"{rows[name][key]:.4g} {_interval(intervals.get(name, {}).get(key))}".rstrip()

  if rows:
    yield table(("", *columns), [(name, *(cell(name, key) for key in columns)) for name in rows])
  singles = {name: value for name, value in scores.items() if not isinstance(value, dict)}
  if singles:
    rows_of_singles = [
      (name, f"{value:.4g} {_interval(intervals.get(name))}".rstrip())
      for name, value in singles.items()
    ]
    yield table(("", ""), rows_of_singles)
  for name in scores.keys() - rows.keys() - singles.keys():
    yield from _tables(scores[name], intervals.get(name, {}))


def _interval(ends: list[float] | None) -> str:
  return f"[{ends[0]:.4g}, {ends[1]:.4g}]" if ends else ""


def _samples(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, media: Media
) -> list[Element]:
  folders = sorted(path for path in (workdir / "samples").glob("*") if path.is_dir())
  parts = [element("h2", "Samples")] if folders else []
  for folder in folders:
    parts.append(element("h3", folder.name))
    parts += _part(folder.name, _sample, folder, config, media)
  return parts


def _sample(
  folder: pathlib.Path, config: ml_collections.ConfigDict, media: Media
) -> Iterator[Element]:
  if folder.suffix == numbered.UNFINISHED:
    yield _note("Being drawn, or left by a command that was killed: then it may be deleted.")
  try:
    caption = _captions(folder / numbered.SAMPLES, config)
  except Exception as error:  # a damaged zip raises many kinds
    yield _note(f"{numbered.SAMPLES} cannot be read: {error!r}")
    caption = str
  videos = sorted(file for file in folder.glob("*.mp4") if file.stem[:3].isdecimal())
  shown = [media.figure(file, caption(int(file.stem[:3]))) for file in videos[:_VIDEOS_SHOWN]]
  if not any(shown):
    shown = [media.figure(folder / "all.gif", "all clips")]
  yield element("div", *shown)
  pictures = {"strip.png": "as strips", "nearest.png": "each above its nearest training clip"}
  yield from filter(None, (media.figure(folder / name, about) for name, about in pictures.items()))
  settings = folder / "settings.json"
  if settings.is_file():
    yield _details(settings.read_text(errors="replace"), settings.name)


def _captions(file: pathlib.Path, config: ml_collections.ConfigDict) -> Callable[[int], str]:
  """Returns a function from n to the n-th video's caption: its number, and its prompt or class."""
  if not file.is_file():
    return str
  with file.open("rb") as opened, np.load(opened) as saved:
    labels, prompts = (saved[name] if name in saved else () for name in ("labels", "prompts"))

  def caption(number: int) -> str:
    if number < len(prompts) and prompts[number]:
      return f"{number}: {prompts[number]}"
    known = config.get("condition") == "class" and number < len(labels)
    return f"{number}: class {labels[number]}" if known else str(number)

  return caption


def _note(text: str) -> Element:
  return element("p", text, class_="note")


def _details(text: str, name: str) -> Element:
  return element("details", element("summary", name), element("pre", text))
