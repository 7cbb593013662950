"""What a workdir's metrics become beside shipped weights, and how a run is compared with it."""

import json
import pathlib

import pytest
from PIL import Image

from configs import glober_digits
from experiments.export import curves
from experiments.setup import checks
from experiments.train import train
from videodiff_jax.training import curves as training_curves
from videodiff_jax.training.workdir import write_config

ROWS = [
  {"step": 50, "loss": 3.0, "gradient_norm": 1.0},
  {"step": 100, "loss": 2.0},
  {"step": 100, "validation_loss": 2.5, "validation_kl": 9.0},
  {"step": 150, "loss": 1.0},
  {"step": 200, "validation_loss": 2.25},
  {"step": 200, "loss": 0.5},
  {"step": 300, "validation_loss": 2.75},
]


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
  """The logs of a run whose kl_vae was validated and whose autoencoder was not."""
  write_config(tmp_path, glober_digits.get_config("smoke"))
  for name, rows in (("kl_vae", ROWS), ("autoencoder", ROWS[:2])):
    (tmp_path / name).mkdir()
    (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return tmp_path


def test_curves_of_a_workdir(workdir) -> None:
  found = curves.curves_of(workdir, margin=0.2)
  assert found == {
    "margin": 0.2,
    "stages": {
      "kl_vae": {
        "training": [[50, 3.0], [100, 2.0], [150, 1.0], [200, 0.5]],
        "validation": [[100, 2.5], [200, 2.25], [300, 2.75]],
        "best": [200, 2.25],
      },
      "autoencoder": {"training": [[50, 3.0], [100, 2.0]], "validation": [], "best": None},
    },
  }


def test_they_are_drawn_and_read_back(workdir) -> None:
  found = curves.curves_of(workdir)
  curves.plot(found, workdir / "curves.png")
  with Image.open(workdir / "curves.png") as image:
    assert image.width > 2 * image.height  # a panel a stage
  (workdir / "curves.json").write_text(json.dumps(found))
  read = training_curves.read(workdir / "curves.json")
  assert list(read) == ["kl_vae"]
  assert (read["kl_vae"].at(250), read["kl_vae"].margin) == (2.5, curves.MARGIN)


def test_what_a_run_is_compared_with_is_checked_before_it_begins(workdir, tmp_path) -> None:
  config = glober_digits.get_config("smoke")
  assert train.expected_curves(config) == {}
  config.expected = str(tmp_path / "curves.json")
  with pytest.raises(checks.UserError, match="cannot be read"):
    train.expected_curves(config)
  (tmp_path / "curves.json").write_text(json.dumps(curves.curves_of(workdir)))
  assert list(train.expected_curves(config)) == ["kl_vae"]
  config.train.kl_vae.validate_every = 0
  with pytest.raises(checks.UserError, match="curves of kl_vae, but this run validates none"):
    train.expected_curves(config)
