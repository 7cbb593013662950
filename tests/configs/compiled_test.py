"""Every stage of every paper configuration has compiled bytes below 55 GB, of the batch it has."""

import json

import pytest

from experiments.setup import checks
from experiments.tools import paper_map
from tests.configs.names import load

FIGURES = json.loads((paper_map.ROOT / "experiments/results/compiled/figures.json").read_text())
MEASURED = {(row["config"], row["stage"]): row for row in FIGURES["now"]}
PAPER = (
  "glober_sky", "glober_sky:frames128", "glober_taichi", "glober_ucf101", "glober_ucf101:cond",
  "glober_ucf101:class_names", "glober_ucf101:128px", "glober_ucf101:v8x8x64",
  "glober_ucf101:v16x16x32", "glober_ucf101:frames128", "lgcvd_bair", "lgcvd_bair:release",
  "lgcvd_cityscapes", "lgcvd_cityscapes:release",
)  # fmt: skip


def part(name: str, stage: str) -> int:
  """Clips in one part of a step's batch."""
  settings = load(name).train[stage]
  return settings.batch_size // settings.get("accumulate", 1)


@pytest.mark.parametrize("row", FIGURES["now"], ids=lambda row: f"{row['config']} {row['stage']}")
def test_a_figure_is_of_the_batch_that_is_trained_and_leaves_room(row: dict) -> None:
  settings = load(row["config"]).train[row["stage"]]
  assert (row["batch"], row["accumulate"]) == (settings.batch_size, settings.get("accumulate", 1))
  assert row["total_gb"] < 55


@pytest.mark.parametrize("name", PAPER)
def test_every_stage_has_a_figure_or_a_step_that_takes_no_less(name: str) -> None:
  for stage in load(name).stages:
    if (name, stage) not in MEASURED:
      other = FIGURES["no_more_than"][name][stage]
      assert (other, stage) in MEASURED
      assert part(name, stage) <= part(other, stage)


# What `:pod` is for, by the number of devices.
POD = {"v5e:4x8": 32, "v5p:2x2x4": 16, "h100:8": 8}


def of_pod(name: str) -> str:
  return f"{name},pod" if ":" in name else f"{name}:pod"


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
