"""What the flags of sampling ask for; the drawing itself is end_to_end_test's."""

import types

import numpy as np
import pytest

from experiments import checks, sample
from tests.experiments.end_to_end_test import options
from tests.glober import tiny
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.training import partitioning

TRAINED = types.SimpleNamespace(frame_times=np.arange(8) / 8)  # "index / F"


@pytest.mark.parametrize(
  ("changes", "times"),
  [
    ({}, None),
    ({"num_frames": 15}, np.arange(15) / 16),
    ({"start": 0.5}, np.linspace(0.5, 0.875, 8)),
    ({"end": 0.5}, np.linspace(0.0, 0.5, 8)),
    ({"start": 0.25, "end": 0.75, "num_frames": 3}, [0.25, 0.5, 0.75]),
    ({"start": 0.75, "end": 0.25, "num_frames": 2}, [0.75, 0.25]),
    ({"frame_times": ["0.5", "0", "1"]}, [0.5, 0.0, 1.0]),
  ],
)
def test_frame_times(changes: dict, times: object) -> None:
  asked = sample.frame_times(TRAINED, options(**changes))
  if times is None:
    assert asked is None
  else:
    np.testing.assert_allclose(asked, times, rtol=1e-12)


@pytest.fixture
def workdir(monkeypatch) -> None:
  """Any workdir is the tiny pipeline, without its weights."""
  pipeline = Pipeline(tiny.config(), {}, partitioning.make_mesh())
  monkeypatch.setattr(
    Pipeline, "from_workdir", lambda _, **settings: pipeline.with_settings(**settings)
  )


def test_single_flags_override_both_stages(workdir) -> None:
  asked = options(sampler="unipc", steps=7, guidance_scale=2.5)
  settings = sample.load("", None, asked).config.sample
  for stage in ("decoder", "generator"):
    assert (settings[stage].kind, settings[stage].num_steps) == ("unipc", 7)
    assert settings[stage].grid == "uniform"  # the workdir's own
    assert settings[f"guidance_{stage}"] == 2.5


def test_a_given_configuration_says_how_to_draw_and_flags_more(workdir) -> None:
  config = tiny.config()
  config.sample.decoder.num_steps = 5
  config.sample.noise = "shared"
  settings = sample.load("", config, options(guidance_scale=1.5)).config.sample
  assert (settings.decoder.num_steps, settings.generator.num_steps) == (5, 2)
  assert (settings.noise, settings.guidance_decoder) == ("shared", 1.5)


def test_what_no_sampler_can_do_is_told(workdir) -> None:
  with pytest.raises(checks.UserError, match=r"config\.sample\.decoder: .*'euler'.*ddim"):
    sample.load("", None, options(sampler="euler"))
  with pytest.raises(checks.UserError, match="Sampling steps must be"):
    sample.load("", None, options(steps=2000))
