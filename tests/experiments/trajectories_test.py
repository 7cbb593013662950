"""Chunks of trajectories: their measures are the whole set's, are kept, and fill no memory."""

import dataclasses
import pathlib
import tracemalloc

import numpy as np
import pytest

from experiments.measures import trajectories
from experiments.measures.trajectories import Judge, Kept, Measured, measure
from videodiff_jax.lgcvd.pipeline import Chunks
from videodiff_jax.metrics import prediction
from videodiff_jax.metrics.digit_reader import Readings
from videodiff_jax.metrics.protocols import PredictionProtocol

N, SIDE = 3, 12  # trajectories a video; SSIM's window is 11 pixels wide
PROTOCOL = PredictionProtocol(
  "tiny", "A test's.", trajectories=N, num_frames=4, gap=4, psnr="video"
)
REAL = np.random.default_rng(1).integers(0, 256, (5, 6, SIDE, SIDE, 1), np.uint8)


def drawn(video: int, number: int) -> np.ndarray:
  rng = np.random.default_rng([video, number])
  return rng.integers(0, 256, REAL.shape[1:], np.uint8)


def chunks(size: int, per_video: int = N, stop: int | None = None, videos: int = len(REAL)):
  """`draw` of `measure`, a generator that ends with an error once `stop` chunks were drawn."""

  def draw(begin: int) -> Chunks:
    count = videos * per_video
    for i, at in enumerate(range(begin, count, size)):
      if i == stop:
        raise KeyboardInterrupt
      which = np.stack(np.divmod(np.arange(at, min(at + size, count)), per_video), axis=1)
      yield which, np.stack([drawn(*row) for row in which])

  return draw


def features(clips: np.ndarray) -> np.ndarray:
  flat = clips.reshape(len(clips), -1) / 255.0
  return flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 3))


def judge(size: int, **changes) -> Judge:
  protocol = dataclasses.replace(PROTOCOL, **changes)
  return Judge(protocol, REAL, None, False, features, size)


def close(a: Measured, b: Measured) -> None:
  for one, other in ((a.frames, b.frames), (a.scores, b.scores)):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  np.testing.assert_array_equal(a.apart, b.apart)
  np.testing.assert_array_equal(a.error, b.error)
  np.testing.assert_allclose(a.features, b.features, rtol=1e-12)
  np.testing.assert_array_equal(a.shown, b.shown)


@pytest.mark.parametrize("which", ["first", "all", "each"])
def test_chunks_measure_what_the_whole_set_would(which: str) -> None:
  judged = judge(4, fvd_trajectories=which)
  found = measure(chunks(4), judged)
  many = np.stack([[drawn(video, number) for number in range(N)] for video in range(len(REAL))])
  frames = prediction.frame_scores(many, REAL, PROTOCOL)
  scores = prediction.trajectory_scores(frames, many, REAL, PROTOCOL)
  assert found.frames.keys() == frames.keys() and found.scores.keys() == scores.keys()
  for name in scores:
    np.testing.assert_allclose(found.scores[name], scores[name], rtol=1e-12)
  for name in frames:
    np.testing.assert_allclose(found.frames[name], frames[name], rtol=1e-12)
  scored = many[:, :, PROTOCOL.first_scored :].astype(float)
  apart = np.square(np.diff(scored, axis=1)).mean(axis=(-3, -2, -1))
  error = np.square(scored - REAL[:, None, PROTOCOL.first_scored :]).mean(axis=(-3, -2, -1))
  np.testing.assert_allclose(found.apart, apart, rtol=1e-6)  # whatever chunks cut in two
  np.testing.assert_allclose(found.error, error, rtol=1e-6)
  count = 1 if which == "first" else N
  expected = [features(prediction.compared(many[:, j], REAL, PROTOCOL)) for j in range(count)]
  np.testing.assert_allclose(found.features, expected, rtol=1e-12)
  np.testing.assert_array_equal(found.shown, many[: trajectories.SHOWN, 0])


@pytest.mark.parametrize(("which", "sizes"), [("first", {2}), ("all", {4})])
def test_the_detector_sees_one_shape(which: str, sizes: set[int]) -> None:
  """It is compiled once, not again for a chunk that has fewer clips of those that count."""
  seen = []
  judged = dataclasses.replace(
    judge(4, fvd_trajectories=which), features=lambda x: [seen.append(len(x)), features(x)][1]
  )
  measure(chunks(4), judged)
  assert {*seen} == sizes


