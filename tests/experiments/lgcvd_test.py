"""LGC-VD from an empty folder to videos: training, resuming, every way of drawing, the scores."""

import dataclasses
import json
import pathlib
import types

import ml_collections
import numpy as np
import pytest

from data import prepare
from experiments import main
from experiments.claims import sweep
from experiments.measures import set_scores
from experiments.sampling import lgcvd_samples
from experiments.scoring import glober_protocols, lgcvd_generation, lgcvd_prediction
from experiments.setup import checks, frame_stores
from experiments.train import train
from tests.helpers import assert_same_pixels, needs
from tests.lgcvd import tiny
from tests.weights import require
from videodiff_jax import lgcvd
from videodiff_jax.inputs import video_io
from videodiff_jax.metrics import frechet, i3d, kid, prediction
from videodiff_jax.metrics.clip_protocols import ClipProtocol
from videodiff_jax.metrics.protocols import PROTOCOLS, PredictionProtocol
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained import lpips as lpips_weights
from videodiff_jax.training.writers import read_metrics

OPTIONS = {
  "num_videos": None, "num_frames": None, "trajectories": None, "past": None, "future": None,
  "gap": None, "sampler": None, "steps": None, "seed": 0, "input": None,
  "nearest": False,
}  # fmt: skip
SIDE = 16  # SSIM's window is 11 pixels wide


def options(**changes: object) -> types.SimpleNamespace:
  return types.SimpleNamespace(**(OPTIONS | changes))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ml_collections.ConfigDict:
  needs("av")
  config = tiny.config()
  config.data.update(name="moving_digits", image_size=SIDE, video_frames=20)
  config.data.dir = str(tmp_path_factory.mktemp("data") / "digits")
  config.train.lgcvd.update(steps=2, log_every=1, checkpoint_every=1)
  config.train.lgcvd.update(preview_every=2, validate_every=2)
  config.evaluate.motion = True
  config.sample.videos_per_chunk = 1  # of each of eight devices
  with checks.as_user_error():
    prepare.ensure("moving_digits", config.data.dir, size=SIDE, num_frames=20, num_videos=40)
  return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A run stopped after one step of two and gone on with."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  half = config.copy_and_resolve_references()
  half.train.lgcvd.steps = 1
  assert train.train(half, workdir, None)
  assert train.train(config, workdir, None)
  return workdir


def newest(workdir: pathlib.Path) -> pathlib.Path:
  return max((workdir / "samples").iterdir())


def videos(workdir: pathlib.Path) -> np.ndarray:
  with np.load(newest(workdir) / "samples.npz") as saved:
    return saved["videos"]


def test_training_goes_on_where_it_stopped(workdir) -> None:
  folder = workdir / "lgcvd"
  rows = read_metrics(folder / "metrics.jsonl")
  losses = {"loss", "loss_first", "loss_second"}
  assert [row["step"] for row in rows] == [1, 2]  # each the end of a run
  for row in rows:
    assert {*losses, "gradient_norm", *(f"validation_{name}" for name in losses)} <= row.keys()
  assert (folder / "checkpoints" / "2").is_dir()
  previews = {file.name for file in (folder / "previews").iterdir()}
  assert {"0000002.png", "0000002.gif"} <= previews


def test_another_objective_is_refused_in_the_same_workdir(workdir, config) -> None:
  other = config.copy_and_resolve_references()
  other.objective.two_stage = False
  with pytest.raises(checks.UserError, match=r"config\.objective\.two_stage: true there, false"):
    train.train(other, workdir, None)


def test_predict_the_test_split(workdir) -> None:
  lgcvd_samples.predict(workdir, None, options(num_videos=3, trajectories=2, num_frames=7))
  drawn = videos(workdir)
  assert drawn.shape == (3, 2, 9, SIDE, SIDE, 1)
  np.testing.assert_array_equal(drawn[:, 0, :2], drawn[:, 1, :2])
  folder = newest(workdir)
  assert len(list(folder.glob("*.mp4"))) == 6
  settings = json.loads((folder / "settings.json").read_text())
  assert (settings["mode"], settings["sample"]["num_frames"]) == ("predict", 7)


