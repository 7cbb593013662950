"""The table of what was compiled, as Markdown in the README of its results."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from videodiff_jax import whole_files

_BEGIN, _END = "<!-- table: python -m experiments.benchmarks.compiled -->\n", "<!-- end -->"
_HEADING = (
  "configuration", "program", "target", "rows", "parts", "mesh", "verdict", "GB a device",
  "TFLOP a device", "estimated", "of peak", "GB moved", "s to compile", "code",
  "dearest operations",
)  # fmt: skip
_DEAREST = 3


def write(readme: pathlib.Path, table: str) -> None:
  """Puts a table between the README's two marks."""
  before, after = readme.read_text().split(_BEGIN)
  rest = after[after.index(_END) :]
  whole_files.write_text(readme, f"{before}{_BEGIN}{table}\n{rest}")


def read(readme: pathlib.Path) -> str:
  """Returns the table that is between the README's two marks."""
  return readme.read_text().split(_BEGIN)[1].split(_END)[0].rstrip("\n")


def markdown(files: Iterable[pathlib.Path]) -> str:
  """Returns the table of the programs' files, in their order."""
  rows = [_HEADING, ("---",) * len(_HEADING), *(_line(json.loads(f.read_text())) for f in files)]
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _line(found: dict[str, Any]) -> tuple[str, ...]:
  def number(key: str, scale: float, form: str, unit: str = "") -> str:
    return f"{found[key] * scale:{form}}{unit}" if found[key] else "-"

  level = found["key"].get("optimization", "")
  if level:  # these are not the cycles of a program that anybody would run
    found |= {"seconds": None, "share": None, "dearest": []}
  moved = sum(size for _, _, size in found["collectives"])
  dearest = (f"{share:.0%} {name}" for name, share in found["dearest"][:_DEAREST])
  return (
    f"{found['config']}{', ' * bool(found['change'])}{found['change']}",
    found["program"],
    found["target"],
    str(found["rows"]),
    str(found["accumulate"]),
    " x ".join(map(str, found["mesh"])),
    found["verdict"],
    f"{found['total'] / 1e9:.1f} of {found['capacity'] / 1e9:.1f}",
    number("flops", 1e-12, ".2f"),
    number("seconds", 1e3, ".1f", " ms"),
    number("share", 1, ".2f"),
    f"{moved / 1e9:.2f}" if moved else "-",
    number("compile_seconds", 1, ".0f") + f" at {level}" * bool(level),
    found["code"],
    "; ".join(dearest) or "-",
  )