def test_what_was_killed_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
  whole = measure(chunks(4), judge(4))
  kept = Kept(tmp_path, "tiny.prediction", {"weights": "a"})
  for drawn_before in (0, 8):
    with pytest.raises(KeyboardInterrupt):
      measure(chunks(4, stop=2 if not drawn_before else 1), judge(4), kept)
  assert [len(chunk["which"]) for chunk in kept.read()] == [4, 4, 4]
  asked = []
  found = measure(lambda begin: [asked.append(begin), chunks(4)(begin)][1], judge(4), kept)
  assert asked == [12]
  close(found, whole)
  asked.clear()
  close(measure(lambda begin: [asked.append(begin), chunks(4)(begin)][1], judge(4), kept), whole)
  assert asked == [15]  # nothing is left to draw
  other = Kept(tmp_path, "tiny.prediction", {"weights": "b"})
  assert not list(other.read())  # another run's are not taken over
  kept.remove()
  assert not list(tmp_path.iterdir())


def test_a_damaged_chunk_is_measured_again(tmp_path: pathlib.Path) -> None:
  kept = Kept(tmp_path, "tiny", {})
  whole = measure(chunks(4), judge(4), kept)
  file = kept.folder / "00000008.npz"
  content = bytearray(file.read_bytes())
  content[len(content) // 3] ^= 1
  file.write_bytes(content)
  assert [len(chunk["which"]) for chunk in kept.read()] == [4, 4]
  (kept.folder / "00000000.npz").write_bytes(b"PK\x03\x04 cut")
  assert not list(kept.read())
  close(measure(chunks(4), judge(4), kept), whole)
  assert len(list(kept.read())) == 4


def test_memory_does_not_grow_with_trajectories() -> None:
  """Held: the numbers, and a chunk; not the videos, of which there are eight times as many."""

  real = np.random.default_rng(0).integers(0, 256, (2, 6, 64, 64, 1), np.uint8)

  def draw(per_video: int) -> Chunks:
    for which, _ in chunks(4, per_video, videos=len(real))(0):
      yield which, 255 - real[which[:, 0]]

  def peak(per_video: int) -> int:
    judged = dataclasses.replace(judge(4, trajectories=per_video), real=real)
    tracemalloc.start()
    try:
      measure(lambda _: draw(per_video), judged)
      return tracemalloc.get_traced_memory()[1]
    finally:
      tracemalloc.stop()

  peak(4)  # what the first call sets up
  few, many = peak(4), peak(32)
  videos = len(real) * (32 - 4) * real[0].nbytes
  assert many - few < videos / 10, (few, many, videos)


class Reader:
  """Reads a frame's first pixel, modulo 2."""

  def read(self, clips: np.ndarray) -> Readings:
    digits = clips[:, :, 0, 0, 0].astype(int) % 2
    return Readings(digits, digits[:, 0])

  def sees(self, clips: np.ndarray) -> np.ndarray:
    """All but a clip's third frame."""
    return np.broadcast_to(np.arange(clips.shape[1]) != 2, clips.shape[:2])


def test_digits_are_read_in_the_scored_frames() -> None:
  labels = np.arange(len(REAL)) % 2
  reading = dataclasses.replace(judge(4), reader=Reader(), labels=labels)
  found = measure(chunks(4), reading)
  many = np.stack([[drawn(video, number) for number in range(N)] for video in range(len(REAL))])
  digits = many[:, :, PROTOCOL.first_scored :, 0, 0, 0] % 2
  right = digits == labels[:, None, None]
  np.testing.assert_array_equal(found.frames["digit_right"], right)
  shown = np.delete(right, 2, axis=-1)
  np.testing.assert_allclose(found.scores["digit_right"], shown.mean(axis=-1))
  np.testing.assert_array_equal(found.scores["digit_right_last"], right[..., -1])
  np.testing.assert_array_equal(found.scores["digit_right_clip"], right[..., 0])
  assert 0 < right[..., 0].mean() < 1  # as `Reader` reads a clip, by its first frame
  agree = (digits == digits[..., :1]).mean(axis=-1)
  np.testing.assert_allclose(found.scores["digit_agreement"], agree)


def test_frames_since_the_digit_came_back_have_a_share_of_their_own() -> None:
  real = REAL.copy()
  real[:] = 100
  real[:, 3] = 0  # of the scored frames 2 to 5 the last two count

  class Halves:
    """Reads a 1 in the last frame alone."""

    def read(self, clips: np.ndarray) -> Readings:
      digits = np.zeros(clips.shape[:2], int)
      digits[:, -1] = 1
      return Readings(digits, digits[:, 0])

    def sees(self, clips: np.ndarray) -> np.ndarray:
      return np.ones(clips.shape[:2], bool)

  judged = dataclasses.replace(judge(4), real=real, reader=Halves(), labels=np.ones(len(real)))
  assert (measure(chunks(4), judged).scores["digit_right_back"] == 0.5).all()
  judged = dataclasses.replace(judged, real=np.full_like(real, 100))
  assert "digit_right_back" not in measure(chunks(4), judged).scores
