"""The model card of an exported folder, from the run's files and the user's notes.

The notes are Markdown whose headings are sections of the card; their text is put there. A section
without text gets a line that says so.
"""

import dataclasses
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from experiments.scoring import score_files
from experiments.setup.errors import UserError
from videodiff_jax import text_files

OPEN = "**To be written:**"
_TIME = "Time and hardware"
# Section -> what to ask the user for if neither the run's files nor the notes have it.
_SECTIONS = {
  "Use": None,
  "Data": None,
  "Recipe": None,
  _TIME: "on what machine, and how long in all",
  "Scores": "figures of an evaluation (--mode=evaluate before the export)",
  "What it cannot do": "limits that were seen: lengths, classes, blur, drift, what it repeats",
  "Licence": "of the weights, and of the data they were trained on",
}


@dataclasses.dataclass(frozen=True)
class StageFacts:
  """The card's figures of a stage: of its file, its training and its checkpoint."""

  parameters: int
  megabytes: float
  step: int
  steps: int
  seconds: float
  code: str
  devices: str


def read_notes(file: pathlib.Path | None) -> dict[str, str]:
  """Reads the user's notes: section -> text.

  Raises:
    UserError: there is no such file, or it has a heading that the card lacks; lists the sections.
  """
  if file is None:
    return {}
  if not file.is_file():
    raise UserError(f"--notes: no file {file}.")
  before, *parts = ("\n" + text_files.read(file)).split("\n## ")
  pairs = [part.partition("\n")[::2] for part in parts]
  wrong = [heading for heading, _ in pairs if heading.strip() not in _SECTIONS]
  if wrong or before.strip() or not pairs:
    what = f"has a section {wrong[0]!r}" if wrong else "has text outside of sections"
    raise UserError(
      f"--notes: {file} {what}. It is Markdown with the sections "
      f"{', '.join(f'## {name}' for name in _SECTIONS)}, all of them optional."
    )
  return {heading.strip(): text.strip() for heading, text in pairs}


def write(
  name: str,
  config: ml_collections.ConfigDict,
  stages: Mapping[str, StageFacts],
  commands: Sequence[Mapping[str, str]],
  records: Mapping[str, Mapping[str, Any]],
  pictures: Sequence[str],
  notes: Mapping[str, str],
) -> str:
  """Makes the card as Markdown.

  Args:
    name: name of the folder.
    config: exported configuration of the run.
    stages: stage -> facts.
    commands: 'command' and 'code' of each training command.
    records: path in the folder -> score file.
    pictures: paths in the folder.
    notes: notes from `read_notes`.
  """
  texts = {
    "Use": _use(name, config, stages),
    "Data": _data(config, records),
    "Recipe": _recipe(name, config, stages, commands),
    _TIME: _time(stages),
    "Scores": "\n\n".join(_scores(records)),
  }
  lines = [f"# {name}", *(f"![{picture}]({picture})" for picture in pictures)]
  for section, wanted in _SECTIONS.items():
    parts = [part for part in (texts.get(section), notes.get(section)) if part]
    lines += [f"## {section}", *parts]
    # Checkpoints of earlier code do not record their devices.
    unknown = section == _TIME and not all(facts.devices for facts in stages.values())
    if wanted and (not parts or (unknown and section not in notes)):
      lines.append(f"{OPEN} {wanted}.")
  return "\n\n".join(lines) + "\n"


def _use(name: str, config: ml_collections.ConfigDict, stages: Mapping[str, StageFacts]) -> str:
  data = config.data
  rows = [
    (stage, f"{facts.parameters:,}", f"{facts.step:,} of {facts.steps:,}", f"{facts.megabytes:.1f}")
    for stage, facts in stages.items()
  ]
  return "\n\n".join([
    f"System `{config.system}`: clips of {data.num_frames} frames, {data.image_size} x "
    f"{data.image_size} pixels, {data.channels} channel(s). Averaged weights, in bfloat16.",
    f"```\npython -m experiments.main --mode=sample --workdir=experiments/pretrained/{name}\n```",
    f'```python\nimport videodiff_jax\n\npipeline = videodiff_jax.load("{name}")\n```',
    _table(("stage", "parameters", "steps", "MB"), rows),
  ])  # fmt: skip


