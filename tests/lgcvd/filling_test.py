"""Long gaps, filled coarsely first, and frames given anywhere in a fragment."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from experiments.setup import checks, frame_stores
from tests.helpers import assert_same_pixels
from tests.lgcvd import tiny
from videodiff_jax.lgcvd import pipeline as pipeline_module
from videodiff_jax.lgcvd.pipeline import Pipeline
from videodiff_jax.lgcvd.rollout import Rollout
from videodiff_jax.training import partitioning

STRIDES = (1, 3)


@pytest.fixture(scope="module", autouse=True)
def linear_networks() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pipeline_module, "build", tiny.build)
    yield


@pytest.fixture(scope="module")
def pipe(linear_networks) -> Pipeline:
  config = tiny.config()
  config.data.stride_multiples = STRIDES
  return Pipeline(config, tiny.weights(), partitioning.make_mesh(devices=jax.devices()[:1]))


def ends(n: int = 3) -> tuple[np.ndarray, np.ndarray]:
  clips = tiny.clips(n)
  return clips[:, :1], clips[:, 1:2]


def close(a: np.ndarray, b: np.ndarray) -> None:
  """Up to the rounding of a pixel, and of the coarser pixels it was filled from."""
  assert a.shape == b.shape
  assert np.abs(a.astype(int) - b).max() <= 2


@pytest.mark.parametrize("gap", [7, 8, 13, 20])
def test_long_gaps_have_all_their_frames(pipe, gap: int) -> None:
  drawn = pipe.interpolate(*ends(), gap=gap, trajectories=2)
  assert drawn.by_video.shape == (3, 2, gap + 2, tiny.SIDE, tiny.SIDE, 1)
  np.testing.assert_array_equal(drawn.positions, [0, gap + 1])
  for trajectory in (0, 1):
    np.testing.assert_array_equal(drawn.by_video[:, trajectory, [0]], ends()[0])
    np.testing.assert_array_equal(drawn.by_video[:, trajectory, [-1]], ends()[1])
  # Every frame was drawn, with noise of its own.
  frames = drawn.videos.reshape(6 * (gap + 2), -1)
  assert len(np.unique(frames, axis=0)) == 3 * 2 * gap + 6


def test_fine_fragments_lie_between_coarse_frames(pipe, monkeypatch) -> None:
  """Their first and last frames are those the coarse one drew."""
  calls = []
  original = Pipeline._drawn

  def watched(self, frames, positions, of, total, rows, seed):
    chunks = list(original(self, frames, positions, of, total, rows, seed))
    drawn = np.concatenate([videos for _, videos in chunks])
    calls.append((frames[of], positions[of], rows, drawn))
    return chunks

  monkeypatch.setattr(Pipeline, "_drawn", watched)
  video = pipe.interpolate(*ends(1), gap=8).videos[0]
  (_, positions, _, coarse), (given, fine_positions, rows, fine) = calls
  assert positions.tolist() == [[0, 3]] and fine_positions.tolist() == [[0, 3]] * 3
  np.testing.assert_array_equal(video[[0, 3, 6, 9]], coarse[0, :4])
  np.testing.assert_array_equal(given[:, 0], coarse[0, :3])
  np.testing.assert_array_equal(given[:, 1], coarse[0, 1:4])
  for i in range(3):
    np.testing.assert_array_equal(video[3 * i + 1 : 3 * i + 3], fine[i, 1:3])
  assert rows.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 3]]


def test_a_filling_is_its_own(pipe) -> None:
  """Whatever the number of videos, trajectories and chunks."""
  drawn = pipe.interpolate(*ends(), gap=10, trajectories=2, seed=3).by_video
  close(pipe.interpolate(*ends(2), gap=10, seed=3).by_video, drawn[:2, :1])
  chunked = pipe.with_settings(videos_per_chunk=3)
  close(chunked.interpolate(*ends(), gap=10, trajectories=2, seed=3).by_video, drawn)
  rest = list(chunked.interpolate_chunks(*ends(), gap=10, trajectories=2, seed=3, begin=3))
  assert [which.tolist() for which, _ in rest] == [[[1, 1], [2, 0], [2, 1]]]
  close(rest[0][1], drawn.reshape(6, *drawn.shape[2:])[3:])
  other = pipe.interpolate(*ends(), gap=10, trajectories=2, seed=4).by_video
  assert np.abs(other[:, :, 1:-1].astype(int) - drawn[:, :, 1:-1]).max() > 5


def test_redrawn_ends_are_the_coarse_fragment_s(pipe) -> None:
  """As the release has given frames: the model's, once."""
  redrawn = pipe.with_settings(given_frames="redrawn", last_fragment="right_aligned")
  for gap in (3, 8):
    videos = redrawn.interpolate(*ends(), gap=gap).videos
    assert videos.shape[1] == gap + 2
    assert np.abs(videos[:, [0]].astype(int) - ends()[0]).max() > 5
    assert np.abs(videos[:, [-1]].astype(int) - ends()[1]).max() > 5