def test_predict_and_interpolate_a_video_file(workdir, tmp_path, caplog) -> None:
  """Any file: here colour, not square, of another size."""
  caplog.set_level("INFO", logger="absl")
  file = tmp_path / "clip.mp4"
  frames = np.random.default_rng(0).integers(0, 256, (12, 30, 40, 3), np.uint8)
  video_io.write_mp4(file, frames, fps=12.5, upscale=1)
  lgcvd_samples.predict(workdir, None, options(input=str(file), num_frames=5))
  drawn = videos(workdir)
  assert drawn.shape == (1, 1, 7, SIDE, SIDE, 1)
  first = tmp_path / "clip_predict.mp4"
  beside, rate = video_io.read_video(first)
  assert (len(beside), rate) == (7, 12.5)  # the input's
  assert video_io.read_video(newest(workdir) / "000.mp4")[1] == 12.5
  # It goes on from the file's end.
  decoded, _ = video_io.read_video(file)
  last = video_io.square_crop_resize(decoded[-1], SIDE) @ np.array([0.299, 0.587, 0.114])
  assert np.abs(drawn[0, 0, 1, ..., 0] - last).max() <= 1

  before = first.read_bytes()
  lgcvd_samples.predict(workdir, None, options(input=str(file), num_frames=5, seed=1))
  assert first.read_bytes() == before  # an earlier one stays
  assert (tmp_path / "clip_predict_2.mp4").is_file()
  assert f"beside {file}: clip_predict_2.mp4" in caplog.text

  lgcvd_samples.interpolate(workdir, None, options(input=str(file), past=1, gap=3, trajectories=2))
  assert videos(workdir).shape == (1, 2, 5, SIDE, SIDE, 1)
  assert video_io.read_video(tmp_path / "clip_interpolate_1.mp4")[1] == 12.5
  with pytest.raises(checks.UserError, match=r"has 12 frames .* fewer than the 13"):
    lgcvd_samples._last_frames(lgcvd.Pipeline.from_workdir(workdir), file, 13)


def test_generate(workdir, config) -> None:
  lgcvd_samples.sample(workdir, None, options(num_videos=3, num_frames=9, seed=5, nearest=True))
  drawn, folder = videos(workdir), newest(workdir)
  assert drawn.shape == (3, 1, 9, SIDE, SIDE, 1) and folder.name.endswith("_sample_seed5")
  found = json.loads((folder / "settings.json").read_text())["nearest_training_clips"]
  store = frame_stores.open_store(config, "train")
  numbers = {video["name"]: i for i, video in enumerate(store.videos)}
  assert found["searched"] == store.num_videos and (folder / "nearest.png").is_file()
  for clip, near in zip(drawn[:, 0], found["nearest"], strict=True):
    training = store.read(numbers[near["video"]], near["start"] + np.arange(9))
    rms = np.sqrt(np.square(clip.astype(float) - training).mean())
    assert near["levels_of_255"] == pytest.approx(rms, abs=1e-3)


def test_new_videos_longer_than_training_videos_have_no_nearest_ones(workdir) -> None:
  before = newest(workdir)
  with pytest.raises(checks.UserError, match=r"--nearest needs .* training clips: .* 21 frames"):
    lgcvd_samples.sample(workdir, None, options(num_frames=21, nearest=True))
  assert newest(workdir) == before


def test_flags_and_a_given_configuration_say_how(workdir, config) -> None:
  given = config.copy_and_resolve_references()
  given.sample.update(given_frames="redrawn", num_frames=4)
  pipeline = lgcvd_samples.load(workdir, given, options(sampler="ddim", steps=3, num_frames=5))
  settings = pipeline.config.sample
  assert (settings.given_frames, settings.num_frames) == ("redrawn", 5)
  assert (settings.sampler.kind, settings.sampler.num_steps) == ("ddim", 3)
  assert settings.sampler.grid == "spaced"  # the workdir's own
  with pytest.raises(checks.UserError, match="the 2 slots this model was trained with"):
    lgcvd_samples.load(workdir, None, options(past=3))


