"""Metrics: on the screen, in a file, as curves."""

import json
import resource

import pytest
from PIL import Image

from experiments.workdirs import provenance
from videodiff_jax.training.writers import (
  MetricWriter,
  best_validation,
  both_lines,
  panel_names,
  plot_curves,
  read_metrics,
)


def test_what_a_stage_does_not_count_has_no_column(tmp_path, capsys) -> None:
  writer = MetricWriter(tmp_path)
  writer.write(50, {"loss": 0.5, "gradient_norm": 1.0, "steps_per_s": 4.0, "other": 2.0}, 90)
  writer.close()
  heading, line = capsys.readouterr().out.splitlines()
  assert heading.split() == ["step", "loss", "grad_norm", "steps/s", "other", "left"]
  assert line.split() == ["50", "0.5", "1", "4", "2", "01:30"]


def test_validation_has_lines_of_its_own_and_no_panel(tmp_path, capsys) -> None:
  writer = MetricWriter(tmp_path)
  writer.write(50, {"loss": 0.5, "steps_per_s": 4.0}, 90)
  writer.write_validation(50, {"validation_loss": 0.75, "validation_kl": 2.0})
  writer.write_validation(60, {"validation_loss": 0.875, "validation_kl": 1.0})
  writer.write_validation(60, {"validation_loss": 0.625, "validation_kl": 1.0})  # gone on with
  writer.write(100, {"loss": 0.25, "steps_per_s": 4.0}, 0)
  writer.write_validation(100, {"validation_loss": float("nan"), "validation_kl": 3.0})
  writer.close()
  assert "validation at step 50: loss 0.75, kl 2" in capsys.readouterr().out
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [50, 50, 60, 60, 100, 100]
  rows = read_metrics(tmp_path / "metrics.jsonl")
  assert [row["step"] for row in rows] == [50, 60, 100]
  assert rows[0] == {
    "step": 50, "loss": 0.5, "steps_per_s": 4.0, "validation_loss": 0.75, "validation_kl": 2.0
  }  # fmt: skip
  assert panel_names(rows) == ["loss", "steps_per_s", "kl"]
  assert both_lines(rows, "loss")["training"] == [(50, 0.5), (100, 0.25)]
  assert both_lines(rows, "loss")["validation"][:2] == [(50, 0.75), (60, 0.625)]
  assert both_lines(rows, "kl") == {"validation": [(50, 2.0), (60, 1.0), (100, 3.0)]}
  assert best_validation(rows) == (60, 0.625)
  assert best_validation([{"step": 1, "loss": 1.0}]) is None
  plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
  with Image.open(tmp_path / "curves.png") as image:
    assert image.width > 900  # three panels


def test_a_full_disk_stops_the_writer_with_the_file_s_name(tmp_path) -> None:
  """And no line after it is lost, nor does anything wait for a thread that has died."""
  writer = MetricWriter(tmp_path)
  writer.write(1, {"loss": 1.0}, 0)
  room = (tmp_path / "metrics.jsonl").stat().st_size + 5
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
  try:
    for _ in range(30):
      with pytest.raises(OSError) as caught:
        writer.write(2, {"loss": 1.0}, 0)
      assert caught.value.filename == str(tmp_path / "metrics.jsonl")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  writer.write(3, {"loss": 1.0}, 0)
  writer.close()
  assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]


@pytest.mark.parametrize("name", ["commands.jsonl", "metrics.jsonl"])
def test_lines_that_are_not_ours_are_passed_over(tmp_path, name, caplog) -> None:
  """And what is written after them is not lost."""
  file, writer = tmp_path / name, MetricWriter(tmp_path)

  def write() -> None:
    if name == "commands.jsonl":
      provenance.record(tmp_path)
    else:
      writer.write(3, {"loss": 1.0}, 0)

  def read() -> list:
    return provenance.read(tmp_path) if name == "commands.jsonl" else read_metrics(file)

  write()
  (entry,) = read()
  ours = file.read_bytes()
  foreign = [
    b"", b"[1]", b'{"note": 1}', b"\x00\xff\xfe", b"null", b'{"command": 3, "step": "four"}',
    b'{"command": "\'", "code": "a", "step": 5, "loss": "low"}', b'{"step": 1' + b"0" * 400 + b"}",
    b'{"step": 6, "lo',
  ]  # fmt: skip
  for line in foreign:
    caplog.clear()
    file.write_bytes(ours + line)
    assert read() == [entry]
    assert not line or f"{file}, line 2: " in caplog.text
    write()
    assert read() == ([entry] * 2 if name == "commands.jsonl" else [entry])
  writer.close()
  if name == "metrics.jsonl":
    plot_curves(file, tmp_path / "curves.png")
