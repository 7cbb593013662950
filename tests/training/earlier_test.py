"""Workdirs of earlier code: config.json as the first runs wrote it, in earlier/SYSTEM.json."""

import json
import pathlib
import shutil

import pytest

from configs import common, lgcvd_common
from experiments import main
from experiments.report import report
from experiments.setup import checks
from experiments.tables import score_table
from videodiff_jax import glober, lgcvd
from videodiff_jax.glober import networks as glober_networks
from videodiff_jax.lgcvd import networks as lgcvd_networks
from videodiff_jax.training import migrations
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.workdir import read_config

FIRST = pathlib.Path(__file__).with_name("earlier")
BASES = {"glober": common.base, "lgcvd": lgcvd_common.base}
SYSTEMS = pytest.mark.parametrize("system", BASES)


def flat(tree: dict, prefix: str = "") -> dict:
  found: dict = {}
  for key, value in tree.items():
    found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
  return found


def first_keys(system: str) -> set[str]:
  return flat(json.loads((FIRST / f"{system}.json").read_text())).keys()


def added(system: str) -> dict:
  return {key: value for _, values in migrations.ADDED[system] for key, value in values.items()}


@pytest.fixture(params=BASES)
def old(request, tmp_path) -> tuple[str, pathlib.Path]:
  """A system and a workdir with nothing but its first config.json."""
  shutil.copy(FIRST / f"{request.param}.json", tmp_path / "config.json")
  return request.param, tmp_path


@SYSTEMS
def test_every_key_is_of_the_first_runs_or_in_the_table(system: str) -> None:
  """A new key belongs into the table, with the value that does what was done without it."""
  now = {key for key in flat(BASES[system]().to_dict()) if not key.startswith("ablation.")}
  assert first_keys(system) - {*migrations.GONE} | added(system).keys() == now
  assert not first_keys(system) & added(system).keys()


# A run that began without these goes on without them.
BEGUN_WITHOUT = {
  "checksums",
  "data.cache",
  "sample.guidance_form",
  "text.tells_sides",
  "loss.cra.weighting",
  *(f"train.kl_vae.optimizer.{key}" for key in ("b1", "b2")),
  *(f"train.{name}.ema.warmup" for name in ("kl_vae", "autoencoder", "generator")),
  "objective.second_stage",
  *(f"train.{name}.validate_every" for name in ("kl_vae", "autoencoder", "generator", "lgcvd")),
}


def test_what_is_filled_in_is_the_default_but_for_what_a_run_began_without() -> None:
  for system, base in BASES.items():
    now = flat(json.loads(base().to_json()))
    values = json.loads(json.dumps(added(system)))
    differ = {key for key, value in values.items() if value != now[key]}
    assert differ == BEGUN_WITHOUT & added(system).keys()


def test_keys_that_are_there_stay(tmp_path) -> None:
  config = common.base()
  config.model.unet.norm_groups = 4
  config.data.cache = "required"
  (tmp_path / "config.json").write_text(config.to_json())
  assert read_config(tmp_path).to_json() == config.to_json()


def test_networks_are_built_of_it(old) -> None:
  system, workdir = old
  config = read_config(workdir)
  {"glober": glober_networks, "lgcvd": lgcvd_networks}[system].build(config)
  checks.check_config(config)


def test_pipelines_and_commands_read_it(old) -> None:
  system, workdir = old
  assert main.saved_config(workdir, None).system == system
  assert report.write(workdir).is_file()
  with pytest.raises(checks.UserError, match="fills no row of table"):
    score_table.assign("glober_1a", {"x": score_table.load("glober_sky")}, [workdir])
  # It needs weights, and nothing else.
  with pytest.raises(CheckpointError, match=f"'{'kl_vae' if system == 'glober' else system}' has"):
    {"glober": glober, "lgcvd": lgcvd}[system].Pipeline.from_workdir(workdir)


def test_a_torn_configuration_is_told(old) -> None:
  _, workdir = old
  file = workdir / "config.json"
  saved = json.loads(file.read_text())
  del saved["diffusion"]["schedule"], saved["seed"]
  file.write_text(json.dumps(saved))
  expected = r"lacks keys: .*diffusion\.schedule\.kind.*, seed\. Restore the original file"
  with pytest.raises(checks.UserError, match=expected):
    main.saved_config(workdir, None)
  with pytest.raises(checks.UserError, match="lacks keys"):
    score_table.assign("glober_1a", {}, [workdir])


@pytest.mark.parametrize("value", ["32", None, 1e9, -1, [32], {}])
def test_a_value_that_no_run_could_have_had_is_told(old, value) -> None:
  _, workdir = old
  file = workdir / "config.json"
  saved = json.loads(file.read_text())
  saved["data"]["image_size"] = value
  file.write_text(json.dumps(saved))
  with pytest.raises(checks.UserError, match=r"\.json: config\.data\.image_size is .*; it must"):
    main.saved_config(workdir, None)


def test_a_key_that_nothing_reads_is_told(old) -> None:
  _, workdir = old
  file = workdir / "config.json"
  saved = json.loads(file.read_text())
  saved["data"]["image_sise"] = 32
  file.write_text(json.dumps(saved))
  with pytest.raises(checks.UserError, match=r"\.json: .*Did you mean 'config\.data\.image_size'"):
    main.saved_config(workdir, None)


@pytest.mark.parametrize(
  "text", ["{", "[]", "{}", '{"system": "gan"}', '{"system": "glober", "init": 1}']
)
def test_a_file_of_something_else_is_told(tmp_path, text: str) -> None:
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(CheckpointError, match="not the configuration of a run of glober or lgcvd"):
    read_config(tmp_path)
