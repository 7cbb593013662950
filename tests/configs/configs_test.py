"""The literals of the paper's configurations, and what every configuration must do."""

import importlib
import re

import jax
import pytest

from experiments.setup import checks, systems
from tests.configs.names import FILES, PAPER, VARIANTS, load
from videodiff_jax.glober import networks, stages
from videodiff_jax.pretrained import architectures

GPUS = 8


# ---- the table of the paper's values (Sec. 4.1 and Table 8; generator: May 2023)


@pytest.mark.parametrize(
  ("name", "image_size", "f_frame", "batch", "rate", "num_steps"),
  [
    ("glober_ucf101", 256, 8, 40, 1e-5, 80_000),
    ("glober_ucf101:128px", 128, 4, 40, 1e-5, 80_000),
    ("glober_sky", 256, 8, 32, 1e-4, 40_000),
    ("glober_taichi", 128, 4, 32, 5e-5, 40_000),
  ],
)
def test_autoencoder(
  name: str, image_size: int, f_frame: int, batch: int, rate: float, num_steps: int
) -> None:
  config = load(name)
  assert config.data.image_size == image_size
  assert 2 ** (len(config.model.kl_vae.multipliers) - 1) == f_frame
  train = config.train.autoencoder
  assert train.batch_size == batch * GPUS
  assert train.optimizer.learning_rate == rate
  assert train.steps == num_steps


@pytest.mark.parametrize(
  ("name", "width", "depth", "num_steps", "rate"),
  [
    ("glober_ucf101", 1152, 28, 200_000, 1e-4),
    ("glober_ucf101:128px", 1152, 28, 200_000, 1e-4),
    ("glober_sky", 1024, 20, 100_000, 5e-5),
    ("glober_taichi", 1024, 20, 100_000, 5e-5),
  ],
)
def test_generator(name: str, width: int, depth: int, num_steps: int, rate: float) -> None:
  config = load(name)
  dit, train = config.model.dit, config.train.generator
  assert (dit.width, dit.depth, dit.num_heads, dit.patch_size) == (width, depth, 16, 1)
  assert (train.batch_size * train.draws_per_clip, train.steps) == (32 * GPUS, num_steps)
  assert train.optimizer.learning_rate == rate


@pytest.mark.parametrize("name", PAPER)
def test_networks_of_table_8(name: str) -> None:
  config = load(name)
  encoder, unet = config.model.video_encoder, config.model.unet
  assert (encoder.channels, encoder.multipliers, encoder.blocks) == (320, (1, 2), 2)
  assert (encoder.num_head_channels, encoder.attention_rates) == (64, (1, 2))
  assert (unet.channels, unet.multipliers, unet.blocks) == (320, (1, 2, 4, 4), 2)
  assert (unet.num_heads, unet.attention_rates) == (8, (1, 2, 4))
  built = networks.build(config)
  assert built.latent_shape == (32, 32, 4)
  assert built.feature_shape == (16, 16, 16)
  assert len(built.autoencoder.control.unet_blocks) == 25


@pytest.mark.parametrize("name", PAPER)
def test_loss_and_data_of_section_4_1(name: str) -> None:
  config = load(name)
  assert (config.loss.lambda_kl, config.loss.lambda_cra) == (1e-6, 0.1)
  data = config.data
  assert (data.num_frames, data.num_keyframes, data.num_targets) == (16, 4, 2)
  assert data.frame_time == "index / F"
  assert config.precision == "bfloat16"


@pytest.mark.parametrize("name", PAPER)
def test_diffusion_and_sampling(name: str) -> None:
  config = load(name)
  schedule = config.diffusion.schedule
  assert (schedule.kind, schedule.num_timesteps) == ("scaled_linear", 1000)
  assert (schedule.beta_start, schedule.beta_end) == (8.5e-4, 1.2e-2)
  for part in ("decoder", "generator"):
    assert config.diffusion[part].prediction_type == "epsilon"
    assert (config.sample[part].kind, config.sample[part].num_steps) == ("ddim", 50)
    assert config.sample[part].eta == 0.0
  assert config.sample.guidance_generator == 9.0
  assert config.sample.guidance_decoder == (6.0 if "ucf101" in name else 3.0)
  assert config.sample.noise == "individual"


@pytest.mark.parametrize("name", [*PAPER, "glober_clips", "glober_digits"])
def test_latents_of_a_kl_vae_that_the_run_trains_are_measured(name: str) -> None:
  config = load(name)
  assert (config.init.kl_vae, config.model.latent_scale) == ("", 0.0)


