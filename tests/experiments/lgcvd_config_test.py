"""What LGC-VD's configurations refuse before a run, and what --mode=plan says of them."""

import pytest

from configs import lgcvd_bair, lgcvd_digits
from experiments.setup import checks
from experiments.train import plan
from videodiff_jax import lgcvd


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    ({"model.decoder_attention": "both"}, "Choose one of: matched, mirrored"),
    ({"data.num_frames": 13}, "two fragments of 8 that share 2 frames take 14"),
    (
      {"objective.updates": "three"},
      "config.objective.updates is 'three'. Choose one of: two",
    ),
    ({"tasks.shares.prediction": 0.9}, "must be positive and sum to 1"),
    ({"tasks.per": "day"}, "Choose one of: sample, batch"),
    (
      {"sample.last_fragment": "pad"},
      "sample.last_fragment is 'pad'. Choose one of: truncate",
    ),
    ({"sample.encoder_weights": "best"}, "Choose one of: ema, raw"),
    ({"sample.precision": "float16"}, "config.sample.precision is 'float16'"),
    (
      {"sample.sampler.num_steps": 1, "sample.sampler.grid": "spaced"},
      "config.sample: grid='spaced' needs 2 steps",
    ),
    ({"sample.past": 3}, "config.sample: 3 past and 0 future frames do not fit the 2 slots"),
    ({"sample.gap": 0}, "config.sample.gap is 0; it must lie in [1, 10000]"),
    ({"model.head_channels": 5}, "config.model.head_channels (5) does not divide the 16 channels"),
    ({"tasks.shares.prediction": 0.1}, "config.tasks and config.objective: The tasks' shares must"),
    ({"evaluate.protocol": "ours"}, "config.evaluate.protocol is 'ours'. Choose one of: standard"),
    ({"diffusion.process.prediction_type": "x"}, "prediction_type is 'x'. Choose one of"),
    ({"stages": ("generator",)}, "config.stages[0] is 'generator'. Choose one of: lgcvd"),
  ],
)
def test_refused(keys: dict, message: str) -> None:
  config = lgcvd_digits.get_config("smoke")
  config.update_from_flattened_dict(keys)
  with pytest.raises(checks.UserError) as error:
    checks.check_config(config)
  assert message in str(error.value)


def test_a_batch_must_fit_the_devices() -> None:
  config = lgcvd_digits.get_config("smoke")
  config.train.lgcvd.batch_size = 12
  with pytest.raises(checks.UserError, match=r"multiple of the 8 device\(s\): for example 16"):
    checks.check_training(config)


def test_plan_gives_the_published_figures() -> None:
  """lgcvd_release.md, section 9."""
  figures = plan.module_figures(lgcvd.pipeline.build(lgcvd_bair.get_config("release")))
  rows = {name: (count, flops / 1e9) for name, count, flops, _ in figures}
  assert rows["UNet"] == (63_403_032, pytest.approx(39.57, rel=1e-2))
  assert rows["sequence encoder"] == (33_104_640, pytest.approx(17.12, rel=1e-2))


def test_plan_without_an_encoder() -> None:
  config = lgcvd_digits.get_config("smoke,baseline")
  text = plan.show(config)
  assert "UNet" in text and "sequence encoder" not in text
  whole = plan.stage_figures(lgcvd_digits.get_config("smoke"), "lgcvd")
  assert plan.stage_figures(config, "lgcvd").parameters < whole.parameters
