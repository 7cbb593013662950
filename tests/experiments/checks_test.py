"""Configurations that nothing could be made of, and workdirs that are another run's."""

import pathlib
import re
import types
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import glober_digits, glober_ucf101
from experiments.setup import checks


def changed(**keys: Any) -> ConfigDict:
  """The smoke configuration of digits with keys written data__dir for data.dir."""
  config = glober_digits.get_config("smoke")
  for key, value in keys.items():
    *groups, last = key.split("__")
    branch = config
    for group in groups:
      branch = branch[group]
    branch[last] = value
  return config


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    ({"system": "lgc"}, "config.system is 'lgc'. Did you mean 'lgcvd'"),
    ({"condition": "words"}, "config.condition is 'words'. Choose one of: none, class, text"),
    ({"precision": "fp16"}, "Choose one of: float32, bfloat16"),
    ({"remat": "all"}, "Choose one of: none, blocks"),
    ({"data__sampling": "all"}, "Choose one of: video, clip"),
    ({"data__frame_time": "seconds"}, "Choose one of: index / F, index / (F - 1)"),
    ({"model__frame_control__which": "up"}, "Choose one of: all, down"),
    ({"model__video_encoder__head": "late"}, "Choose one of: joint, split_first"),
    ({"model__discriminator__on": "both"}, "Choose one of: pixels, latents"),
    ({"loss__cra__weighting": "snr"}, "config.loss.cra.weighting is 'snr'. Choose one of: uniform"),
    ({"loss__cra__real": "all"}, "Choose one of: frames, reconstructions"),
    ({"loss__cra__loss": "wgan"}, "cra.loss is 'wgan'. Choose one of: hinge, balanced_hinge"),
    ({"loss__kl_vae__reconstruction": "l3"}, "Choose one of: l1, l2"),
    (
      {"condition": "none", "sample__guidance_form": "text", "sample__guidance_decoder": 3.0},
      "config.condition is 'none'. Choose 'single'",
    ),
    ({"sample__noise": "none"}, "Choose one of: individual, shared, mixed"),
    ({"train__kl_vae__optimizer__decay": "linear"}, "Choose one of: constant, cosine"),
    ({"stages": ("kl_vae", "dit")}, "Choose one of: kl_vae, autoencoder, generator"),
    ({"stages": ("generator", "kl_vae")}, "must keep the order kl_vae, autoencoder, generator"),
    ({"diffusion__schedule__kind": "exp"}, "Choose one of: scaled_linear, linear, cosine"),
    (
      {"diffusion__decoder__prediction_type": "eps"},
      "prediction_type is 'eps'. Choose one of: epsilon, v_prediction, sample",
    ),
    (
      {"sample__generator__kind": "heun"},
      "config.sample.generator.kind is 'heun'. Choose one of: ddim, ddpm",
    ),
    ({"sample__decoder__num_steps": 2000}, "config.sample.decoder: Sampling steps must be"),
    ({"data__num_classes": 0}, "config.data.num_classes is 0"),
    ({"data__num_keyframes": 17}, "is 17; it must be between 1 and the 16 frames"),
    ({"data__num_keyframes": 0}, "config.data.num_keyframes is 0; it must lie in [1, 10000]"),
    ({"data__num_targets": 18}, "config.data.num_targets is 18"),
    ({"data__num_targets": 3, "loss__lambda_cra": 0.1}, "config.data.num_targets (3) must be even"),
    ({"data__num_frames": 1, "data__num_keyframes": 1}, "a clip has at least 2"),
    ({"data__stride": 0}, "config.data.stride is 0; it must lie in [1, 10000] (stored frames)"),
    ({"evaluate__num_fake": 1}, "is 1; it must lie in [2, 1e6] (clips; FVD needs at least 2)"),
    ({"train__generator__accumulate": 0}, "config.train.generator.accumulate is 0"),
    ({"train__kl_vae__validate_every": -1}, "train.kl_vae.validate_every is -1; it must lie"),
    ({"model__unet__num_heads": 3}, "config.model.unet: 8 channels do not split into heads"),
    ({"model__video_encoder__num_head_channels": 3}, "config.model.video_encoder: 8 channels do"),
    ({"model__discriminator__num_head_channels": 16}, "config.model.discriminator: 8 channels do"),
    ({"model__dit__num_heads": 7}, "config.model.dit.num_heads (7) does not divide config.model"),
    ({"model__dit__patch_size": 3}, "config.model.dit.patch_size (3) does not divide the side"),
    ({"model__dit__width": 18, "model__dit__num_heads": 3}, "dit.width (18) must be a multiple"),
    ({"diffusion__schedule__beta_start": 0.5}, "beta_start (0.5) is above beta_end (0.012)"),
    (
      {"ablation__variants__no_cra__loss__lambda_cra": -1.0},
      "config.ablation.variants.no_cra.loss.lambda_cra is -1.0; it must lie in [0, 1e6]",
    ),
    (
      {"data__image_size": 36},
      "config.data.image_size (36) must be a multiple of 8: a factor 2 for each multiplier",
    ),
  ],
)  # fmt: skip
def test_refused(keys: dict[str, Any], message: str) -> None:
  with pytest.raises(checks.UserError, match=re.escape(message)):
    checks.check_config(changed(**keys))


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"system": "glober"}, "get_config returns a dict; it must return a ConfigDict"),
    (ConfigDict(), "--config lacks keys: system. Start from"),
    (ConfigDict({"system": "gan"}), "config.system is 'gan'. Choose one of: glober, lgcvd"),
    (ConfigDict({"system": "lgcvd"}), "--config lacks keys: after, checksums"),
  ],
)
def test_what_is_no_configuration_is_told(given: Any, message: str) -> None:
  with pytest.raises(checks.UserError, match=re.escape(message)):
    checks.check_given(given)