def _data(config: ml_collections.ConfigDict, records: Mapping[str, Mapping[str, Any]]) -> str:
  data = config.data
  prints = {record["settings"].get("data_fingerprint") for record in records.values()} - {None}
  text = f"`{data.name}`, stride {data.stride}, mirrored: {'yes' if data.flip else 'no'}."
  if config.get("condition", "none") != "none":
    text += f" Condition: {config.condition}."
  return text + "".join(f" Store {fingerprint}." for fingerprint in sorted(prints))


def _recipe(
  name: str,
  config: ml_collections.ConfigDict,
  stages: Mapping[str, StageFacts],
  commands: Sequence[Mapping[str, str]],
) -> str:
  lines = [f"{portable_command(entry['command'], name, config)}  # {entry['code']}"
           for entry in commands]  # fmt: skip
  parts = ["```\n" + "\n".join(dict.fromkeys(lines)) + "\n```"] if lines else []
  code = ", ".join(f"{stage} {facts.code}" for stage, facts in stages.items())
  parts.append(f"Seed {config.seed}; code of the last step: {code}. `config.json` has every value.")
  parts.append("![Learning curves](curves.png)")
  return "\n\n".join(parts)


def portable_command(command: str, name: str, config: ml_collections.ConfigDict) -> str:
  """Returns a command without the paths of the machine it was given on."""
  words = []
  for word in shlex.split(command):
    option, equals, value = word.partition("=")
    if option.lstrip("-") == "workdir":
      value = f"runs/{name}"
    elif option.lstrip("-") == "config.data.dir" and not config.data.dir:
      continue
    words.append(option + equals + portable_path(value))
  return shlex.join(words)


def portable_path(value: str) -> str:
  """Returns the last part of an absolute path, and any other value unchanged."""
  absolute = value.startswith(("/", "~"))
  return pathlib.PurePath(value).name if absolute else value


def _time(stages: Mapping[str, StageFacts]) -> str:
  times = ", ".join(
    f"{stage} {facts.seconds / 3600:.2f} h" + (f" on {facts.devices}" if facts.devices else "")
    for stage, facts in stages.items()
  )
  return f"Time of the steps alone, without compiling, previews and evaluation: {times}."


def _scores(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
  for file, record in records.items():
    protocol = score_files.name_of(record["protocol"])
    drawn = score_files.drawn_by(record["settings"].get("sample", {}))
    yield (
      f"Protocol `{protocol}` ([{file}]({file}) has every setting), of the weights "
      f"before they were rounded to bfloat16. {drawn} "
      "[low, high]: 95 % over the choice of videos, not over training."
    )
    yield from _tables("", record["scores"], record.get("intervals", {}))


def _tables(title: str, scores: Mapping[str, Any], intervals: Mapping[str, Any]) -> Iterator[str]:
  """Makes tables of a group of figures: one of its rows by name, one of its single figures."""
  inner = {key: value for key, value in scores.items() if isinstance(value, Mapping)}
  alone = {key: value for key, value in scores.items() if key not in inner}
  flat = {
    key: row
    for key, row in inner.items()
    if row and not any(isinstance(value, Mapping) for value in row.values())
  }
  if alone:
    cells = [score_files.cell(value, intervals.get(key)) for key, value in alone.items()]
    yield _table((title, ""), list(zip(alone, cells)))
  if title and flat:
    columns = list(dict.fromkeys(key for row in flat.values() for key in row))
    rows = [
      (key, *(score_files.cell(row.get(c), intervals.get(key, {}).get(c)) for c in columns))
      for key, row in flat.items()
    ]
    yield _table((title, *columns), rows)
  for key, value in inner.items():
    if not (title and key in flat):
      name = f"{title} / {key}" if title else key
      yield from _tables(name, value, intervals.get(key, {}))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [heading, ("---",) * len(heading), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
