"""What a user calls: the pipeline's methods, its settings and its errors."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from tests.glober import tiny
from tests.helpers import assert_same_pixels
from videodiff_jax.glober import pipeline
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.stage import Stage

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def one_device() -> jax.sharding.Mesh:
  return partitioning.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def pipe(one_device) -> Pipeline:
  return Pipeline(tiny.config(), tiny.sampling_params(), one_device)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.normal(size=(3, *tiny.FEATURE)).astype(np.float32)


LABELS = np.array([0, 1, 0])


def test_no_collective_inside_the_sampling_loop(features, monkeypatch) -> None:
  """Parameters split over fsdp, guided: whatever is gathered is gathered before the loop.

  After it nothing else moves: latents are decoded where they are.
  """
  monkeypatch.setattr(partitioning, "_MIN_SHARDED_SIZE", 256)
  mesh = partitioning.make_mesh(2, 4)
  params = tiny.sampling_params()
  params = jax.device_put(params, partitioning.shardings(params, mesh))
  eight = Pipeline(tiny.config(), params, mesh).with_settings(guidance_decoder=3.0)
  rows = (np.repeat(features[:1], 8, 0), np.linspace(0, 1, 8, dtype=np.float32))
  rows += (np.zeros(8, np.int32), np.zeros(8, np.int32))
  with jax.set_mesh(mesh):
    placed = partitioning.put_batch(dict(enumerate(rows)), mesh)
    program = eight.frames_program.lower(params, *placed.values(), seed=0).compile().as_text()
  assert "all-gather" in program
  loops = [
    body
    for body in program.split("\n\n")
    if "while" in body.split("{")[0] or "body" in body.split("{")[0]
  ]
  assert loops
  for body in loops:
    for collective in ("all-gather(", "all-reduce(", "all-to-all(", "collective-permute("):
      assert collective not in body
  for collective in ("all-reduce(", "all-to-all(", "collective-permute("):
    assert collective not in program


def test_seed_class_and_time_all_matter(pipe, features) -> None:
  base = pipe.redraw(features, labels=LABELS, seed=0).videos
  assert (pipe.redraw(features, labels=LABELS, seed=1).videos != base).any()
  assert (pipe.redraw(features, labels=1 - LABELS, seed=0).videos != base).any()
  shifted = pipe.redraw(features, frame_times=[0.1], labels=LABELS).videos
  assert (shifted != pipe.redraw(features, frame_times=[0.2], labels=LABELS).videos).any()
  guided = pipe.with_settings(guidance_decoder=4.0, guidance_generator=4.0)
  assert (guided.redraw(features, labels=LABELS).videos != base).any()
  one, other = (p.generate(2, labels=[0, 1]).global_features for p in (pipe, guided))
  assert np.abs(one - other).max() > 1e-3


def test_shared_noise_makes_frames_alike(pipe, features) -> None:
  def spread(noise: str) -> float:
    videos = pipe.with_settings(noise=noise).redraw(features, labels=LABELS).videos
    return float(videos.std(axis=1).mean())

  assert spread("shared") < spread("mixed") < spread("individual")


def test_encode_reads_keyframes_and_their_order(pipe) -> None:
  clips = tiny.clips(2)
  v = pipe.encode(clips)
  assert v.shape == (2, *tiny.FEATURE)
  assert np.abs(pipe.encode(clips[:, ::-1]) - v).max() > 1e-3
  other = clips.copy()
  other[:, 1] = 0  # not a keyframe
  np.testing.assert_allclose(pipe.encode(other), v, atol=1e-6)


def test_reconstruct_is_encode_then_redraw(pipe) -> None:
  clips = tiny.clips(2)
  samples = pipe.reconstruct(clips, labels=[0, 1], seed=3)
  again = pipe.redraw(pipe.encode(clips), labels=[0, 1], seed=3)
  assert_same_pixels(samples.videos, again.videos)
  assert samples.videos.shape == clips.shape
  assert samples.videos.dtype == np.uint8
  assert {field.name for field in dataclasses.fields(samples)} >= {"seed", "global_features"}


def test_wrong_input_is_told(pipe, features) -> None:
  with pytest.raises(ValueError, match=r"uint8 of shape \(n, 8, 8, 8, 1\)"):
    pipe.encode(tiny.clips(1).astype(np.float32))
  with pytest.raises(ValueError, match="between 0 and 1"):
    pipe.redraw(features, frame_times=[1.5])
  with pytest.raises(ValueError, match="give one of them"):
    pipe.redraw(features, num_frames=2, frame_times=[0.5])
  for labels, message in (
    ([7], "label 7 was asked for, but this system has classes 0 to 1"),
    ([1, -3], "label -3 was"),
    ([2], "label 2 was"),  # what stands for no class
    ([0.5], "whole numbers"),
    ([0, 1, 1], r"\(3,\) do not fit 2 videos"),
  ):
    with pytest.raises(ValueError, match=message):
      pipe.generate(len(labels[:2]), labels=labels)
  with pytest.raises(ValueError, match="draw at least 1"):
    pipe.generate(0)
  config = tiny.config()
  config.condition = "none"
  with pytest.raises(ValueError, match="label 0 was asked for, but this system has no classes"):
    Pipeline(config, {}, pipe.mesh).generate(1, labels=[0])
  with pytest.raises(ValueError, match=r"'guidance'.*Did you mean 'guidance_"):
    pipe.with_settings(guidance=1.0)


def test_other_settings_leave_the_first_as_they_are(one_device) -> None:
  config = tiny.config()
  first = Pipeline(config, {}, one_device)
  other = first.with_settings(decoder={"num_steps": 9}, noise="shared")
  third = first.with_settings(guidance_decoder=2.0)
  assert other.config.sample.decoder.num_steps == 9
  for settings in (config.sample, first.config.sample, third.config.sample):
    assert (settings.decoder.num_steps, settings.noise) == (2, "individual")


def test_weights_are_loaded_split_as_in_training(tmp_path, monkeypatch) -> None:
  config = tiny.config()
  config.mesh.fsdp = 4
  (tmp_path / "config.json").write_text(config.to_json())

  def load(_: Any, __: Any, stage: Stage, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    state = tiny.state(stage.name)
    held = {"ema_params": state.params, "statistics": state.statistics}
    return jax.device_put(held, partitioning.shardings(held, mesh))

  monkeypatch.setattr(pipeline, "load_ema", load)
  monkeypatch.setattr(partitioning, "_MIN_SHARDED_SIZE", 256)
  loaded = Pipeline.from_workdir(tmp_path)
  assert loaded.mesh.shape == {"data": 2, "fsdp": 4}
  assert not all(array.is_fully_replicated for array in jax.tree.leaves(loaded.params))


def test_folder_without_a_run_is_told(tmp_path) -> None:
  with pytest.raises(CheckpointError, match=r"config\.json"):
    Pipeline.from_workdir(tmp_path)
  (tmp_path / "config.json").write_text(tiny.config().to_json())
  with pytest.raises(CheckpointError, match="--stage=kl_vae"):
    Pipeline.from_workdir(tmp_path)
