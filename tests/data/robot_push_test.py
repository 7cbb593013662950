import sys

import numpy as np
import pytest

from data import robot_push, robot_scene
from data.prepare import ensure
from data.robot_push import Pusher, RobotPush, RobotPushOptions
from tests.helpers import needs
from videodiff_jax.inputs.frame_store import FrameStore, RecordEncoder


def load(name: str, **options):
  """The frames, uint8 (f, h, w, 3), and the extras as arrays of one video."""
  needs("pybullet")
  video = RobotPush(data_dir="unused", options=RobotPushOptions(**options)).load(name)
  return np.stack(video.frames), {key: np.array(value) for key, value in video.extra.items()}


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory):
  needs("pybullet")
  return ensure("robot_push", tmp_path_factory.mktemp("robot") / "store", num_videos=2)


@pytest.fixture(scope="module")
def thumbnails():
  """The extras of eight whole videos, of which hardly anything is drawn."""
  return [load(f"train/{i:06d}", size=2)[1] for i in range(8)]


def test_store(store_dir) -> None:
  for split in ("train", "test"):
    store = FrameStore.open(store_dir, split)
    assert (store.channels, store.image_size, store.codec) == (3, 64, "jpeg")
    assert store.videos[0] | {"name": "", "first": 0} == {
      "name": "", "first": 0, "frames": 30, "fps": 10.0, "label": 0
    }  # fmt: skip
    extra = store.extra(0)
    assert extra["actions"].shape == extra["positions"].shape == (30, 3)
    assert extra["objects"].shape in ((30, 3, 2), (30, 4, 2))


def test_whole_set_keeps_its_counts() -> None:
  needs("pybullet")
  names = [*RobotPush(data_dir="unused").candidates()]
  assert sum(name.startswith("train/") for name in names) == 1024
  assert sum(name.startswith("test/") for name in names) == 256


def test_drawn_again_it_is_the_same_to_the_bit(store_dir) -> None:
  """The store was drawn in threads, among other videos, in another world of the process."""
  store = FrameStore.open(store_dir)
  frames, extra = load("train/000000", num_videos=5)
  encode = RecordEncoder(store._features, "jpeg")
  for t, frame in enumerate(frames):
    assert encode(frame, "train/000000", t) == store._records[t]
  for key, value in extra.items():
    np.testing.assert_array_equal(value.astype(np.float32), store.extra(0)[key])


def test_seed_split_and_index_each_make_another_video() -> None:
  small = {"size": 8, "num_frames": 1}
  first, _ = load("train/000000", **small)
  for name, options in (("train/000001", {}), ("test/000000", {}), ("train/000000", {"seed": 1})):
    assert (load(name, **small, **options)[0] != first).any()


def test_objects_are_pushed_and_stay_on_the_table(thumbnails) -> None:
  moved = [np.linalg.norm(extra["objects"] - extra["objects"][0], axis=-1) for extra in thumbnails]
  assert np.mean([distance.max() > 0.01 for distance in moved]) >= 0.75
  assert np.median([distance.max() for distance in moved]) > 0.05
  assert np.mean([np.mean(distance[-1] > 0.01) for distance in moved]) < 1  # not all of them
  for extra in thumbnails:
    assert (np.abs(extra["objects"] - robot_scene.CENTRE) < 0.4).all()


def test_the_arm_does_what_actions_say(thumbnails) -> None:
  for extra in thumbnails:
    actions, positions = extra["actions"], extra["positions"]
    told = positions[0] + np.cumsum(actions, axis=0)[:-1]
    lag = np.linalg.norm(positions[1:] - told, axis=-1)
    assert lag.max() < 0.035 and lag.mean() < 0.02  # behind, but it does not drift away
    steps = np.linalg.norm(actions, axis=-1)
    assert 0.015 < steps.mean() < steps.max() < 0.0501
    assert positions[:, 2].min() > 0  # never in the table


def test_arm_and_objects_can_be_seen(store_dir) -> None:
  store = FrameStore.open(store_dir)
  frames = store.read(0, range(30)).astype(int)
  table = np.median(frames, (0, 1, 2))
  coloured = frames.max(-1) - frames.min(-1) > 40
  arm = ~coloured & (np.abs(frames - table).max(-1) > 15)
  assert coloured[0].sum() >= 15 * store.extra(0)["objects"].shape[1]
  assert 100 < arm.sum((1, 2)).mean() < 1500
  assert np.abs(np.diff(arm.astype(int), axis=0)).sum((1, 2)).mean() > 20  # it moves


def test_pushes_go_through_the_object_low_and_come_from_above() -> None:
  for seed in range(50):
    rng = np.random.default_rng(seed)
    place = robot_scene.CENTRE + rng.uniform(-1, 1, 2) * robot_scene.REACH
    above, start, end, up = robot_push.reach_and_push(rng, place)
    np.testing.assert_allclose(above[:2], start[:2])
    np.testing.assert_allclose(up[:2], end[:2])
    assert min(above[2], up[2]) > 0.06 > 0.03 > start[2] == end[2]
    along = (end - start)[:2] / np.linalg.norm(end - start)
    across = (place - start[:2]) @ [-along[1], along[0]]
    assert abs(across) < 1e-9 and 0 < (place - start[:2]) @ along < np.linalg.norm(end - start)


def test_pusher_reaches_its_points_and_chooses_again() -> None:
  pusher, target = Pusher(np.random.default_rng(0)), np.array([0.5, 0.0, 0.1])
  objects, low = np.array([[0.4, -0.1], [0.6, 0.1]]), []
  for _ in range(60):
    target = target + pusher.act(target, objects)
    low.append(target[2] < 0.03)
  assert np.count_nonzero(np.diff(np.array(low, int)) == 1) >= 2  # times it went down


def test_without_pybullet_nothing_is_begun(tmp_path, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "pybullet", None)
  with pytest.raises(ImportError, match=r'pybullet: pip install -e "\.\[robot\]"'):
    ensure("robot_push", tmp_path / "store")
  assert not [*tmp_path.iterdir()]


def test_one_video_is_an_error() -> None:
  with pytest.raises(ValueError, match="need at least 2"):
    RobotPushOptions(num_videos=1)