def test_a_key_that_nothing_reads_is_told() -> None:
  """Where a file sets it; other settings of samplers and schedules are read."""
  config = changed()
  config.diffusion.schedule.max_beta = 0.9
  config.sample.decoder.clip = True
  checks.check_given(config)
  config.data.strid = 2
  with pytest.raises(checks.UserError, match=r"no key config\.data\.strid\. Did you mean 'config"):
    checks.check_given(config)


def test_odd_targets_need_no_pairs_without_cra() -> None:
  checks.check_config(changed(data__num_targets=3, loss__lambda_cra=0.0))


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (
      {"train__kl_vae__batch_size": 12},
      "batch_size (12) must be a multiple of the 8 device(s)",
    ),
    ({"train__kl_vae__accumulate": 3}, "accumulate (3): for example 24"),
    ({"mesh__fsdp": 3}, "config.mesh (data=-1, fsdp=3) does not fit 8 device(s)"),
    ({"mesh__data": 4}, "may be: 8 x 1, 4 x 2, 2 x 4, 1 x 8"),
    ({"data__name": "ucf101"}, "config.data.dir is empty"),
    (
      {"data__image_size": 4096, "train__kl_vae__batch_size": 65536},
      "A batch of stage kl_vae takes 1100 GB; the limit is 32",
    ),
  ],
)
def test_training_refused(keys: dict[str, Any], message: str) -> None:
  with pytest.raises(checks.UserError, match=re.escape(message)):
    checks.check_training(changed(**keys))


def test_training_accepted() -> None:
  """On the eight devices of the tests; whatever number the mesh and the batch share."""
  for keys in ({}, {"mesh__fsdp": 4}, {"mesh__data": 2, "mesh__fsdp": 4}):
    checks.check_training(changed(**keys))
  accumulated = {"train__kl_vae__batch_size": 24, "train__kl_vae__accumulate": 3}
  checks.check_training(changed(**accumulated))


@pytest.mark.parametrize(
  ("store", "message"),
  [
    (
      {"image_size": 64},
      "config.data.image_size is 32. Prepare another store (--size=32), or give "
      "--config.data.image_size=64.",
    ),
    ({"channels": 3}, "channels 3, but config.data.channels is 1. Give --config.data.channels=3."),
    ({"classes": ["a", "b"]}, "2 classes, but config.data.num_classes is 10"),
  ],
)
def test_store_refused(store: dict[str, Any], message: str) -> None:
  right = {"image_size": 32, "channels": 1, "classes": list("0123456789")}
  checks.check_store(changed(), types.SimpleNamespace(**right))
  with pytest.raises(checks.UserError, match=re.escape(message)):
    checks.check_store(changed(), types.SimpleNamespace(**right | store))


def test_a_run_whose_data_set_is_no_longer_made_is_told_unless_its_store_is_there(tmp_path) -> None:
  checks.check_removed("robot_push", str(tmp_path))
  checks.check_removed("bair", str(tmp_path / "missing"))
  with pytest.raises(checks.UserError, match="doom stands in its place"):
    checks.check_removed("robot_push", str(tmp_path / "missing"))


WORKDIR = pathlib.Path("runs/digits")


@pytest.mark.parametrize(
  "keys",
  [
    {"model__unet__channels": 16},
    {"data__num_frames": 32},
    {"diffusion__decoder__prediction_type": "epsilon"},
    {"loss__lambda_kl": 1e-5},
    {"train__kl_vae__batch_size": 16},
    {"train__autoencoder__optimizer__learning_rate": 1.0},
    {"seed": 1},
  ],
)
def test_another_run(keys: dict[str, Any]) -> None:
  key = next(iter(keys)).replace("__", ".")
  with pytest.raises(checks.UserError, match=f"another configuration:\n  config.{key}: "):
    checks.check_same_run(changed(), changed(**keys), WORKDIR)


def test_the_same_run_may_change_what_makes_no_other_model() -> None:
  now = changed(
    mesh__fsdp=4, precision="bfloat16", remat="blocks", sample__num_videos=5, after=(),
    evaluate__num_fake=9, data__dir="elsewhere", data__threads=7, train__kl_vae__steps=99,
    train__kl_vae__log_every=9, train__kl_vae__preview_every=9, train__kl_vae__keep=9,
    train__kl_vae__checkpoint_every=9, train__kl_vae__accumulate=2,
    train__kl_vae__validate_every=9, expected="curves.json",
  )  # fmt: skip
  checks.check_same_run(changed(), now, WORKDIR)


def test_another_run_lists_at_most_ten_keys() -> None:
  with pytest.raises(checks.UserError) as error:
    checks.check_same_run(changed(), glober_ucf101.get_config(), WORKDIR)
  assert str(error.value).count("\n  config.") == 10
