"""What a user calls: prediction, interpolation, generation, and their errors."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from tests.lgcvd import tiny
from videodiff_jax.lgcvd import pipeline as pipeline_module
from videodiff_jax.lgcvd.pipeline import Pipeline
from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import CheckpointError


@pytest.fixture(scope="module", autouse=True)
def linear_networks() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pipeline_module, "build", tiny.build)
    yield


@pytest.fixture(scope="module")
def pipe(linear_networks) -> Pipeline:
  """On eight devices."""
  return Pipeline(tiny.config(), tiny.weights(), partitioning.make_mesh())


@pytest.fixture(scope="module")
def one_device(linear_networks) -> Pipeline:
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  return Pipeline(tiny.config(), tiny.weights(), mesh)


def given(n: int = 3) -> np.ndarray:
  return tiny.clips(n)[:, : tiny.SLOTS]


def close(a: np.ndarray, b: np.ndarray) -> None:
  """Up to the rounding of a pixel."""
  assert a.shape == b.shape
  assert np.abs(a.astype(int) - b).max() <= 1


@pytest.fixture(scope="module")
def futures(pipe) -> np.ndarray:
  """Two of each of three videos, 12 frames from two."""
  return pipe.predict(given(), num_frames=12, trajectories=2, seed=3).by_video


def test_prediction_keeps_what_was_given(futures) -> None:
  assert futures.shape == (3, 2, 14, tiny.SIDE, tiny.SIDE, 1) and futures.dtype == np.uint8
  for trajectory in (0, 1):
    np.testing.assert_array_equal(futures[:, trajectory, : tiny.SLOTS], given())
  assert np.abs(futures[:, 0, 2:].astype(int) - futures[:, 1, 2:]).max() > 5


def test_a_trajectory_is_its_own(pipe, one_device, futures) -> None:
  """Whatever the number of videos, trajectories, frames, chunks or devices."""
  close(pipe.predict(given()[:2], num_frames=12, seed=3).by_video, futures[:2, :1])
  close(pipe.predict(given(), num_frames=3, trajectories=2, seed=3).by_video, futures[:, :, :5])
  close(one_device.predict(given(), num_frames=12, trajectories=2, seed=3).by_video, futures)
  other = pipe.predict(given(), num_frames=12, trajectories=2, seed=4).by_video
  assert np.abs(other[:, :, 2:].astype(int) - futures[:, :, 2:]).max() > 5


def test_chunks_are_the_whole_and_what_was_drawn_before_is_left_out(one_device) -> None:
  """Bit for bit: every chunk runs the same compiled function on the same rows."""
  pipeline = one_device.with_settings(videos_per_chunk=4)
  whole = pipeline.predict(given(), num_frames=12, trajectories=3, seed=3).videos
  for begin in (0, 4, 8, 9):
    chunks = list(
      pipeline.predict_chunks(given(), num_frames=12, trajectories=3, seed=3, begin=begin)
    )
    assert [len(videos) for _, videos in chunks] == [4, 4, 1][begin // 4 :][: 9 - begin]
    for at, (which, videos) in zip(range(begin, 9, 4), chunks):
      expected = [divmod(row, 3) for row in range(at, min(at + 4, 9))]
      assert which.tolist() == [list(row) for row in expected]
      np.testing.assert_array_equal(videos, whole[at : at + 4])
  past, future = given()[:, :1], given()[:, 1:]
  filled = pipeline.interpolate(past, future, gap=4, trajectories=3, seed=3).by_video
  ((which, rest),) = pipeline.interpolate_chunks(
    past, future, gap=4, trajectories=3, seed=3, begin=8
  )
  assert which.tolist() == [[2, 2]]
  np.testing.assert_array_equal(rest[0], filled[2, 2])
  with pytest.raises(ValueError, match="must be a multiple of the chunk size 4, not 3"):
    list(pipeline.predict_chunks(given(), num_frames=12, trajectories=3, begin=3))


def test_sampling_may_have_a_precision_of_its_own(one_device, monkeypatch) -> None:
  built = []
  monkeypatch.setattr(
    pipeline_module, "build", lambda config: [built.append(config.precision), tiny.build(config)][1]
  )
  config = tiny.config()
  config.precision = "bfloat16"
  Pipeline(config, tiny.weights(), one_device.mesh).with_settings(precision="float32")
  assert built == ["bfloat16", "float32"]


def test_one_compilation_for_any_length_and_task(pipe, futures) -> None:
  pipe.predict(given(), num_frames=30)
  pipe.predict(given()[:, :1], num_frames=5)
  pipe.interpolate(given()[:, :1], given()[:, 1:], gap=4)
  pipe.generate(2, num_frames=9)
  assert pipe.rollout.step._cache_size() == 1


def test_frames_are_streamed(pipe) -> None:
  stream = pipe.stream(given(), num_frames=10**6, seed=3)
  pieces = [next(stream) for _ in range(3)]
  assert [piece.shape[1] for piece in pieces] == [6] * 3
  assert jax.sharding.get_mesh().empty  # the caller's turn
  close(np.concatenate(pieces, axis=1), pipe.predict(given(), num_frames=16, seed=3).videos)


@pytest.mark.parametrize("gap", [1, 6])
def test_interpolation_fills_the_gap(pipe, gap: int) -> None:
  past, future = given()[:, :1], given()[:, 1:]
  drawn = pipe.interpolate(past, future, gap=gap)
  assert drawn.videos.shape[1] == gap + 2
  np.testing.assert_array_equal(drawn.videos[:, [0, -1]], given())
  np.testing.assert_array_equal(drawn.positions, [0, gap + 1])
  other = pipe.interpolate(past, 255 - future, gap=gap).videos
  assert (other[:, 1:-1] != drawn.videos[:, 1:-1]).any()


def test_generation_starts_from_nothing(pipe) -> None:
  drawn = pipe.generate(5, num_frames=11)
  assert drawn.videos.shape == (5, 11, tiny.SIDE, tiny.SIDE, 1)
  assert not len(drawn.positions)
  assert len(np.unique(drawn.videos.reshape(5, -1), axis=0)) == 5


def test_which_weights_encode(one_device) -> None:
  def encoder(pipeline: Pipeline) -> float:
    return float(pipeline.params["params"]["encoder"])

  raw = one_device.with_settings(encoder_weights="raw")
  averaged, trained = (float(tiny.weights()[w]["params"]["encoder"]) for w in ("ema", "raw"))
  assert (encoder(one_device), encoder(raw)) == (averaged, trained)
  assert averaged != trained
  np.testing.assert_array_equal(
    raw.params["params"]["unet"], tiny.weights()["ema"]["params"]["unet"]
  )
  assert encoder(raw.with_settings(encoder_weights="ema")) == averaged  # a copy of the copy


def test_settings_of_a_copy_stay_with_it(one_device) -> None:
  other = one_device.with_settings(sampler={"num_steps": 9}, given_frames="redrawn")
  assert other.config.sample.sampler.num_steps == other.rollout.sampler.num_steps == 9
  assert other.rollout.given_frames == "redrawn"
  assert one_device.config.sample.sampler.num_steps == 2
  assert one_device.rollout.given_frames == "kept"


def test_wrong_requests_are_told(one_device) -> None:
  with pytest.raises(ValueError, match=r"uint8 of shape \(n, p, 8, 8, 1\), not float32"):
    one_device.predict(given().astype(np.float32), num_frames=4)
  with pytest.raises(ValueError, match="3 past and 0 future frames do not fit the 2 slots"):
    one_device.predict(tiny.clips(1)[:, :3], num_frames=4)
  with pytest.raises(ValueError, match="the longest gap is 6"):
    one_device.interpolate(given()[:, :1], given()[:, 1:], gap=7)
  with pytest.raises(ValueError, match="0 frames were asked for"):
    one_device.generate(num_frames=0)
  with pytest.raises(ValueError, match="0 videos with 1 trajectories"):
    one_device.generate(0, num_frames=4)
  with pytest.raises(TypeError, match="num_frames"):  # never 16 videos in place of 16 frames
    one_device.generate(16)
  with pytest.raises(ValueError, match=r"'guidance'\. Choose one of: .*trajectories"):
    one_device.with_settings(guidance=2.0)


def test_positions_that_training_never_drew_are_told(linear_networks, monkeypatch) -> None:
  """Once a call, and nothing where all were trained; nothing is drawn here."""
  said: list[str] = []
  monkeypatch.setattr(
    pipeline_module.logging, "warning", lambda text, *values: said.append(text % values)
  )

  def drawn(_, frames, positions, of, total, rows, seed, begin=0) -> pipeline_module.Chunks:
    yield rows, np.zeros((len(rows), total, tiny.SIDE, tiny.SIDE, 1), np.uint8)

  monkeypatch.setattr(Pipeline, "_drawn", drawn)
  config = tiny.config()
  config.tasks.shares.update(prediction=0.75, generation=0.05, interpolation=0.2, infilling=0.0)
  config.data.update(num_frames=42, stride_multiples=(1, 3))
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  plain = Pipeline(config, tiny.weights(), mesh)
  one, other = given()[:, :1], given()[:, 1:]

  def warned(call, *args, **settings) -> str:
    said.clear()
    call(*args, **settings)
    assert len(said) <= 1
    return said[0] if said else ""

  assert not warned(plain.predict, given(), num_frames=28)
  assert not warned(plain.interpolate, one, other, gap=6)
  assert "at positions [0, 3] of" in warned(
    plain.interpolate, one, other, gap=20
  )  # stride 3, then 1 between
  assert not warned(plain.generate, num_frames=20)
  text = warned(plain.predict, one, num_frames=5)
  assert "never trained with frames given at positions [0] of a fragment (0 to 7)" in text
  assert "prediction 0.75, generation 0.05, interpolation 0.2 (config.tasks.shares)" in text
  assert "at positions [0, 2] of" in warned(plain.interpolate, one, other, gap=1)
  assert "at positions [0, 4], [0, 3], [0, 2] of" in warned(plain.interpolate, one, other, gap=9)
  assert "at positions [7, 0] of" in warned(plain.infill, given(), (7, 0))
  assert "at positions [0] of" in warned(lambda given: next(plain.stream(given, num_frames=3)), one)
  config.tasks.shares.update(prediction=0.0, generation=0.8)
  config.objective.second_stage = "release"
  plain = Pipeline(config, tiny.weights(), mesh)
  assert not warned(plain.generate, num_frames=8)
  assert "at positions [0, 1] of" in warned(
    plain.generate, num_frames=9
  )  # it goes on from its own frames


def test_folder_without_a_run_is_told(tmp_path) -> None:
  with pytest.raises(CheckpointError, match=r"config\.json"):
    Pipeline.from_workdir(tmp_path)
  (tmp_path / "config.json").write_text(tiny.config().to_json())
  with pytest.raises(CheckpointError, match="--stage=lgcvd"):
    Pipeline.from_workdir(tmp_path)
