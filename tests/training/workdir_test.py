"""What a workdir's folders promise."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import glober_digits
from experiments.setup.errors import UserError
from experiments.train import train
from videodiff_jax.locks import LockedError
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints
from videodiff_jax.training.state import TrainState
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
  with train.claimed(config, tmp_path):
    pass
  assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
  assert read_config(tmp_path).seed == config.seed


def test_two_trainings_in_one_workdir_and_the_second_changes_nothing(tmp_path) -> None:
  config = glober_digits.get_config("smoke")
  with train.claimed(config, tmp_path):
    before = (tmp_path / "config.json").read_bytes()
    config.train.kl_vae.steps += 1
    with pytest.raises(LockedError, match=rf"trains in {tmp_path} \(pid {os.getpid()} on .*since"):
      with train.claimed(config, tmp_path):
        raise AssertionError
    assert (tmp_path / "config.json").read_bytes() == before
  with train.claimed(config, tmp_path):
    assert read_config(tmp_path).train.kl_vae.steps == config.train.kl_vae.steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
  """A workdir with a checkpoint of one number and the configuration."""
  workdir, config = tmp_path_factory.mktemp("trained"), glober_digits.get_config("smoke")
  write_config(workdir, config)
  checkpoints = Checkpoints(workdir / "kl_vae" / "checkpoints")
  state = TrainState(jnp.int32(3), {}, {"w": jnp.ones(2)}, {}, jax.random.key(0), {})
  checkpoints.save(3, state, {"config": json.loads(config.to_json())})
  checkpoints.close()
  return workdir


@pytest.mark.parametrize("left", [None, b"", b'{"system": "glo', b"\x00" * 64, b"[]"])
def test_a_torn_config_is_that_of_the_newest_checkpoint(trained, caplog, left) -> None:
  config, file = glober_digits.get_config("smoke"), trained / "config.json"
  file.unlink()
  if left is not None:
    file.write_bytes(left)
  assert read_config(trained).to_json() == config.to_json()
  assert "checkpoints/3" in caplog.text
  with train.claimed(config, trained):
    assert json.loads(file.read_text()) == json.loads(config.to_json())
  config.data.image_size *= 2
  file.write_bytes(left or b"")
  with pytest.raises(UserError, match="another configuration"), train.claimed(config, trained):
    raise AssertionError
  write_config(trained, glober_digits.get_config("smoke"))


def test_a_torn_config_without_a_checkpoint_is_told(tmp_path) -> None:
  (tmp_path / "config.json").touch()
  with pytest.raises(CheckpointError, match="put back the file"):
    read_config(tmp_path)
