"""Compiles the paper's configurations for TPUs and GPUs, and writes the table of all of it.

  python -m experiments.benchmarks.compiled [--only=glober_sky] [--again]

A program's figures are one JSON file in experiments/results/compiled/programs. A program that has
one, of the same configuration, JAX and compiler, is not compiled again, so that the command goes on
where it was stopped; --again compiles it all the same, after the code has changed. Large programs
take from minutes to an hour of one core, and up to 20 GB of memory. With JAX_OPTIMIZATION_LEVEL=O1
a TPU's compiler takes a fifth of that; the memory that it then finds is kept, but no times.
"""

import dataclasses
import hashlib
import importlib
import json
import pathlib
from typing import NamedTuple

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments.benchmarks import compiled_table
from experiments.compiled import figures, programs, targets
from experiments.compiled.fit import set_key
from experiments.workdirs import provenance
from videodiff_jax import whole_files

README = pathlib.Path(__file__).resolve().parents[1] / "results" / "compiled" / "README.md"
FOLDER = README.parent / "programs"
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


# What `:pod` is for.
POD = ("v5p:2x2x4", "v5e:4x8", "h100:8")
# Those that take most of each kind.
_GLOBER = ("glober_sky:pod", "glober_ucf101:pod", "glober_ucf101:frames128,pod")
_LGCVD = ("lgcvd_bair:release,pod", "lgcvd_cityscapes:release,pod")


def _of_pod(program: str, configs: tuple[str, ...], change: str = "") -> list[Row]:
  return [Row(config, change, target, program) for config in configs for target in POD]


# The cheapest first.
ROWS = (
  Row("glober_digits:frames64", "", "v5e:2x2", "generator"),
  *_of_pod("generator", _GLOBER, "cached"),
  *_of_pod("sample_features", _GLOBER[:1]),
  *_of_pod("sample_frames", _GLOBER[:1]),
  *_of_pod("sample_fragment", _LGCVD),
  *_of_pod("kl_vae", _GLOBER[:1]),
  *_of_pod("generator", _GLOBER),
  *_of_pod("lgcvd", _LGCVD),
  *_of_pod("autoencoder", _GLOBER),
  # Without `:pod`, as the paper had it: on 8 devices, with the whole state on each.
  *(
    Row("glober_sky", change, "v5p:2x2x2", "generator") for change in ("cached", "cached-no-remat")
  ),
  *(Row("glober_sky", "cached", target, "generator") for target in ("v5e:2x4", "h100:8")),
  Row("glober_ucf101", "cached", "h100:8", "generator"),
  *(Row(f"glober_{name}", "", "h100:8", "kl_vae") for name in ("sky", "taichi")),
  *(Row(f"glober_{name}", "", "h100:8", "generator") for name in ("ucf101", "ucf101:frames128")),
  *(Row(f"lgcvd_{name}:release", "", "h100:8", "lgcvd") for name in ("bair", "cityscapes")),
  *(
    Row(f"glober_{name}", "", "h100:8", "autoencoder")
    for name in ("sky", "taichi", "ucf101", "ucf101:frames128")
  ),
)
_ONLY = flags.DEFINE_string("only", "", "Compiles only the rows whose file's name begins so.")
_AGAIN = flags.DEFINE_bool("again", False, "Compiles what has its figures, too.")


def main(argv: list[str]) -> None:
  del argv
  for row in ROWS:
    if row.file.name.startswith(_ONLY.value):
      fill(row, _AGAIN.value)
      compiled_table.write(README, table())
  print(table())


def fill(row: Row, again: bool = False) -> None:
  """Compiles a program and writes its figures, unless they are there."""
  config, target = row.load(), targets.find(row.target)
  key = {
    "configuration": hashlib.sha256(config.to_json(sort_keys=True).encode()).hexdigest(),
    "jax": jax.__version__,
    "compiler": target.compiler,
  }
  if (level := jax.config.jax_optimization_level) != "UNKNOWN":
    key["optimization"] = level
  if not again and row.file.exists() and json.loads(row.file.read_text())["key"] == key:
    logging.info("%s is there", row.file.name)
    return
  logging.info("compiling for %s", row.file.name)
  (program,) = programs.make(config, target, [row.program])
  parts = config.train.get(row.program, {}).get("accumulate", 1)
  made = row._asdict() | {"key": key, "code": provenance.code_version(), "accumulate": parts}
  made |= dataclasses.asdict(figures.of(program, target))
  row.file.parent.mkdir(parents=True, exist_ok=True)
  whole_files.write_text(row.file, json.dumps(made, indent=1) + "\n")


def table() -> str:
  """Returns a table of all figures that there are, in the order of ROWS."""
  return compiled_table.markdown([row.file for row in ROWS if row.file.exists()])


if __name__ == "__main__":
  app.run(main)
