"""From an empty folder to clips: the stages, a second call, sampling, redrawing, reconstructing."""

import json
import pathlib
import types

import ml_collections
import numpy as np
import pytest

from data import prepare
from experiments import checks, sample, train
from tests.glober import tiny
from videodiff_jax import glober

OPTIONS = {
  "class_label": None, "num_videos": 2, "num_frames": None, "frame_times": None, "start": 0.0,
  "end": None, "sampler": None, "steps": None, "guidance_scale": None, "seed": 0, "input": None,
}  # fmt: skip


def options(**changes: object) -> types.SimpleNamespace:
  return types.SimpleNamespace(**(OPTIONS | changes))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ml_collections.ConfigDict:
  config = tiny.config()
  config.data.name = "moving_digits"
  config.data.dir = str(tmp_path_factory.mktemp("data") / "digits")
  config.data.num_classes = 10
  config.mesh.data = 8
  for name in config.stages:
    config.train[name].update(steps=2, log_every=1, checkpoint_every=2, preview_every=2)
  pytest.importorskip("av", reason="mp4 needs PyAV (extra demo)")
  with checks.told():
    prepare.ensure("moving_digits", config.data.dir, size=tiny.SIDE, num_videos=40)
  return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  assert train.train(config, workdir, None)
  return workdir


def newest(workdir: pathlib.Path) -> pathlib.Path:
  return max((workdir / "samples").iterdir())


def test_every_stage_leaves_checkpoints_metrics_and_previews(workdir) -> None:
  for name in ("kl_vae", "autoencoder", "generator"):
    assert (workdir / name / "checkpoints" / "2").is_dir()
    assert len((workdir / name / "metrics.jsonl").read_text().splitlines()) == 2
    assert {file.suffix for file in (workdir / name / "previews").iterdir()} == {".png", ".gif"}


def test_a_second_call_has_nothing_to_do(workdir, config) -> None:
  before = {file: file.stat().st_mtime_ns for file in workdir.rglob("metrics.jsonl")}
  assert train.train(config, workdir, None)
  assert before == {file: file.stat().st_mtime_ns for file in workdir.rglob("metrics.jsonl")}


def test_another_model_is_refused_in_the_same_workdir(workdir, config) -> None:
  other = config.copy_and_resolve_references()
  other.model.unet.channels = 16
  with pytest.raises(checks.UserError, match=r"config\.model\.unet\.channels: 8 there, 16 now"):
    train.train(other, workdir, None)


def test_sample_then_redraw_at_a_higher_rate(workdir) -> None:
  sample.sample(workdir, None, options(class_label=3, seed=7))
  first = newest(workdir)
  with np.load(first / "samples.npz") as saved:
    videos, labels = saved["videos"], saved["labels"]
    assert videos.shape == (2, tiny.FRAMES, tiny.SIDE, tiny.SIDE, 1)
    assert labels.tolist() == [3, 3] and int(saved["seed"]) == 7
  assert len(list(first.glob("*.mp4"))) == 2
  assert json.loads((first / "settings.json").read_text())["mode"] == "sample"
  sample.redraw(workdir, None, options(num_frames=2 * tiny.FRAMES - 1))
  with np.load(newest(workdir) / "samples.npz") as again:
    assert again["videos"].shape[1] == 2 * tiny.FRAMES - 1
    # Every second frame is a frame of the sample, drawn from the same noise.
    difference = np.abs(again["videos"][:, ::2].astype(int) - videos)
    assert difference.max() <= 1


def test_reconstruct_the_test_split_and_a_file(workdir, tmp_path) -> None:
  sample.reconstruct(workdir, None, options())
  folder = newest(workdir)
  sample.reconstruct(workdir, None, options(input=str(folder / "000.mp4")))
  assert newest(workdir) != folder
  with pytest.raises(checks.UserError, match="a clip needs 8"):
    short = tmp_path / "short.mp4"
    from videodiff_jax.inputs import video_io

    video_io.write_mp4(short, np.zeros((3, 16, 16, 3), np.uint8))
    sample.reconstruct(workdir, None, options(input=str(short)))


def test_library_reads_what_the_command_wrote(workdir) -> None:
  pipeline = glober.Pipeline.from_workdir(workdir, guidance_decoder=2.0)
  assert pipeline.config.sample.guidance_decoder == 2.0
  assert pipeline.generate(1, np.array([0.5])).videos.shape == (1, 1, tiny.SIDE, tiny.SIDE, 1)


def test_wrong_requests_are_told(workdir) -> None:
  with pytest.raises(checks.UserError, match="numbers such as"):
    sample.sample(workdir, None, options(frame_times=["a"]))
  with pytest.raises(checks.UserError, match="classes are 0 to 9"):
    sample.sample(workdir, None, options(class_label=10))
  with pytest.raises(checks.UserError, match="No file"):
    sample.redraw(workdir, None, options(input="nowhere.npz"))
