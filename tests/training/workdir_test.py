"""What a workdir's folders promise."""

import os

import pytest

from configs import glober_digits
from experiments import train
from videodiff_jax.training.workdir import UNFINISHED_CONFIG, read_config, write_config


def test_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
  config = glober_digits.get_config("smoke")
  write_config(tmp_path, config)
  before = (tmp_path / "config.json").read_text()
  assert read_config(tmp_path).to_json() == config.to_json()

  def killed(*_: object) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", killed)
  config.seed = 7
  with pytest.raises(KeyboardInterrupt):
    write_config(tmp_path, config)
  assert (tmp_path / "config.json").read_text() == before


def test_a_kill_while_the_first_config_is_written_leaves_a_free_workdir(tmp_path) -> None:
  (tmp_path / UNFINISHED_CONFIG).write_text('{"se')
  config = glober_digits.get_config("smoke")
  train.claim_workdir(config, tmp_path)
  assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
  assert read_config(tmp_path).seed == config.seed
