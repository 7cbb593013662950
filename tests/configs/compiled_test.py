"""What was compiled is what is trained, fits, and is in the table; `:pod` divides everywhere."""

import json

import pytest

from experiments.benchmarks import compiled, compiled_table
from experiments.setup import checks
from tests.configs.names import load

PROGRAMS = [(row, json.loads(row.file.read_text())) for row in compiled.ROWS if row.file.exists()]
STEPS = [(row, found) for row, found in PROGRAMS if row.program in row.load().stages]
FIGURES = json.loads((compiled.README.parent / "figures.json").read_text())
PAPER = (
  "glober_sky", "glober_sky:frames128", "glober_taichi", "glober_ucf101", "glober_ucf101:cond",
  "glober_ucf101:class_names", "glober_ucf101:128px", "glober_ucf101:v8x8x64",
  "glober_ucf101:v16x16x32", "glober_ucf101:frames128", "lgcvd_bair", "lgcvd_bair:release",
  "lgcvd_cityscapes", "lgcvd_cityscapes:release",
)  # fmt: skip
# The targets of `:pod`, and their numbers of devices.
POD = {"v5p:2x2x4": 16, "v5e:4x8": 32, "h100:8": 8}


def of_pod(name: str) -> str:
  return f"{name},pod" if ":" in name else f"{name}:pod"


def part(name: str, stage: str) -> int:
  """Clips in one part of a step's batch."""
  settings = load(name).train[stage]
  return settings.batch_size // settings.get("accumulate", 1)


def witness(name: str, stage: str, table: str = "no_more_than") -> str:
  """The configuration whose step of this stage takes no less; itself, if it was compiled."""
  return FIGURES[table].get(name, {}).get(stage, name)


def fits(name: str, stage: str, target: str) -> bool:
  file = compiled.Row(name, "", target, stage).file
  return file.exists() and json.loads(file.read_text())["verdict"] == "fits"


@pytest.mark.parametrize(("row", "found"), STEPS, ids=[row.file.stem for row, _ in STEPS])
def test_a_figure_is_of_the_batch_that_is_trained(row: compiled.Row, found: dict) -> None:
  settings = row.load().train[row.program]
  parts = settings.get("accumulate", 1)
  assert (found["rows"], found["accumulate"]) == (settings.batch_size, parts)


@pytest.mark.parametrize("name", PAPER)
def test_every_stage_fits_8_gpus_as_it_is(name: str) -> None:
  """Or another one does, whose step takes no less."""
  for stage in load(name).stages:
    other = witness(name, stage)
    assert fits(other, stage, "h100:8"), stage
    assert part(name, stage) <= part(other, stage)


@pytest.mark.parametrize("name", PAPER)
def test_pod_keeps_the_paper_s_batches_and_divides_them_over_every_target(name: str) -> None:
  config, paper = load(of_pod(name)), load(name)
  for stage in config.stages:
    assert config.train[stage].batch_size == paper.train[stage].batch_size
  for devices in POD.values():
    checks.check_batches(config, config.stages, devices)
    assert devices % config.mesh.fsdp == 0
  # The order of variants does not matter.
  assert load(of_pod(name).replace(":", ":pod,", 1)) == config


def test_pod_fits_the_chips_of_least_memory() -> None:
  """Those of a v5e; what was not compiled for them is listed.

  A v5p has six times a v5e's bytes for twice the clips a chip. On 8 H100s `:pod` takes less than
  the configuration without it, which has more clips a part and a whole state, and fits.
  """
  missing = set()
  for name in PAPER:
    for stage in load(name).stages:
      other = witness(name, stage, "no_more_than_pod")
      if not fits(of_pod(other), stage, "v5e:4x8"):
        missing.add((other, stage))
      assert part(of_pod(name), stage) <= part(name, stage)
  assert missing == {tuple(one) for one in FIGURES["pod_not_compiled"]}


def test_the_table_is_that_of_the_files() -> None:
  """`python -m experiments.benchmarks.compiled` writes both."""
  assert compiled_table.read(compiled.README) == compiled.table()
  files = {row.file for row in compiled.ROWS}
  assert set(compiled.FOLDER.glob("*.json")) <= files