# ---- scores, with a fixed random projection for I3D

TINY = PredictionProtocol("tiny", "Of a test.", num_videos=3, num_frames=8, trajectories=2)


def projection(clips: np.ndarray, resize: str) -> np.ndarray:
  assert resize == "torch"
  flat = clips.reshape(len(clips), -1) / 255.0
  return flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 5))


@pytest.fixture
def judge(monkeypatch) -> list[int]:
  """Protocol 'tiny' and the projection; gives how many clips it has seen at each call."""
  require(i3d_weights.WEIGHTS)
  seen = []
  monkeypatch.setattr(
    i3d, "features", lambda clips, resize: [seen.append(len(clips)), projection(clips, resize)][1]
  )
  monkeypatch.setattr(lgcvd_prediction, "PROTOCOLS", {"tiny": TINY})
  return seen


@pytest.fixture(scope="module")
def records() -> dict[str, dict]:
  """What the tests below share: the first evaluation."""
  return {}


@pytest.fixture
def record(judge, records, workdir) -> dict:
  if not records:
    records["first"] = lgcvd_prediction.evaluate(workdir, None, "tiny")
    assert judge == [3] * 5  # real (once for all), predicted, three trivial ones
    assert not list((workdir / "evaluations").glob(".*"))  # the chunks
  return records["first"]


def test_scores_stand_beside_trivial_predictions(record, workdir) -> None:
  folder = workdir / "evaluations"
  assert json.loads((folder / "tiny.json").read_text()) == json.loads(json.dumps(record))
  for name in ("tiny.png", "tiny.gif", "tiny_curves.png"):
    assert (folder / name).is_file()
  assert record["config"]["fragment"] == {"num_frames": 8, "slots": 2}
  assert {"python", "jax", "numpy"} <= record["versions"].keys()
  rows = record["scores"]["prediction"]
  assert list(rows) == ["predicted", "repeat last", "black", "mean frame"]
  assert rows["predicted"]["psnr_best"] > rows["predicted"]["psnr"]
  for row in rows.values():
    assert {"psnr", "ssim", "position_error", "fvd", "brightness_shift", "rms_error"} <= row.keys()
    assert ("spread" in row) == (row is rows["predicted"])
    assert row["fvd"] > 0 and "i3d_kernel_distance" in row
    assert "i3d_precision" not in row  # three videos span no manifold
  assert rows["repeat last"]["position_error"] > 0
  assert " kid " in lgcvd_prediction.report(record)
  filled = record["scores"]["interpolation"]
  assert list(filled) == ["interpolated", "linear blend"]
  used = record["scores"]["use_of_condition"]
  assert used["frames of another video"]["change"] > 0 and len(used) == 4
  assert "fragment of another video" in lgcvd_prediction.report(record)
  assert record["settings"]["steps"] == {"lgcvd": 2}
  assert record["protocol"] == dataclasses.asdict(TINY)
  assert record["deviations"]["prediction"]["predicted"].keys() == {
    "psnr_best", "ssim_best", "position_error_best"
  }  # fmt: skip
  sample = record["settings"]["sample"]
  assert (sample["past"], sample["num_frames"], sample["trajectories"]) == (2, 8, 2)


def test_every_figure_has_its_interval(record) -> None:
  for task, rows in record["scores"].items():
    for name, row in rows.items():
      ends = record["intervals"][task][name]
      assert ends.keys() == row.keys()
      for key, (low, high) in ends.items():
        assert (low + high) / 2 == pytest.approx(row[key], abs=1e-9)
  ends = record["intervals"]["prediction"]["predicted"]
  assert np.ptp(ends["fvd"]) > 0 and np.ptp(ends["i3d_kernel_distance"]) > 0