@pytest.mark.parametrize("name", PAPER)
def test_kl_vae_is_trained_as_rombach_et_al_do(name: str) -> None:
  """Their rate is a base rate times the frames of a step."""
  config = load(name)
  train, optimizer = config.train.kl_vae, config.train.kl_vae.optimizer
  assert optimizer.learning_rate == pytest.approx(4.5e-6 * train.batch_size, rel=1e-6)
  assert (optimizer.b1, optimizer.b2) == (0.5, 0.9)
  assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, 0.0)
  loss = config.loss.kl_vae
  assert (loss.reconstruction, loss.kl, loss.lpips, loss.lpips_net) == ("l1", 1e-6, 1.0, "vgg")
  assert (loss.adversary, loss.adversary_start) == (0.5, 50_000)


def test_the_demo_samples() -> None:
  """Two steps would draw conditional means; and v is as fine as the latents."""
  config = load("glober_digits")
  assert (config.data.name, config.sample.decoder.num_steps >= 10) == ("marching_digits", True)
  built = networks.build(config)
  assert built.feature_shape[:2] == built.latent_shape[:2]


# ---- variants


def test_ucf101_cond() -> None:
  assert load("glober_ucf101").condition == "text"
  config = load("glober_ucf101:cond")
  assert (config.condition, config.data.num_classes) == ("class", 101)
  assert networks.build(config).generator.num_classes == 101


def test_ucf101_table_4() -> None:
  for name, shape in (("v8x8x64", (8, 8, 64)), ("v16x16x32", (16, 16, 32))):
    assert networks.build(load(f"glober_ucf101:{name}")).feature_shape == shape


@pytest.mark.parametrize("name", ["glober_taichi:kl_f4", "glober_ucf101:128px,kl_f4"])
def test_kl_f4_is_the_published_one(name: str) -> None:
  config = load(name)
  built = networks.build(config)
  published = architectures.PUBLISHED["kl-f4"]["kl_vae"]
  assert built.kl_vae.clone(dtype=published.dtype, remat="none") == published
  assert built.latent_shape == (32, 32, 3)


def test_ucf101_256px_has_the_networks_of_stable_diffusion() -> None:
  built = networks.build(load("glober_ucf101"))
  published = architectures.PUBLISHED["sd-v1"]
  for ours, name in ((built.kl_vae, "kl_vae"), (built.autoencoder.unet, "unet")):
    assert ours.clone(dtype=published[name].dtype, remat="none") == published[name]


def test_ucf101_no_cra() -> None:
  config = load("glober_ucf101:no_cra")
  assert config.loss.lambda_cra == 0.0
  assert len(stages.make_stage(config, "autoencoder").train_steps) == 1


def test_ucf101_frames128() -> None:
  data = load("glober_ucf101:frames128").data
  assert (data.num_frames, data.num_keyframes) == (128, 16)


def test_comma_joined_variants_apply_together() -> None:
  config = load("glober_ucf101:cond,128px,v8x8x64")
  assert config.condition == "class" and config.data.image_size == 128
  assert networks.build(config).feature_shape == (8, 8, 64)


@pytest.mark.parametrize("file", FILES)
def test_unknown_variant_lists_the_valid_ones(file: str) -> None:
  message = rf"Unknown variant 'huge'. Choose among: {', '.join(VARIANTS[file])}\."
  with pytest.raises(ValueError, match=message):
    load(f"{file}:smoke,huge")


# ---- every configuration


@pytest.mark.parametrize(
  "name", [*FILES, *(f"{file}:{variant}" for file in FILES for variant in VARIANTS[file])]
)
def test_passes_the_checks(name: str) -> None:
  checks.check_config(load(name))


def test_smoke_joins_every_variant() -> None:
  for variant in VARIANTS["glober_ucf101"]:
    if variant != "smoke":
      checks.check_config(load(f"glober_ucf101:{variant},smoke"))


@pytest.mark.parametrize("file", FILES)
def test_smoke_builds(file: str) -> None:
  """Every stage's state has shapes, few parameters, and one batch for eight devices."""
  config = load(f"{file}:smoke")
  for name in config.stages:
    stage = systems.of(config).stages.make_stage(config, name)
    state = jax.eval_shape(stage.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(state.params)) < 300_000
    assert config.train[name].batch_size % 8 == 0
    assert config.train[name].steps <= 4


@pytest.mark.parametrize("file", FILES)
def test_docstring_gives_the_command(file: str) -> None:
  doc = importlib.import_module(f"configs.{file}").__doc__
  assert "python -m experiments.main" in doc and f"configs/{file}.py" in doc
  for variant in VARIANTS[file]:
    assert re.search(rf"\b{variant}\b", doc), variant


def test_the_long_run_of_digits_draws_as_the_paper_does() -> None:
  config = load("glober_digits:long")
  assert config.data.name == "moving_digits"
  assert config.sample.noise == "individual"
  for name in ("decoder", "generator"):
    sampler = config.sample[name]
    assert (sampler.kind, sampler.num_steps, sampler.grid) == ("ddim", 50, "uniform")
