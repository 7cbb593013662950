"""What the flags of sampling ask for; the drawing itself is end_to_end_test's."""

import dataclasses
import pathlib
import types
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from experiments.sampling import glober_samples, saved_samples
from experiments.setup import checks
from experiments.workdirs import numbered
from tests.experiments.flags import options
from tests.glober import tiny
from tests.helpers import needs
from tests.inputs.make import write_frames, write_video
from videodiff_jax.glober.pipeline import Pipeline, Samples
from videodiff_jax.inputs import video_io
from videodiff_jax.training import partitioning

PROMPTED = types.SimpleNamespace(
  config=types.SimpleNamespace(sample=types.SimpleNamespace(num_videos=1))
)
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
  asked = glober_samples.frame_times(TRAINED, options(**changes))
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
  settings = glober_samples.load("", None, asked).config.sample
  for stage in ("decoder", "generator"):
    assert (settings[stage].kind, settings[stage].num_steps) == ("unipc", 7)
    assert settings[stage].grid == "uniform"  # the workdir's own
    assert settings[f"guidance_{stage}"] == 2.5


def test_a_given_configuration_says_how_to_draw_and_flags_more(workdir) -> None:
  config = tiny.config()
  config.sample.decoder.num_steps = 5
  config.sample.noise = "shared"
  settings = glober_samples.load("", config, options(guidance_scale=1.5)).config.sample
  assert (settings.decoder.num_steps, settings.generator.num_steps) == (5, 2)
  assert (settings.noise, settings.guidance_decoder) == ("shared", 1.5)


def test_what_no_sampler_can_do_is_told(workdir) -> None:
  with pytest.raises(checks.UserError, match=r"config\.sample\.decoder\.kind is 'euler'.*ddim"):
    glober_samples.load("", None, options(sampler="euler"))
  with pytest.raises(checks.UserError, match="Sampling steps must be"):
    glober_samples.load("", None, options(steps=2000))


def test_a_file_is_read_as_its_data_set_s_store_is_made(tmp_path) -> None:
  """And at its own rate, of which a stride leaves a part."""
  frames = np.random.default_rng(0).integers(0, 256, (7, 50, 101, 3), np.uint8)
  write_frames(tmp_path / "frames", frames)
  config = tiny.config()
  config.data.update(image_size=8, channels=3, stride=3)
  for name, crop in (("cityscapes", "integer_lanczos"), ("sky_timelapse", "pillow_bicubic")):
    config.data.name = name
    rate, stream = glober_samples.frames_of_file(config, tmp_path / "frames")
    expected = [video_io.square_crop_resize(frame, 8, crop) for frame in frames[::3]]
    np.testing.assert_array_equal(list(stream), expected)
    assert rate == 8  # a folder of pictures has none
  write_video(tmp_path / "a.mp4", frames[:, :, :100], rate=24)
  assert glober_samples.frames_of_file(config, tmp_path / "a.mp4")[0] == 8
  config.data.stride = 1
  assert glober_samples.frames_of_file(config, tmp_path / "a.mp4")[0] == 24


def test_clips_of_a_store_have_their_videos_rates() -> None:
  config = tiny.config()
  config.data.stride = 2
  store = types.SimpleNamespace(videos=[{"fps": 30.0}, {"fps": 0.0}])
  assert glober_samples.rates_of(config, store, np.array([1, 0, 0])).tolist() == [8, 15, 15]


def test_each_clip_is_written_at_its_rate(tmp_path) -> None:
  needs("av")
  videos = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
  none = np.zeros(2)
  drawn = Samples(videos, none, none, none, np.full(2, ""), seed=0)
  with numbered.SampleFolder(tmp_path, "reconstruct", 0, 1) as place:
    folder = glober_samples.save(place, tiny.config(), dataclasses.asdict(drawn), None, [25, 10])
  rates = [video_io.read_video(folder / f"{i:03d}.mp4")[1] for i in range(2)]
  assert rates == [25, 10]
  with Image.open(folder / "all.gif") as gif:
    assert gif.info["duration"] == 40


