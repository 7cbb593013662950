"""Robot push: an arm reaches for objects on a table and pushes them, drawn by pybullet."""

import dataclasses
from collections import deque
from collections.abc import Mapping

import numpy as np

from data import robot_scene
from data.builder import Options, Video, VideoBuilder

_TRAVEL_HEIGHT, _PUSH_HEIGHT = 0.085, 0.02  # Of the hand's end above the table, in metres.


@dataclasses.dataclass(frozen=True)
class RobotPushOptions(Options):
  """Options of `robot_push`; others as in `Options`.

  Attributes:
    num_frames: frames of every video, ten a second.
    codec: as in `Options`; 'jpeg' unless told otherwise, at any size.
    num_videos: one in five is for testing.
    seed: every video is a pure function of (seed, its split, its index).
  """

  num_frames: int = 30
  codec: str = "jpeg"
  num_videos: int = 1280
  seed: int = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.num_videos < 2:
      raise ValueError(f"num_videos is {self.num_videos}; two splits need at least 2.")
    robot_scene.import_pybullet()  # Where it is missing, nothing is begun.


class RobotPush(VideoBuilder):
  """A simulated arm pushes boxes and cylinders about a table: a stand-in for BAIR robot pushing.

  `FrameStore.extra` gives, in metres (x away from the arm's base, y across, z up; the camera
  looks at the arm from the other side): `actions` (f, 3), the displacement that the end of the
  hand is told to make after each frame (nobody sees what the last one does); `positions` (f, 3),
  where it is; and `objects` (f, n, 2), x and y of each object's centre.
  """

  OPTIONS = RobotPushOptions
  VIDEOS_PER_PART = 8

  options: RobotPushOptions

  def candidates(self) -> Mapping[str, int]:
    test = max(1, self.options.num_videos // 5)
    counts = {"train": self.options.num_videos - test, "test": test}
    return {f"{split}/{i:06d}": 0 for split, n in counts.items() for i in range(n)}

  def load(self, name: str) -> Video:
    split, index = name.split("/")
    rng = np.random.default_rng([self.options.seed, split == "test", int(index)])
    frames, actions, positions, objects = [], [], [], []
    with robot_scene.open_scene(rng) as scene:
      pusher = Pusher(rng)
      for _ in range(self.options.num_frames):
        frames.append(scene.draw(self.options.size))
        positions.append(scene.tip)
        objects.append(scene.objects[:, :2])
        actions.append(pusher.act(scene.target, objects[-1]))
        scene.move(actions[-1])
    extra = {
      "actions": np.round(actions, 4).tolist(),
      "positions": np.round(positions, 4).tolist(),
      "objects": np.round(objects, 3).tolist(),
    }
    return Video(frames, fps=1 / robot_scene.FRAME_SECONDS, extra=extra)


class Pusher:
  """Pushes one object after another, each time a randomly chosen one."""

  def __init__(self, rng: np.random.Generator):
    self._rng = rng
    self._way: deque[np.ndarray] = deque()
    self._speed = 0.0

  def act(self, target: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The next displacement (3,) of `target` (3,), given the objects' x and y (n, 2)."""
    if not self._way:
      chosen = objects[self._rng.integers(len(objects))]
      self._way.extend(reach_and_push(self._rng, chosen))
      self._speed = self._rng.uniform(0.03, 0.05)
    displacement = self._way[0] - target
    distance = np.linalg.norm(displacement)
    if distance > self._speed:
      return displacement * self._speed / distance
    self._way.popleft()
    return displacement


def reach_and_push(rng: np.random.Generator, place: np.ndarray) -> list[np.ndarray]:
  """Points (3,) on the way: above a place beside the object, down, through the object, up.

  Args:
    rng: draws direction and length.
    place: (2,), x and y of the object. It is pushed towards the middle, give or take 75 degrees,
      so that objects stay on the table; one near the middle is pushed anywhere.
  """
  inwards = robot_scene.CENTRE - place
  angle = np.arctan2(inwards[1], inwards[0]) + rng.uniform(-1.3, 1.3)
  if np.linalg.norm(inwards) < 0.06:
    angle = rng.uniform(-np.pi, np.pi)
  along = np.array([np.cos(angle), np.sin(angle)])
  start, end = place - 0.085 * along, place + rng.uniform(0.04, 0.12) * along
  return [
    np.append(start, _TRAVEL_HEIGHT),
    np.append(start, _PUSH_HEIGHT),
    np.append(end, _PUSH_HEIGHT),
    np.append(end, _TRAVEL_HEIGHT),
  ]