def test_trivial_predictions_are_what_they_say(record, workdir) -> None:
  pipeline = lgcvd.Pipeline.from_workdir(workdir)
  real, rates = lgcvd_samples.held_out(pipeline, 10, 3)
  assert rates.tolist() == [8.0] * 3  # digits have none of their own
  true = real[:, 2:].astype(float)
  rows = record["scores"]["prediction"]
  for name, drawn in (("black", np.zeros_like(true)), ("repeat last", real[:, 1:2])):
    psnr = 10 * np.log10(255**2 / np.square(true - drawn).mean(axis=(2, 3, 4)))
    np.testing.assert_allclose(rows[name]["psnr"], np.minimum(psnr, 60).mean(), rtol=1e-6)
  repeated = np.concatenate([real[:, :2], np.repeat(real[:, 1:2], 8, axis=1)], axis=1)
  sets = projection(real, "torch"), projection(repeated, "torch")
  distance = kid.kernel_distance(*sets, paired=True)
  assert rows["repeat last"]["i3d_kernel_distance"] == pytest.approx(distance)
  assert rows["black"]["brightness_shift"] == pytest.approx(-true.mean(), rel=1e-5)
  curves = record["curves"]
  assert {len(curve) for lines in curves.values() for curve in lines.values()} == {8}
  assert {"position_error", "rms"} <= curves["predicted"].keys()
  assert curves["between trajectories"].keys() == {"rms"}
  brightness = true.mean(axis=(0, 2, 3, 4))
  np.testing.assert_allclose(curves["real"]["brightness"], brightness, atol=1e-3)
  mean = rows["predicted"]["psnr"]
  assert np.mean(curves["predicted"]["psnr"]) == pytest.approx(mean, abs=1e-3)
  assert np.mean(record["videos"]["predicted"]["psnr"]) == pytest.approx(mean, abs=1e-3)


def test_a_sweep_goes_on_from_held_out_videos(judge, workdir, config, monkeypatch) -> None:
  seen = []

  def features(clips: np.ndarray) -> set_scores.Features:
    seen.append(clips)
    return set_scores.Features(projection(clips, "torch"), projection(clips, "torch")[:, None])

  monkeypatch.setattr(set_scores, "locate", lambda: None)
  monkeypatch.setattr(set_scores, "features", features)
  wanted = config.copy_and_resolve_references()
  wanted.sweep.update(kinds=("ddim",), grids=("uniform",), steps=(2,))
  (point,) = sweep.run(workdir, wanted, "tiny")["points"]
  real, drawn = seen
  pipeline = lgcvd.Pipeline.from_workdir(workdir)
  pipeline = pipeline.with_settings(sampler={"kind": "ddim", "grid": "uniform", "num_steps": 2})
  assert_same_pixels(drawn, pipeline.predict(real[:, :2], num_frames=8).videos)
  fvd = frechet.fvd(projection(real, "torch"), projection(drawn, "torch"))
  assert point["scores"]["fvd"] == pytest.approx(fvd) and point["seconds_a_clip"] > 0


def test_no_evaluation_is_lost_and_an_equal_one_can_be_used_again(
  record, judge, workdir, config, monkeypatch
) -> None:
  found = lgcvd_prediction.evaluate(workdir, config, "tiny", reuse=True)
  assert found == json.loads(json.dumps(record)) and not judge
  folder = workdir / "evaluations"
  before = (folder / "tiny.json").read_bytes()
  other = config.copy_and_resolve_references()
  other.sample.encoder_weights = "raw"
  lgcvd_prediction.evaluate(workdir, other, "tiny", reuse=True)
  assert (folder / "tiny.json").read_bytes() == before
  second = json.loads((folder / "tiny_2.json").read_text())
  assert second["settings"]["sample"]["encoder_weights"] == "raw"
  assert (folder / "tiny_curves_2.png").is_file()