def test_frames_beyond_the_gap_s_ends_stay(pipe) -> None:
  """With several slots, a long gap still takes only the two frames at its ends."""
  networks = dataclasses.replace(pipe.networks, slots=3)
  wide = pipe.with_settings()
  wide.networks = networks
  wide.rollout = Rollout(
    networks.model, networks.process, pipe.rollout.sampler, networks.num_frames, slots=3
  )
  clips = tiny.clips(2)
  drawn = wide.interpolate(clips[:, :2], clips[:, 2:3], gap=9)
  assert drawn.videos.shape[1] == 12
  np.testing.assert_array_equal(drawn.positions, [0, 1, 11])
  np.testing.assert_array_equal(drawn.videos[:, [0, 1, 11]], clips[:, :3])


def test_gaps_nothing_fills_are_told(pipe) -> None:
  with pytest.raises(ValueError, match=r"A gap of 21 .* longest gap is 20, .* strides 1, 3"):
    pipe.interpolate(*ends(), gap=21)
  with pytest.raises(ValueError, match=r"uint8 of shape \(n, p, 8, 8, 1\), not float64"):
    pipe.interpolate(ends()[0] / 255, ends()[1], gap=9)
  clips = tiny.clips(1)
  with pytest.raises(ValueError, match="2 past and 1 future frames do not fit the 2 slots"):
    pipe.interpolate(clips[:, :2], clips[:, 2:3], gap=9)
  with pytest.raises(ValueError, match="the longest gap is 6"):
    pipe.interpolate(clips[:, :2], clips[:, 2:2], gap=9)


@pytest.mark.parametrize("positions", [(5, 2), (7,), ()])
def test_infilling_keeps_frames_where_they_were_given(pipe, positions) -> None:
  frames = tiny.clips(3)[:, : len(positions)]
  drawn = pipe.infill(frames, positions, trajectories=2)
  assert drawn.by_video.shape == (3, 2, tiny.FRAMES, tiny.SIDE, tiny.SIDE, 1)
  assert drawn.positions.tolist() == list(positions)
  for trajectory in (0, 1):
    np.testing.assert_array_equal(drawn.by_video[:, trajectory, list(positions)], frames)
  assert np.abs(drawn.by_video[:, 0].astype(int) - drawn.by_video[:, 1]).max() > 5


def test_interpolation_is_an_infilling(pipe) -> None:
  past, future = ends()
  filled = pipe.infill(np.concatenate([past, future], 1), (0, 5), seed=2).videos
  assert_same_pixels(pipe.interpolate(past, future, gap=4, seed=2).videos, filled[:, :6])


def test_wrong_positions_are_told(pipe) -> None:
  infill = functools.partial(pipe.infill, tiny.clips(1)[:, :2])
  for positions, message in (
    ((0,), "2 frames were given, but 1 positions"),
    ((0, 8), "must differ and be from 0 to 7, not 0, 8"),
    ((3, 3), "must differ and be from 0 to 7, not 3, 3"),
    ((-1, 3), "must differ and be from 0 to 7"),
  ):
    with pytest.raises(ValueError, match=message):
      infill(positions)
  with pytest.raises(ValueError, match="3 frames do not fit the 2 slots"):
    pipe.infill(tiny.clips(1)[:, :3], (0, 1, 2))


def test_a_configuration_trains_its_strides() -> None:
  config = tiny.config()
  assert frame_stores.clip_sampler(config, "clip").stride_multiples == (1,)
  config.data.stride_multiples = [1, 3]  # as read again from JSON
  checks.check_config(config)
  assert frame_stores.clip_sampler(config, "clip").stride_multiples == STRIDES
  config.data.stride_multiples = (1, 9)
  with pytest.raises(checks.UserError, match=r"config\.data\.stride_multiples: The stride after 1"):
    checks.check_config(config)
