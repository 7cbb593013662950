"""Compiles the paper's configurations for TPUs and GPUs, and prints the table of all of it.

  python -m experiments.benchmarks.compiled [--only=glober_sky] [--again]

A program's figures are one JSON file in experiments/results/compiled/programs. A program that has
one, of the same configuration, JAX and compiler, is not compiled again, so that the command goes on
where it was stopped; --again compiles it all the same, after the code has changed. Large programs
take from minutes to an hour of one core, and up to 20 GB of memory.
"""

import dataclasses
import hashlib
import importlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments.compiled import figures, programs, targets
from experiments.compiled.fit import set_key
from videodiff_jax import whole_files
from videodiff_jax.training.writers import format_table

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "results" / "compiled" / "programs"
# The generator's stage from global features that --mode=cache made: every clip is another one.
_CACHED = {
  "data.cache": "required",
  "train.generator.batch_size": "256",
  "train.generator.draws_per_clip": "1",
}
# Changes of a configuration, by the words that name them in the table.
_CHANGES = {
  "": {},
  "cached": _CACHED,
  "cached-no-remat": _CACHED | {"remat": "none"},
}


class Row(NamedTuple):
  """A program to compile.

  Attributes:
    config: 'file:variants'.
    change: the name of changes to it.
    target: the target's name.
    program: the program's name.
  """

  config: str
  change: str
  target: str
  program: str

  @property
  def file(self) -> pathlib.Path:
    """The file of its figures."""
    parts = [part.replace(":", "_") for part in self if part]
    return FOLDER / f"{'.'.join(parts)}.json"

  def load(self) -> ConfigDict:
    """Loads its configuration."""
    file, _, variants = self.config.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(variants)
    for key, value in _CHANGES[self.change].items():
      set_key(config, key, value)
    return config


# The cheapest first.
ROWS = (
  Row("glober_digits:frames64", "", "v5e:2x2", "generator"),
  Row("glober_sky", "cached", "v5p:2x2x2", "generator"),
  Row("glober_sky", "cached-no-remat", "v5p:2x2x2", "generator"),
  Row("glober_sky", "cached", "v5e:2x4", "generator"),
  Row("glober_sky", "cached", "h100:8", "generator"),
  Row("glober_sky", "", "h100:8", "generator"),
  Row("glober_ucf101", "cached", "v5e:2x4", "generator"),
  Row("glober_ucf101", "cached", "h100:8", "generator"),
  Row("glober_sky", "", "v5e:2x4", "generator"),
  Row("glober_sky", "", "v5p:2x2x2", "generator"),
  Row("lgcvd_bair:release", "", "h100:8", "lgcvd"),
  Row("lgcvd_bair:release", "", "v5e:2x4", "lgcvd"),
  Row("glober_sky", "", "h100:8", "autoencoder"),
)
_ONLY = flags.DEFINE_string("only", "", "Compiles only the rows whose file's name begins so.")
_AGAIN = flags.DEFINE_bool("again", False, "Compiles what has its figures, too.")


def main(argv: list[str]) -> None:
  del argv
  for row in ROWS:
    if row.file.name.startswith(_ONLY.value):
      fill(row, _AGAIN.value)
  print(table())


def fill(row: Row, again: bool = False) -> None:
  """Compiles a program and writes its figures, unless they are there."""
  config, target = row.load(), targets.find(row.target)
  key = {
    "configuration": hashlib.sha256(config.to_json(sort_keys=True).encode()).hexdigest(),
    "jax": jax.__version__,
    "compiler": target.compiler,
  }
  if not again and row.file.exists() and json.loads(row.file.read_text())["key"] == key:
    logging.info("%s is there", row.file.name)
    return
  logging.info("compiling for %s", row.file.name)
  (program,) = programs.make(config, target, [row.program])
  found = dataclasses.asdict(figures.of(program, target))
  row.file.parent.mkdir(parents=True, exist_ok=True)
  whole_files.write_text(
    row.file, json.dumps(row._asdict() | {"key": key} | found, indent=1) + "\n"
  )


def table() -> str:
  """Returns a table of all figures that there are, in the order of ROWS."""
  heading = (
    "configuration", "program", "target", "rows", "verdict", "GB a device", "TFLOP", "estimated",
    "of peak", "GB moved", "s to compile",
  )  # fmt: skip
  return format_table([_line(row) for row in ROWS if row.file.exists()], heading)


def _line(row: Row) -> tuple[str, ...]:
  found: dict[str, Any] = json.loads(row.file.read_text())
  moved = sum(size for _, _, size in found["collectives"])
  return (
    f"{row.config} {row.change}".rstrip(),
    row.program,
    row.target,
    str(found["rows"]),
    found["verdict"],
    f"{found['total'] / 1e9:.1f} of {found['capacity'] / 1e9:.1f}",
    f"{found['flops'] / 1e12:.2f}",
    f"{found['seconds'] * 1e3:.1f} ms" if found["seconds"] else "-",
    f"{found['share']:.2f}" if found["share"] else "-",
    f"{moved / 1e9:.2f}",
    f"{found['compile_seconds']:.0f}",
  )


if __name__ == "__main__":
  app.run(main)
