import pathlib
import subprocess
import sys

import numpy as np
import pytest

from data.prepare import ensure
from data.sets import doom_world
from data.sets.doom import TEST_LEVELS, TRAIN_LEVELS, Doom, DoomOptions
from data.sets.doom_world import LEVELS, Action, Walker
from tests.helpers import ROOT, needs
from videodiff_jax.inputs.frame_store import FrameStore, RecordEncoder

FAR, WALL = np.full((240, 320), 100, np.uint8), np.full((240, 320), 5, np.uint8)


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory) -> pathlib.Path:
  needs("vizdoom")
  return ensure("doom", tmp_path_factory.mktemp("doom") / "store", num_videos=3, num_frames=12)


def test_store(store_dir) -> None:
  for split, count, levels in (("train", 2, TRAIN_LEVELS), ("test", 1, TEST_LEVELS)):
    store = FrameStore.open(store_dir, split)
    assert (store.num_videos, store.channels, store.image_size) == (count, 3, 64)
    assert (store.codec, store.videos[0]["frames"]) == ("jpeg", 12)
    for video in range(count):
      extra, frames = store.extra(video), store.read(video, np.arange(12)).astype(int)
      assert extra["actions"].shape == extra["poses"].shape == (12, 3)
      assert extra["level"] in levels
      assert np.abs(np.diff(frames, axis=0)).mean() > 1  # it moves
  assert not (pathlib.Path.cwd() / "_vizdoom").exists()


def test_poses_are_what_actions_lead_to(store_dir) -> None:
  store = FrameStore.open(store_dir, "train")
  for video in range(2):
    extra = store.extra(video)
    turned = (np.diff(extra["poses"][:, 2]) + 180) % 360 - 180
    np.testing.assert_allclose(turned, extra["actions"][:-1, 1], atol=0.1)
    steps = np.linalg.norm(np.diff(extra["poses"][:, :2], axis=0), axis=-1)
    assert steps.max() < 64 and steps.mean() >= 4
    assert set(np.unique(extra["actions"][:, [0, 2]])) <= {0, 1}


def test_drawn_again_by_another_process_it_is_the_same_to_the_bit(store_dir, tmp_path) -> None:
  code = (
    "import sys; from data.prepare import ensure; "
    "ensure('doom', sys.argv[1], num_videos=3, num_frames=12)"
  )
  again = tmp_path / "again"
  subprocess.run([sys.executable, "-c", code, str(again)], check=True, cwd=ROOT)
  files = [path for path in store_dir.iterdir() if path.is_file()]
  assert files and all(path.read_bytes() == (again / path.name).read_bytes() for path in files)


def test_a_video_is_the_same_among_others_and_another_by_seed_or_split(store_dir) -> None:
  options = {"num_frames": 12, "num_videos": 10}
  made = {
    (name, seed): list(
      Doom(data_dir="unused", options=DoomOptions(**options, seed=seed)).load(name).frames
    )
    for name, seed in (("train/000001", 0), ("train/000001", 1), ("test/000001", 0))
  }
  builder = Doom(data_dir="unused", options=DoomOptions(**options))
  store = FrameStore.open(store_dir, "train")
  encode, first = RecordEncoder(store._features, "jpeg"), store.videos[1]["first"]
  for t, frame in enumerate(made["train/000001", 0]):
    square = builder._square(frame, "")
    assert encode(square, "train/000001", t) == store._records[first + t]
  frames = [np.stack(video) for video in made.values()]
  assert all((frames[0] != other).any() for other in frames[1:])


def test_levels_are_for_training_or_for_testing() -> None:
  assert TEST_LEVELS == ("MAP05", "MAP10", "MAP15", "MAP20", "MAP25", "MAP30")
  assert sorted(TRAIN_LEVELS + TEST_LEVELS) == sorted(LEVELS)


def test_whole_set_keeps_its_counts() -> None:
  needs("vizdoom")
  names = [*Doom(data_dir="unused").candidates()]
  assert sum(name.startswith("train/") for name in names) == 1024
  assert sum(name.startswith("test/") for name in names) == 256


def test_walker_goes_on_where_there_is_room_and_turns_to_it() -> None:
  walker, turns = Walker(np.random.default_rng(0)), []
  depth = FAR.copy()
  depth[:, 214:] = 20  # less room to the right
  for _ in range(200):
    action = walker.act(depth)
    assert action.forward and not action.use and abs(action.turn) <= 12
    turns.append(action.turn)
  assert np.mean(turns) > 2 and np.std(turns) > 0.5


def test_walker_pushes_a_wall_once_and_turns_away_from_it() -> None:
  walker, depth = Walker(np.random.default_rng(0)), WALL.copy()
  depth[:, :106] = 9  # a little more room to the left
  assert walker.act(depth) == Action(forward=False, turn=0.0, use=True)
  actions = []
  while not (action := walker.act(depth)).use:  # until it has turned, and meets the next wall
    actions.append(action)
  assert not any(action.forward for action in actions)
  assert 45 <= sum(action.turn for action in actions) <= 120


def test_walker_waits_for_a_door_and_goes_through() -> None:
  walker = Walker(np.random.default_rng(0), straight=True)
  assert walker.act(FAR) == Action(forward=True, turn=0.0, use=False)
  assert walker.act(WALL).use
  opening = WALL.copy()
  for _ in range(6):  # nothing is seen of it at first
    assert walker.act(WALL) == Action(forward=False, turn=0.0, use=False)
  for row in range(1, 9):  # from below; the horizon is the last to be seen
    opening[240 - 12 * row :] = 80
    assert walker.act(opening) == Action(forward=False, turn=0.0, use=False)
  assert walker.act(FAR).forward


def test_a_door_is_opened_and_gone_through() -> None:
  needs("vizdoom")
  x, y, *door = doom_world.approaches("MAP23")[90]
  walker, way = Walker(np.random.default_rng(0), straight=True), []
  towards = np.array(door) - (x, y)
  with doom_world.open_world("MAP23", np.array([x, y]), 0) as world:
    heading = np.degrees(np.arctan2(towards[1], towards[0]))
    world.act(Action(forward=False, turn=(heading - world.pose[2] + 180) % 360 - 180, use=False))
    for _ in range(32):
      world.act(walker.act(world.depth))
      way.append((world.pose[:2] - door) @ towards / np.linalg.norm(towards))
  # It stood before the door, a player's radius away, and then was behind it.
  assert np.count_nonzero(np.abs(np.array(way) + 16) < 4) >= 5 and way[-1] > 16


def test_without_vizdoom_nothing_is_begun(tmp_path, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "vizdoom", None)
  with pytest.raises(ImportError, match=r'ViZDoom: pip install -e "\.\[doom\]"'):
    ensure("doom", tmp_path / "store")
  assert not [*tmp_path.iterdir()]


def test_one_video_is_an_error() -> None:
  with pytest.raises(ValueError, match="need at least 2"):
    DoomOptions(num_videos=1)