SAVED = {
  "global_features": np.zeros((2, 1, 1, 4), np.float32),
  "labels": np.zeros(2, np.int32),
  "prompts": np.full(2, ""),
  "seed": np.array(3),
}


def other(**changes: object) -> Callable[[pathlib.Path], None]:
  return lambda file: np.savez(file, **(SAVED | changes))


@pytest.mark.parametrize(
  "write",
  [
    lambda file: file.write_bytes(b""),
    lambda file: file.write_text("a cat\n"),
    lambda file: Image.new("RGB", (8, 8)).save(file, "png"),
    lambda file: file.write_bytes(b"PK\x03\x04 broken"),
    lambda file: np.save(file.open("wb"), np.zeros(3)),
    lambda file: np.savez(file, global_features=SAVED["global_features"]),
    other(prompts=np.array([{}, 1], object)),
    other(global_features=np.zeros((2, 4), np.float32)),
    other(global_features=np.zeros((0, 1, 1, 4), np.float32)),
    other(labels=np.zeros(3, np.int32)),
    other(labels=np.array([0.5, 1.0])),
    other(seed=-1),
    other(seed=2**40),
    other(seed="x"),
  ],
)
def test_other_files_are_no_samples_to_redraw(tmp_path, write) -> None:
  file = tmp_path / "samples.npz"
  write(file)
  with pytest.raises(checks.UserError, match=r"samples\.npz is no samples\.npz of --mode=sample"):
    saved_samples.read(file)
  with pytest.raises(checks.UserError, match="No file"):
    saved_samples.read(tmp_path)
  other()(file)
  assert saved_samples.read(file).seed == 3 and saved_samples.read(file).prompts is None


@pytest.mark.parametrize("features", [np.zeros((2, 1, 1, 4)), None])
def test_features_that_no_sample_has_are_not_drawn(features) -> None:
  pipeline = Pipeline(tiny.config(), {}, partitioning.make_mesh())
  if features is None:
    features = np.full((2, *pipeline.networks.feature_shape), np.nan)
  with pytest.raises(ValueError, match="must be finite numbers of shape"):
    pipeline.redraw(features)
  with pytest.raises(ValueError, match="frame_times"):
    pipeline.redraw(np.zeros((2, *pipeline.networks.feature_shape)), frame_times=[0.0, np.nan])


@pytest.mark.parametrize(
  ("given", "prompts"),
  [
    ("one; two;", ["one", "two"]),
    ("a man/woman walks", ["a man/woman walks"]),
    ("24/7;", ["24/7"]),
    ("missing.txt;", ["missing.txt"]),
    ("clouds", ["clouds"]),
    ("a" * 500, ["a" * 500]),
    ("lines.txt", ["a\u2028b", "é"]),
    ("folder/lines", ["c"]),
  ],
)
def test_prompts_and_files_of_them(tmp_path, monkeypatch, given, prompts) -> None:
  monkeypatch.chdir(tmp_path)
  (tmp_path / "clouds").mkdir()
  (tmp_path / "folder").mkdir()
  (tmp_path / "lines.txt").write_text("\ufeffa\u2028b\r\n\n é \n")
  (tmp_path / "folder" / "lines").write_text("c")
  found, count = glober_samples.prompts_of(PROMPTED, options(prompts=given, num_videos=None))
  assert found == prompts and count == len(prompts)


@pytest.mark.parametrize(
  "given",
  [
    "missing.txt",
    "my prompts.TXT",
    "no/such",
    "./no",
    "~/no such",
    "/no",
    "http://b/p.txt",
    ".txt",
  ],
)
def test_a_prompts_file_that_is_missing_is_no_prompt(tmp_path, monkeypatch, given) -> None:
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match=r"--prompts: (no file|'http://b/p.txt' is an address)"):
    glober_samples.prompts_of(PROMPTED, options(prompts=given))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_prompts_file_of_another_encoding_is_told(tmp_path, encoding) -> None:
  (tmp_path / "p.txt").write_text("é", encoding)
  with pytest.raises(ValueError, match=r"p\.txt.* UTF-"):
    glober_samples.prompts_of(PROMPTED, options(prompts=str(tmp_path / "p.txt")))
