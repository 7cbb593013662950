"""The literals of LGC-VD's configurations: Sec. 4.2, the release, and the ablations of Table 5."""

import pytest

from configs import lgcvd_bair, lgcvd_cityscapes, lgcvd_digits, lgcvd_moving_mnist
from experiments.scoring import score_files
from experiments.setup import checks
from videodiff_jax.lgcvd import networks
from videodiff_jax.metrics.protocols import PROTOCOLS

PAPER = {"bair": (lgcvd_bair, 64, 192), "cityscapes": (lgcvd_cityscapes, 128, 32)}


@pytest.mark.parametrize("name", PAPER)
def test_section_4_2(name: str) -> None:
  file, image_size, batch = PAPER[name]
  config = file.get_config()
  assert (config.data.name, config.data.image_size) == (name, image_size)
  train = config.train.lgcvd
  assert train.batch_size == batch
  adam = train.optimizer
  assert (adam.learning_rate, adam.weight_decay, adam.decay) == (1e-4, 0.0, "constant")
  assert (adam.warmup_steps, adam.clip_norm) == (0, 0.0)
  assert (config.data.num_frames, config.fragment.num_frames, config.fragment.slots) == (14, 8, 2)
  schedule = config.diffusion.schedule
  assert (schedule.kind, schedule.num_timesteps) == ("cosine", 1000)
  process = config.diffusion.process
  assert (process.prediction_type, process.loss_norm) == ("v_prediction", "l2")
  assert (config.sample.sampler.kind, config.sample.sampler.num_steps) == ("ddpm", 100)
  assert config.objective.two_stage and config.model.sequence_encoder
  assert config.objective.second_stage == "paper"  # Sec. 3.3


def test_release() -> None:
  """lgcvd_release.md, section 10."""
  config = lgcvd_bair.get_config("release")
  assert config.model.decoder_attention == "mirrored"
  assert config.diffusion.process.loss_norm == "l1"
  assert config.diffusion.schedule.precision == "float32"
  assert config.diffusion.schedule.max_beta == 0.9999
  shares = {task: share for task, share in config.tasks.shares.items() if share}
  released = {"prediction": 0.45, "generation": 0.4, "interpolation": 0.05, "random": 0.1}
  assert (config.tasks.per, shares) == ("batch", released)
  objective = config.objective
  assert (objective.updates, objective.clip_estimate) == ("two", False)
  assert (objective.two_stage, objective.second_stage) == (True, "release")
  sample = config.sample
  assert (sample.last_fragment, sample.given_frames) == ("right_aligned", "redrawn")
  assert (sample.encoder_weights, sample.average_features) == ("raw", True)
  assert (sample.sampler.grid, sample.sampler.clip) == ("spaced", True)
  ema = config.train.lgcvd.ema
  assert (ema.decay, ema.interval, ema.copy_until) == (0.995, 10, 2000)


@pytest.mark.parametrize(
  ("variant", "two_stage", "encoder"),
  [
    ("", True, True),
    ("no_two_stage", False, True),
    ("no_encoder", True, False),
    ("baseline", False, False),
  ],
)
def test_table_5(variant: str, two_stage: bool, encoder: bool) -> None:
  config = lgcvd_digits.get_config(variant)
  built = networks.build(config)
  assert networks.make_objective(config, built).two_stage == two_stage
  assert (built.model.encoder is not None) == encoder
  assert built.process.prediction_type == "v_prediction"


def test_eps_joins_every_variant() -> None:
  for variant in ("release", "baseline", "smoke"):
    config = lgcvd_digits.get_config(f"{variant},eps")
    checks.check_config(config)
    assert networks.build(config).process.prediction_type == "epsilon"


def test_digits_are_drawn_as_in_the_paper_and_their_mean_is_named() -> None:
  digits, bair = lgcvd_digits.get_config(), lgcvd_bair.get_config()
  assert digits.sample.sampler.to_dict() == bair.sample.sampler.to_dict() | {"num_steps": 25}
  mean = lgcvd_digits.get_config("mean")
  checks.check_config(mean)
  assert score_files.drawn_by(mean.sample.to_dict()).endswith("conditional mean, not a sample.")
  assert "mean" not in score_files.drawn_by(digits.sample.to_dict())
  assert checks._lasting(mean) == checks._lasting(digits)  # of the same workdir
  with pytest.raises(ValueError, match="Unknown variant 'mean'"):
    lgcvd_bair.get_config("mean")


def test_the_long_run_of_digits_samples_as_the_paper_does_and_a_gpu_s_is_the_same() -> None:
  long, gpu, bair = (
    lgcvd_digits.get_config("long"), lgcvd_digits.get_config("gpu"), lgcvd_bair.get_config()
  )  # fmt: skip
  for config in (long, gpu):
    checks.check_config(config)
    assert config.sample.sampler.to_dict() == bair.sample.sampler.to_dict()
    assert config.objective.second_stage == "paper"
  here, there = checks._lasting(long), checks._lasting(gpu)
  differ = {key for key in here if here[key] != there[key]}
  assert differ == {"train.lgcvd.batch_size"}


def test_digits_are_long_enough_to_be_predicted() -> None:
  config = lgcvd_digits.get_config()
  assert config.sample.past + config.sample.num_frames == 30 == config.data.video_frames


@pytest.mark.parametrize(
  ("variant", "dataset", "past", "ahead", "protocol"),
  [
    ("", "moving_mnist", 10, 10, "moving_mnist"),
    ("p5", "stochastic_mnist", 5, 10, "mcvd_smmnist"),
    ("p2", "moving_mnist", 2, 28, "moving_mnist_p2"),
  ],
)
@pytest.mark.parametrize("size", ["", "small"])
def test_moving_mnist_is_predicted_as_published_work_does(
  variant: str, dataset: str, past: int, ahead: int, protocol: str, size: str
) -> None:
  config = lgcvd_moving_mnist.get_config(",".join(filter(None, (variant, size))))
  checks.check_config(config)
  assert (config.data.name, config.data.image_size, config.data.channels) == (dataset, 64, 1)
  assert (config.sample.past, config.sample.num_frames) == (past, ahead)
  scored = PROTOCOLS[config.evaluate.protocol]
  assert (scored.name, scored.past, scored.num_frames) == (protocol, past, ahead)
  # All given frames are the first fragment's, two fragments are trained, and videos hold both.
  fragment = config.fragment
  assert fragment.slots == past
  assert config.data.num_frames == 2 * fragment.num_frames - fragment.slots
  assert config.data.video_frames >= max(config.data.num_frames, past + ahead)
