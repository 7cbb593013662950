from videodiff_jax.training.writers import MetricWriter


def test_what_a_stage_does_not_count_has_no_column(tmp_path, capsys) -> None:
  writer = MetricWriter(tmp_path)
  writer.write(50, {"loss": 0.5, "gradient_norm": 1.0, "steps_per_s": 4.0, "other": 2.0}, 90)
  writer.close()
  heading, line = capsys.readouterr().out.splitlines()
  assert heading.split() == ["step", "loss", "grad_norm", "steps/s", "other", "left"]
  assert line.split() == ["50", "0.5", "1", "4", "2", "01:30"]