def test_a_killed_evaluation_goes_on_and_gives_the_same(judge, workdir, monkeypatch) -> None:
  """With 12 trajectories in two chunks of 8 devices, the first chunk is not drawn again."""
  protocol = dataclasses.replace(TINY, name="killed", trajectories=4)
  begun = []
  original = lgcvd.Pipeline.predict_chunks

  def killed(self, frames, *, begin=0, **settings):
    begun.append(begin)
    for chunk in original(self, frames, begin=begin, **settings):
      yield chunk
      if len(begun) == 1:
        raise KeyboardInterrupt

  monkeypatch.setattr(lgcvd.Pipeline, "predict_chunks", killed)
  with pytest.raises(KeyboardInterrupt):
    lgcvd_prediction.evaluate(workdir, None, protocol)
  (unfinished,) = (workdir / "evaluations").glob(".killed.*")
  assert [file.name for file in unfinished.iterdir()] == ["00000000.npz"]
  found = lgcvd_prediction.evaluate(workdir, None, protocol)
  assert begun == [0, 8] and not unfinished.exists()
  pipeline = lgcvd.Pipeline.from_workdir(workdir)
  real, _ = lgcvd_samples.held_out(pipeline, 10, 3)
  drawn = pipeline.predict(real[:, :2], num_frames=8, trajectories=4).by_video
  frames = prediction.frame_scores(drawn, real, protocol)
  scores = prediction.trajectory_scores(frames, drawn, real, protocol)
  row = found["scores"]["prediction"]["predicted"]
  for name, value in prediction.summary(scores, protocol).items():
    assert row[name] == pytest.approx(value, rel=1e-9)


def test_an_interpolation_alone(judge, workdir) -> None:
  only = dataclasses.replace(
    TINY, name="filled", past=1, num_frames=7, first_scored=1, tasks=("interpolation",)
  )
  found = lgcvd_prediction.evaluate(workdir, None, only)
  assert list(found["scores"]) == ["interpolation"] and not judge
  assert (workdir / "evaluations" / "filled.png").is_file()
  assert not found["curves"] and not (workdir / "evaluations" / "filled_curves.png").exists()
  assert "interpolation of 3 videos" in lgcvd_prediction.report(found)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_videos": 5}, "'tiny' needs 5 videos, but the test split has 4. Choose another"),
    ({"lpips_required": True}, "'tiny' needs LPIPS, but its network needs 31 pixels a side"),
    ({"past": 3, "first_scored": 3}, "config.sample: 3 past and 0 future frames do not fit"),
    ({"num_frames": 30}, "No video of the test split has the 32 frames"),
  ],
)
def test_a_protocol_that_cannot_be_done(judge, monkeypatch, workdir, changes, message) -> None:
  require(lpips_weights.WEIGHTS["alex"])
  protocol = dataclasses.replace(TINY, **changes)
  monkeypatch.setattr(lgcvd_prediction, "PROTOCOLS", {"tiny": protocol})
  monkeypatch.setattr(lgcvd.Pipeline, "predict_chunks", None)  # told before anything is drawn
  with pytest.raises(checks.UserError, match=message):
    lgcvd_prediction.evaluate(workdir, None, "tiny")
  with pytest.raises(checks.UserError, match=r"Unknown protocol 'big'\. Choose one of: tiny"):
    lgcvd_prediction.evaluate(workdir, None, "big")


def test_a_protocol_s_sampler_brings_its_grid(workdir) -> None:
  """The digits' means are drawn on 'log_snr', which a hundred steps refuse."""
  pipeline = lgcvd.Pipeline.from_workdir(workdir).with_settings(
    sampler={"kind": "dpmpp_2m", "num_steps": 3, "grid": "log_snr"}
  )
  followed = lgcvd_prediction.follow(pipeline, PROTOCOLS["mcvd_bair"]).config.sample.sampler
  assert (followed.kind, followed.num_steps, followed.grid) == ("ddpm", 100, "spaced")


