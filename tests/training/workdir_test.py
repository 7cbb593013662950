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
from videodiff_jax import glober
from videodiff_jax.locks import LockedError
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints
from videodiff_jax.training.state import TrainState
from videodiff_jax.training.workdir import (
  UNFINISHED_CONFIG,
  read_config,
  with_settings,
  write_config,
)


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


@pytest.mark.parametrize(
  ("key", "value"),
  [("model.kl_vae.channels", "wide"), ("model.kl_vae.multipliers", []), ("data.channels", None),
   ("diffusion.schedule.kind", "nope")],
)  # fmt: skip
def test_a_configuration_that_nothing_can_be_built_of_is_one_error(tmp_path, key, value) -> None:
  """From Python no range is checked; commands name the key."""
  saved = json.loads(glober_digits.get_config("smoke").to_json())
  *groups, name = key.split(".")
  tree = saved
  for group in groups:
    tree = tree[group]
  tree[name] = value
  (tmp_path / "config.json").write_text(json.dumps(saved))
  with pytest.raises(CheckpointError, match=r"config\.json: nothing can be built .*--mode=sample"):
    glober.Pipeline.from_workdir(tmp_path)


def test_numbers_that_are_not_finite_are_told(tmp_path) -> None:
  saved = json.loads(glober_digits.get_config("smoke").to_json())
  saved["sample"]["guidance_decoder"] = float("nan")
  (tmp_path / "config.json").write_text(json.dumps(saved))
  with pytest.raises(CheckpointError, match=r"config\.sample\.guidance_decoder is not finite"):
    read_config(tmp_path)
  config = glober_digits.get_config("smoke")
  with pytest.raises(ValueError, match=r"config\.sample\.decoder\.eta must be a finite number"):
    with_settings(config, {"decoder": {"eta": float("inf")}})
