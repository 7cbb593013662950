"""What --mode=plan says: the published figures, and that bytes and FLOPs follow the config."""

import jax
import pytest
from ml_collections import ConfigDict

from configs import glober_digits, glober_sky, glober_ucf101
from experiments.train import plan
from videodiff_jax.glober.networks import build


@pytest.fixture(scope="module")
def modules() -> dict[str, tuple[int, float]]:
  """network -> (parameters, GFLOP), UCF-101 with March 2023's control and discriminator."""
  config = glober_ucf101.get_config()
  config.remat = "none"
  config.model.frame_control.which = "down"
  config.model.discriminator.update(
    on="latents", channels=256, multipliers=(1, 1, 2, 2, 2), attention_rates=(2, 4, 8, 16)
  )
  return {
    name: (count, flops / 1e9) for name, count, flops, _ in plan.module_figures(build(config))
  }


# glober_release.md, sections 11 and 15.
@pytest.mark.parametrize(
  ("name", "parameters", "gflop"),
  [
    ("KL-VAE encoder", 83_653_863, None),
    ("KL-VAE decoder", 83_653_863, None),
    ("UNet", 859_520_964, 179.46),
  ],
)
def test_exact_figures(modules, name: str, parameters: int, gflop: float | None) -> None:
  assert modules[name][0] == parameters
  if gflop:
    assert modules[name][1] == pytest.approx(gflop, rel=1e-3)


@pytest.mark.parametrize(
  ("name", "millions", "gflop"),
  [
    ("video encoder", 28.374, 128.90),
    ("frame control", 114.246, 17.86),
    ("discriminator", 40.170, 11.28),
    ("DiT", 675, None),
  ],
)
def test_rounded_figures(modules, name: str, millions: float, gflop: float | None) -> None:
  assert modules[name][0] / 1e6 == pytest.approx(millions, rel=2e-3)
  if gflop:
    assert modules[name][1] == pytest.approx(gflop, rel=5e-3)


def test_dit_of_sky() -> None:
  dit = build(glober_sky.get_config()).generator
  x, t, tokens = (jax.ShapeDtypeStruct(s, "float32") for s in ((1, 16, 16, 16), (1,), (1,)))
  params = jax.eval_shape(dit.init, jax.random.key(0), x, t, None, tokens)
  assert plan.count_parameters(params) / 1e6 == pytest.approx(382, rel=1e-3)


# ---- a stage, on the small configuration


def digits(**keys: int) -> ConfigDict:
  config = glober_digits.get_config("smoke")
  config.model.dit.width = 64
  config.train.generator.update(keys)
  return config


@pytest.fixture(scope="module")
def generator() -> plan.StageFigures:
  return plan.stage_figures(digits(), "generator")


def test_flops_grow_with_the_batch(generator) -> None:
  twice = plan.stage_figures(digits(batch_size=16), "generator")
  assert twice.flops_per_step == 2 * generator.flops_per_step
  assert twice.state_bytes == generator.state_bytes


def test_a_clip_encoded_for_four_draws_saves_the_frozen_encoders_three_of_four_times() -> None:
  """The DiT's own work stays; on Sky a draw costs 836 GFLOP instead of 1,751, of them 531 its."""
  once, four_times = (
    plan.stage_figures(digits(batch_size=b, draws_per_clip=8 // b), "generator").flops_per_step
    for b in (8, 2)
  )
  dit = (4 * four_times - once) / 3
  assert 0 < dit < four_times < once
  assert glober_sky.get_config().train.generator.draws_per_clip == 4


def test_a_cache_of_global_features_leaves_the_generator_alone() -> None:
  """With --config.data.cache=required a clip costs what one more draw of a clip costs without."""
  config = digits(batch_size=8)
  config.data.cache = "required"
  cached = plan.stage_figures(config, "generator").flops_per_step
  one, two = (
    plan.stage_figures(digits(batch_size=8, draws_per_clip=n), "generator").flops_per_step
    for n in (1, 2)
  )
  assert cached == two - one


def test_model_flops_do_not_depend_on_how_they_are_computed(generator) -> None:
  config = digits(accumulate=2)
  config.remat = "blocks"
  config.model.dit.scan_blocks = True
  assert plan.stage_figures(config, "generator").flops_per_step == generator.flops_per_step


def test_bytes_of_a_state(generator) -> None:
  """Parameters, their average and two moments in float32, and a few scalars."""
  small = generator.state_bytes - 4 * 4 * generator.parameters
  assert 0 < small < 1000


def test_fsdp_divides_the_state_over_devices(generator) -> None:
  config = digits()
  config.mesh.fsdp = 4
  sharded = plan.stage_figures(config, "generator")
  assert sharded.state_bytes == generator.state_bytes
  # Small arrays, and the small networks of the earlier stages, are whole everywhere.
  assert generator.device_bytes / 4 < sharded.device_bytes < generator.device_bytes / 2


def test_frozen_networks_take_room(generator) -> None:
  counts = {name: count for name, count, *_ in plan.module_figures(build(digits()))}
  names = ("KL-VAE encoder", "video encoder", "frame control", "UNet")
  earlier = sum(counts[name] for name in names)
  frozen = generator.device_bytes - generator.state_bytes
  assert 4 * earlier <= frozen < 4 * earlier + 1000  # class codes, statistics


def test_nothing_is_compiled_or_allocated(caplog) -> None:
  before = len(jax.live_arrays())
  with jax.log_compiles():
    plan.stage_figures(digits(batch_size=24), "kl_vae")
  assert not any("Compiling" in record.getMessage() for record in caplog.records)
  assert len(jax.live_arrays()) == before


@pytest.mark.slow
def test_the_networks_of_sky_at_full_size() -> None:
  text = plan.show(glober_sky.get_config())
  for figure in ("859,520,964", "179.47", "83,653,863", "1,149,385,508", "382,086,928"):
    assert figure in text


def test_planning_leaves_the_configuration_alone() -> None:
  """The start table plans with the very configuration that is then trained."""
  config = glober_digits.get_config("smoke")
  before = config.to_json()
  plan.stage_figures(config, "generator")
  assert config.to_json() == before