def test_generated_videos_are_scored_against_the_test_split(monkeypatch, workdir) -> None:
  require(i3d_weights.WEIGHTS)
  require(lpips_weights.WEIGHTS["alex"])
  seen = []

  def features(chunks, resize: str) -> set_scores.Features:
    seen.append(np.concatenate(list(chunks)))
    frames = np.stack([projection(frame, resize) for frame in seen[-1].swapaxes(0, 1)], axis=1)
    return set_scores.Features(projection(seen[-1], resize), frames)

  monkeypatch.setattr(set_scores, "features", features)
  monkeypatch.setattr(glober_protocols, "CHUNK", 2)
  few = {"num_real": 4, "num_drawn": 3, "num_frames": 10, "splits": ("test",)}
  protocol = ClipProtocol("drawn", "Of a test.", **few)
  record = lgcvd_generation.evaluate(workdir, None, protocol)
  real, drawn = seen
  assert real.shape == (4, 10, SIDE, SIDE, 1) and drawn.shape == (3, 10, SIDE, SIDE, 1)
  pipeline = lgcvd.Pipeline.from_workdir(workdir)
  assert_same_pixels(drawn[2:], pipeline.generate(1, num_frames=10, seed=1).videos)
  expected = frechet.fvd(*(projection(clips, "torch") for clips in (real, drawn)))
  assert record["scores"]["generated"]["fvd"] == pytest.approx(expected)
  figures = {"alexnet_frame_frechet", "i3d_inception_score", "i3d_kernel_distance", "sharpness"}
  assert figures <= record["scores"]["generated"].keys()
  assert list(record["scores"]["nearest_training_clip"]) == ["generated", "real"]
  assert (
    json.loads((workdir / "evaluations" / "drawn.json").read_text())["protocol"]["num_real"] == 4
  )
  again = lgcvd_generation.evaluate(workdir, None, protocol, reuse=True)
  assert again == json.loads(json.dumps(record)) and len(seen) == 2
  with pytest.raises(checks.UserError, match="'glober_reconstruction' is for GLOBER's clips"):
    lgcvd_generation.evaluate(workdir, None, "glober_reconstruction")


def test_videos_spaced_evenly(judge, workdir) -> None:
  pipeline = lgcvd.Pipeline.from_workdir(workdir)
  store = frame_stores.open_store(pipeline.config, "test")
  spaced = dataclasses.replace(TINY, choice="spaced", num_videos=2)
  ends = lgcvd_prediction.held_out(pipeline, store, spaced)[0]
  for clip, video in zip(ends, (0, store.num_videos - 1), strict=True):
    whole = store.read(video, np.arange(store.videos[video]["frames"]))
    starts = range(len(whole) - len(clip) + 1)
    assert any(np.array_equal(clip, whole[i : i + len(clip)]) for i in starts)


def test_mirrored_test_videos(judge, workdir) -> None:
  pipeline = lgcvd.Pipeline.from_workdir(workdir)
  store = frame_stores.open_store(pipeline.config, "test")
  plain = lgcvd_prediction.held_out(pipeline, store, TINY)[0]
  mirroring = dataclasses.replace(TINY, flip=True, seed=0)
  flipped, _ = lgcvd_prediction.held_out(pipeline, store, mirroring)
  same = [np.array_equal(a, b) for a, b in zip(plain, flipped)]
  mirrored = [np.array_equal(a[:, :, ::-1], b) for a, b in zip(plain, flipped)]
  assert np.logical_xor(same, mirrored).all() and any(same) and any(mirrored)


# ---- what the command refuses


def test_modes_of_another_system_are_told(workdir) -> None:
  assert main.saved_config(workdir, None).system == "lgcvd"
  for system, mode, has in (
    ("lgcvd", "redraw", "sample, predict, interpolate, evaluate"),
    ("glober", "predict", "sample, redraw, reconstruct, cache, evaluate"),
  ):
    with pytest.raises(checks.UserError, match=f"{system!r} has no --mode={mode}.* has {has}"):
      main.mode_function(system, mode)
  other = tiny.config()
  other.system = "glober"
  with pytest.raises(checks.UserError, match="a run of system 'lgcvd', but --config is for 'glob"):
    main.saved_config(workdir, other)
