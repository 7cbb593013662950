"""What the flags of sampling ask for; the drawing itself is end_to_end_test's."""

import types

import numpy as np
import pytest
from PIL import Image

from experiments import checks, numbered, sample
from tests.experiments.end_to_end_test import options
from tests.glober import tiny
from tests.helpers import needs
from tests.inputs.make import write_frames, write_video
from videodiff_jax.glober.pipeline import Pipeline, Samples
from videodiff_jax.inputs import video_io
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
    ({"frame_times": [0.5, 0.0, 1.0]}, [0.5, 0.0, 1.0]),
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


def test_a_file_is_read_as_its_data_set_s_store_is_made(tmp_path) -> None:
  """And at its own rate, of which a stride leaves a part."""
  frames = np.random.default_rng(0).integers(0, 256, (7, 50, 101, 3), np.uint8)
  write_frames(tmp_path / "frames", frames)
  config = tiny.config()
  config.data.update(image_size=8, channels=3, stride=3)
  for name, crop in (("cityscapes", "integer_lanczos"), ("sky_timelapse", "pillow_bicubic")):
    config.data.name = name
    rate, stream = sample.frames_of_file(config, tmp_path / "frames")
    expected = [video_io.square_crop_resize(frame, 8, crop) for frame in frames[::3]]
    np.testing.assert_array_equal(list(stream), expected)
    assert rate == 8  # a folder of pictures has none
  write_video(tmp_path / "a.mp4", frames[:, :, :100], rate=24)
  assert sample.frames_of_file(config, tmp_path / "a.mp4")[0] == 8
  config.data.stride = 1
  assert sample.frames_of_file(config, tmp_path / "a.mp4")[0] == 24


def test_clips_of_a_store_have_their_videos_rates() -> None:
  config = tiny.config()
  config.data.stride = 2
  store = types.SimpleNamespace(videos=[{"fps": 30.0}, {"fps": 0.0}])
  assert sample.rates_of(config, store, np.array([1, 0, 0])).tolist() == [8, 15, 15]


def test_each_clip_is_written_at_its_rate(tmp_path) -> None:
  needs("av")
  videos = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
  none = np.zeros(2)
  drawn = Samples(videos, none, none, none, np.full(2, ""), seed=0)
  with numbered.SampleFolder(tmp_path, "reconstruct", 0, 1) as place:
    folder = sample.save(place, tiny.config(), drawn, videos, None, [25, 10])
  rates = [video_io.read_video(folder / f"{i:03d}.mp4")[1] for i in range(2)]
  assert rates == [25, 10]
  with Image.open(folder / "all.gif") as gif:
    assert gif.info["duration"] == 40
