"""What was tried, one JSON line an attempt, and the table that docs/faults.md makes of it.

Attempts that ended well are not made again, so that a campaign goes on where it was stopped; what
went wrong is tried again, and both verdicts are kept.
"""

import datetime
import functools
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from experiments.workdirs.provenance import code_version
from tests.faults.commands import ROOT
from videodiff_jax.training.writers import format_table

TABLE = ROOT / "docs" / "faults.md"
# Part -> what its attempts are.
PARTS = {
  "kill: GLOBER training": "kills of `--mode=train`, three stages, previews, curves, samples",
  "kill: LGC-VD training": "the same of LGC-VD",
  "kill: preparation": "kills of `data.prepare`; the store is compared byte by byte",
  "kill: sampling and cache": "kills of `--mode=sample` and `--mode=cache`, then the report",
  "kill: one of two hosts": "a signal to one of two processes; the other ends, both go on",
  "kill: slow disk": "kills while a checkpoint is renamed and its checksums are written, slowly",
  "two at once": "the same command twice at once in one workdir or store",
  "disk": "full and read-only disks under training, sampling, the report and preparation",
  "damage: checkpoints": "a file deleted, emptied, halved or with one bit changed, then restored",
  "damage: other files": "stores, captions, workdirs' JSON, samples, caches, exported weights",
  "fuzz: configurations": "values of single keys, to the door of the training loop",
  "fuzz: flags": "flags of every mode, to the door of the networks",
  "fuzz: library": "values in a workdir's config.json, to `Pipeline.from_workdir`",
  "fuzz: pictures and videos": "changed bytes of every format, through `data.prepare`",
  "fuzz: texts and weights": "JSON, JSON lines, captions, safetensors with changed bytes",
  "nonsense": "a list of values that must be refused: accepted ones are counted as silent",
}
GOOD = ("kept", "refused", "accepted")
BAD = ("lost", "silent", "traceback", "hang")


class Ledger:
  """The attempts in a file, which is appended to."""

  def __init__(self, file: pathlib.Path | None = None):
    folder = pathlib.Path(os.environ.get("FAULTS_DIR", ROOT / ".cache" / "faults"))
    self.file = file or folder / "attempts.jsonl"
    self.file.parent.mkdir(parents=True, exist_ok=True)

  def rows(self) -> list[dict[str, Any]]:
    if not self.file.exists():
      return []
    return [json.loads(line) for line in self.file.read_text().splitlines()]

  def left(self, part: str, cases: Iterable[str]) -> list[str]:
    """The cases of a part that were not tried yet, or went wrong when they were last tried."""
    last = {row["case"]: row["verdict"] for row in self.rows() if row["part"] == part}
    return [case for case in cases if last.get(case) not in GOOD]

  def add(self, part: str, case: str, verdict: str, told: str = "", **figures: Any) -> None:
    assert part in PARTS and verdict in GOOD + BAD, (part, verdict)
    row = {"part": part, "case": case, "verdict": verdict, "told": told, **figures}
    row |= {"code": _code(), "date": f"{datetime.date.today()}"}
    with self.file.open("a") as file:
      file.write(json.dumps(row) + "\n")

  def check(self, part: str, cases: str = "") -> None:
    """Fails where attempts of a part, whose names begin so, are bad by now."""
    last = {row["case"]: row for row in self.rows() if row["part"] == part}
    bad = [
      f"{row['verdict']}: {case}: {row['told']}"
      for case, row in last.items()
      if case.startswith(cases) and row["verdict"] in BAD
    ]
    self.write_table()
    shown = "\n".join(line[:200] for line in bad[:20])
    assert not bad, f"{len(bad)} of {len(last)} attempts went wrong:\n{shown}"

  def write_table(self, file: pathlib.Path = TABLE) -> None:
    file.parent.mkdir(exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(self.page())
    os.replace(unfinished, file)

  def page(self) -> str:
    """docs/faults.md."""
    rows = self.rows()
    last = {(row["part"], row["case"]): row for row in rows}
    first_bad = {(row["part"], row["case"]) for row in rows if row["verdict"] in BAD}
    mended = {key for key in first_bad if last[key]["verdict"] in GOOD}
    heading = ("part", "attempts", *GOOD, *BAD, "bad at first, good now")
    table = []
    for part in PARTS:
      of_part = [row for row in last.values() if row["part"] == part]
      attempts = sum(row.get("attempts", 1) for row in of_part)
      counts = [
        sum(row.get("attempts", 1) for row in of_part if row["verdict"] == verdict)
        for verdict in (*GOOD, *BAD)
      ]
      table.append((part, attempts, *counts, sum(key[0] == part for key in mended)))
    table.append(("in all", *(sum(row[i] for row in table) for i in range(1, len(heading)))))
    lines = [
      "# Faults: what was tried, and what came of it",
      "",
      "Written by `python -m pytest -m faults tests/faults`. Its attempts are noted in the folder",
      "`FAULTS_DIR`, one JSON line each; what ended well is not tried again. A few inputs of each",
      "kind are tried in the default tests.",
      "",
      "- kept: nothing lost, bit for bit, or the damage harmless.",
      "- refused: by one sentence.",
      "- accepted: taken without complaint, of inputs that may be right.",
      "- lost: an array, row or file is missing or differs.",
      "- silent: nonsense accepted, or damaged content used without a word.",
      "- traceback: any; also a process that ended by a signal which nobody sent.",
      "- hang: no answer in 60 s.",
      "",
      "```",
      format_table([tuple(map(str, row)) for row in table], heading),
      "```",
      "",
      "| part | what its attempts are |",
      "|---|---|",
      *(f"| {part} | {what} |" for part, what in PARTS.items()),
      "",
      "Networks are linear ones (`tests/faults/toys.py`) wherever a command trains or draws; loop,",
      "files and readers are the real ones.",
      "",
      *_compared(last.values()),
      *_versions(last.values()),
      *_open(last.values(), self.file.parent),
    ]
    return "\n".join(lines)


@functools.cache
def _code() -> str:
  return code_version()


def _compared(rows: Iterable[dict[str, Any]]) -> list[str]:
  lines = []
  for part in PARTS:
    of_part = [row for row in rows if row["part"] == part and "compared" in row]
    if of_part:
      names = dict.fromkeys(name for row in of_part for name in row["compared"])
      sums = {name: sum(row["compared"].get(name, 0) for row in of_part) for name in names}
      told = ", ".join(f"{count:,} {name}" for name, count in sums.items())
      lines.append(f"- {part}: {told} compared.")
  return [*lines, ""] if lines else []


def _versions(rows: Iterable[dict[str, Any]]) -> list[str]:
  counts: dict[str, int] = {}
  for row in rows:
    key = f"{row['code']}, {row['date']}"
    counts[key] = counts.get(key, 0) + row.get("attempts", 1)
  told = "; ".join(f"{key} ({count})" for key, count in counts.items())
  return [f"Code and attempts: {told}.", ""]


def _open(rows: Iterable[dict[str, Any]], folder: pathlib.Path) -> list[str]:
  bad = [row for row in rows if row["verdict"] in BAD]
  if not bad:
    return ["Nothing of this is open.", ""]
  shown = [
    f"- {row['part']}, `{row['case'][:120]}`: {row['verdict']}. "
    f"`{row['told'].replace(str(folder), 'FAULTS_DIR')[:160]}`"
    for row in bad[:60]
  ]
  more = [f"- and {len(bad) - 60} more"] if len(bad) > 60 else []
  return ["## Open", "", *shown, *more, ""]
