"""The ladder in parts: the figures of all clips at once, in the memory of a few."""

import tracemalloc
import types
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from experiments.measures import digits, ladder, nearest
from videodiff_jax.inputs.clips import ClipSampler, Places
from videodiff_jax.metrics import i3d
from videodiff_jax.metrics.digit_reader import Readings

FRAMES, SIDE = 10, 32
REFERENCE, HELD_OUT = 9, 10
CLIP = FRAMES * SIDE * SIDE  # bytes


class Store:
  """Videos of a bright square that moves over dim noise."""

  def read(self, video: int, indices: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(int(video))
    frames = rng.integers(0, 40, (64, SIDE, SIDE, 1), np.uint8)
    begin, step = rng.integers(0, 4, 2), rng.uniform(0.2, 0.6, 2)
    for f, frame in enumerate(frames):
      y, x = np.rint(begin + f * step).astype(int) % (SIDE - 4)
      frame[y : y + 4, x : x + 4] = 255
    return frames[indices]


class Pipeline:
  """Clip n of a seed is a function of both, and of what the n-th clip is told, alone."""

  frame_times = np.arange(FRAMES) / FRAMES
  config = types.SimpleNamespace(
    data=types.SimpleNamespace(
      num_frames=FRAMES, image_size=SIDE, channels=1, num_keyframes=3
    )
  )  # fmt: skip
  mesh = types.SimpleNamespace(devices=np.zeros(2))

  def encode(self, clips: np.ndarray) -> np.ndarray:
    return clips.reshape(len(clips), -1).mean(axis=1)

  def reconstruct_frames(self, clips: np.ndarray) -> np.ndarray:
    return clips // 8 * 8

  def redraw(self, features, *, frame_times=None, labels, prompts, seed, first) -> Any:
    assert len(features) == len(labels) == len(prompts)
    times = self.frame_times if frame_times is None else frame_times
    videos = []
    for i, feature in enumerate(features):
      assert prompts[i] == f"prompt {labels[i]}"
      video = np.random.default_rng([seed, first + i, labels[i]]).integers(
        0, 60, (len(times), SIDE, SIDE, 1), np.uint8
      )
      for frame, time in zip(video, times):
        y = int(8 * time)
        frame[y : y + 4, 3:7] = 100 + int(feature)
      videos.append(video)
    return types.SimpleNamespace(videos=np.stack(videos))

  def generate(self, count, *, seed, first, **told) -> Any:
    features = np.arange(first, first + count)
    return self.redraw(features, seed=seed + 1, first=first, **told)


def features(parts: Iterable[np.ndarray]) -> np.ndarray:
  """(n, 5): a projection in which every pixel counts."""
  weights = np.random.default_rng(0).normal(size=(CLIP, 5)) / 255
  return np.concatenate([part.reshape(len(part), -1) @ weights for part in parts])


class Reader:
  """Reads the brightest row's number, modulo 3; nothing in dark frames."""

  def read(self, clips: np.ndarray) -> Readings:
    digits = clips[..., 0].sum(axis=-1, dtype=int).argmax(axis=-1) % 3
    return Readings(digits, digits[:, 0])


def measured(held_out: int, monkeypatch, clips_a_part: int) -> ladder.Ladder:
  sampler = ClipSampler(FRAMES, content="clip")
  reference, real = (
    Places(Store(), sampler, np.arange(n) + begin, np.arange(n) % 5)
    for n, begin in ((REFERENCE, 1000), (held_out, 0))
  )
  labels = np.arange(held_out) % 3
  prompts = [f"prompt {label}" for label in labels]
  monkeypatch.setattr(ladder, "_PART_BYTES", clips_a_part * CLIP)
  monkeypatch.setattr(nearest, "_MOST_BYTES", 7 * CLIP)
  monkeypatch.setattr(i3d, "features", features)
  return ladder.measure(
    Pipeline(), reference, ladder.HeldOut(real, labels, prompts), seed=3, with_motion=True,
    reading=ladder.Reading(Reader(), labels, conditioned=True),
  )  # fmt: skip


def figures(found: ladder.Ladder) -> list[Any]:
  return [
    *ladder.set_figures(found, 0),
    *ladder.frame_figures(found, 0),
    ladder.motion_figures(found),
    *digits.summary(found.readings, 0),
    *ladder.sharpness_figures(found, 0),
  ]


def test_parts_give_the_figures_of_the_whole(monkeypatch) -> None:
  """Also where the last part is not full."""
  whole, parts = (measured(HELD_OUT, monkeypatch, size) for size in (1000, 4))
  assert_equal(figures(parts), figures(whole))
  assert whole.shown.keys() == whole.features.keys()
  for name, videos in whole.shown.items():
    assert len(videos) == ladder.SHOWN
    np.testing.assert_array_equal(parts.shown[name], videos, err_msg=name)
    np.testing.assert_allclose(parts.features[name], whole.features[name], err_msg=name)
    assert len(np.unique(whole.features[name], axis=0)) == HELD_OUT  # no clip twice
  for name in ("generated", "real"):
    assert len(whole.searched[name]) == 7
    np.testing.assert_array_equal(parts.searched[name], whole.searched[name])
    np.testing.assert_array_equal(whole.searched[name][: ladder.SHOWN], whole.shown[name])


def test_generated_clips_that_were_told_nothing_have_no_digit_to_be_right_in(monkeypatch) -> None:
  found = measured(4, monkeypatch, 4)
  sets = {name: np.broadcast_to(np.uint8(100), (4, FRAMES, SIDE, SIDE, 1)) for name in found.shown}
  found.readings.clear()
  reading = ladder.Reading(Reader(), np.arange(4) % 3, conditioned=False)
  ladder._read(found, sets, reading, np.arange(4))
  scores, spread = digits.summary(found.readings, 0)
  assert scores["generated"] == {"visible": 1.0, "agreement": 1.0}
  right = {"frames_right": 0.5, "clip_right": 0.5}
  assert scores["real"] == {"visible": 1.0, "agreement": 1.0} | right
  assert spread["real"].keys() == scores["real"].keys()


def test_sharpness_is_of_the_real_clips_edges(monkeypatch) -> None:
  scores, spread = ladder.sharpness_figures(measured(4, monkeypatch, 4), 0)
  assert scores["real"] == pytest.approx(1)
  assert scores["shuffled"] == pytest.approx(1)
  assert scores["blurred"] < 0.5
  assert spread["blurred"][0] <= scores["blurred"] <= spread["blurred"][1]


def assert_equal(a: Any, b: Any) -> None:
  """Equal trees of numbers, to the rounding of float64 that roots of small eigenvalues enlarge."""
  if isinstance(b, dict):
    assert list(a) == list(b)
    a, b = list(a.values()), list(b.values())
  if isinstance(b, list):
    assert len(a) == len(b)
    for of_a, of_b in zip(a, b):
      assert_equal(of_a, of_b)
  else:
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_memory_does_not_grow_with_the_clips(monkeypatch) -> None:
  peaks = []
  for held_out in (8, 8, 32):  # the first run also loads what it needs
    tracemalloc.start()
    measured(held_out, monkeypatch, 4)
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  # What is kept of a clip is less than two copies of it, and there are seven sets.
  assert peaks[2] - peaks[1] < 2 * (32 - 8) * CLIP


@pytest.mark.parametrize(("side", "clips"), [(16, 26214), (128, 408), (2048, 2)])
def test_a_part_is_bounded_in_bytes_and_of_every_device(monkeypatch, side, clips) -> None:
  monkeypatch.setattr(Pipeline.config.data, "image_size", side)
  assert ladder._part_size(Pipeline()) == clips
