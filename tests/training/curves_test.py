"""A run beside the curve of another: interpolated, one warning where it gets worse."""

import json
import pathlib
from typing import Any

import pytest

from videodiff_jax.training import curves

CURVE = {"margin": 0.1, "stages": {"toy": {"validation": [[100, 2.0], [200, 1.0]]}}}


def write(folder: pathlib.Path, content: Any) -> pathlib.Path:
  file = folder / "curves.json"
  file.write_text(content if isinstance(content, str) else json.dumps(content))
  return file


def test_expected_losses_are_interpolated_and_the_last_holds_on(tmp_path) -> None:
  expected = curves.read(write(tmp_path, CURVE))["toy"]
  assert [expected.at(step) for step in (99, 100, 150, 175, 200, 900)] == [
    None, 2.0, 1.5, 1.25, 1.0, 1.0
  ]  # fmt: skip


def test_one_warning_each_time_a_run_gets_worse_than_the_margin(tmp_path, caplog) -> None:
  expected = curves.read(write(tmp_path, CURVE))["toy"]
  caplog.set_level("INFO", logger="absl")
  run = [(50, 9.0), (100, 2.19), (120, 1.9), (150, 1.8), (160, 1.7), (175, 1.2), (200, 2.0)]
  for step, loss in run:
    expected.compare(step, loss)
  said = [(record.levelname, record.getMessage()) for record in caplog.records]
  assert [level for level, _ in said] == ["WARNING", "INFO", "WARNING"]
  warning = said[0][1]
  for part in ("Stage toy at step 150", "loss 1.8, +20 %", "against 1.5 in", "margin of 10 %"):
    assert part in warning
  assert "curves.json" in warning and "worse than" in warning
  assert "at step 175" in said[1][1] and "again within" in said[1][1]
  assert "at step 200" in said[2][1]


def test_a_loss_that_is_no_number_is_worse(tmp_path, caplog) -> None:
  curves.read(write(tmp_path, CURVE))["toy"].compare(150, float("nan"))
  assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "does not hold learning curves"),
    ([], "does not hold learning curves"),
    ({"stages": CURVE["stages"]}, "does not hold learning curves .*margin"),
    ({"margin": 0.1, "stages": {"toy": {}}}, "does not hold learning curves .*validation"),
    ({"margin": 0.1, "stages": {"toy": {"validation": [3]}}}, "does not hold learning curves"),
    ({"margin": -1, "stages": CURVE["stages"]}, "a loss or the margin"),
    ({"margin": 0.1, "stages": {"toy": {"validation": []}}}, "was not validated"),
  ],
)
def test_another_file_is_refused(tmp_path, content: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    curves.read(write(tmp_path, content))


def test_no_file(tmp_path) -> None:
  with pytest.raises(ValueError, match=r"nowhere\.json cannot be read"):
    curves.read(tmp_path / "nowhere.json")
