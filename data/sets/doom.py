"""Doom: first-person walks through Freedoom's levels, drawn by ViZDoom."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from data.builder import Options, Video, VideoBuilder
from data.sets import doom_world

_UNSEEN = 12  # frames walked before a video begins, unless the walker goes to a door
_TO_DOORS = 0.6  # share of walks to a door; random walks hardly ever meet one
# Freedoom's levels look alike within a third of the game, so test levels come from all thirds.
TEST_LEVELS = doom_world.LEVELS[4::5]
TRAIN_LEVELS = tuple(level for level in doom_world.LEVELS if level not in TEST_LEVELS)
_LEAST_WALKED = 4.0  # mean map units per frame; below this, the walker is stuck
_LONGEST_STEP = 64.0  # map units per frame; longer steps are teleports, that is, cuts


@dataclasses.dataclass(frozen=True)
class DoomOptions(Options):
  """Options of `doom`; others as in `Options`.

  Attributes:
    size: 64 or 128, though any goes: pictures of 240 x 240 are made smaller.
    num_frames: frames of every video, 11.7 a second.
    codec: as in `Options`; 'jpeg' by default, at any size.
    num_videos: one in five is for testing, of other levels than those of training.
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
    doom_world.import_vizdoom()  # Fails before anything is started.


class Doom(VideoBuilder):
  """A scripted walker goes through levels without monsters: a stand-in for real egocentric video.

  It begins at a random thing of a random level of Freedoom: Phase 2, walks, turns, and opens the
  doors that it meets; six in ten walks are begun near a door, straight towards it, and where the
  way is blocked it turns. Every fifth level, 6 in all, is for testing, the 26 others for training.
  `FrameStore.extra` gives `actions` (f, 3): whether the walker walks, by how many degrees it turns
  to the left and whether it pushes, until the next frame (nobody sees what the last one does);
  `poses` (f, 3): x, y in map units and the angle in degrees; and `level`, its name.
  """

  OPTIONS = DoomOptions
  VIDEOS_PER_PART = 8

  options: DoomOptions

  def candidates(self) -> Mapping[str, int]:
    test = max(1, self.options.num_videos // 5)
    counts = {"train": self.options.num_videos - test, "test": test}
    return {f"{split}/{i:06d}": 0 for split, n in counts.items() for i in range(n)}

  def load(self, name: str) -> Video:
    split, index = name.split("/")
    rng = np.random.default_rng([self.options.seed, split == "test", int(index)])
    levels = TEST_LEVELS if split == "test" else TRAIN_LEVELS
    while (video := self._walk(rng, str(rng.choice(levels)))) is None:
      pass  # Tries another start; about every second walk is usable.
    return video

  def _walk(self, rng: np.random.Generator, level: str) -> Video | None:
    """Makes one walk; None if it ends early, is stuck or has a cut."""
    approaches = doom_world.approaches(level)
    to_door = rng.random() < _TO_DOORS and len(approaches) > 0
    if to_door:
      *start, x, y = rng.choice(approaches)
      heading = np.degrees(np.arctan2(y - start[1], x - start[0]))
    else:
      start, heading = rng.choice(doom_world.places(level)), rng.uniform(0, 360)
    frames, actions, poses = [], [], []
    with doom_world.open_world(level, start, int(rng.integers(2**31))) as world:
      walker = doom_world.Walker(rng, straight=to_door)
      turn = (heading - world.pose[2] + 180) % 360 - 180
      world.act(doom_world.Action(forward=False, turn=turn, use=False))
      for frame in range(0 if to_door else -_UNSEEN, self.options.num_frames):
        if world.left:
          return None
        action = walker.act(world.depth)
        if frame >= 0:
          frames.append(world.frame)
          poses.append(world.pose)
          actions.append(dataclasses.astuple(action))
        world.act(action)
    steps = np.linalg.norm(np.diff(np.array(poses)[:, :2], axis=0), axis=-1)
    if len(steps) and (steps.mean() < _LEAST_WALKED or steps.max() > _LONGEST_STEP):
      return None
    extra = {
      "actions": np.round(np.array(actions, float), 2).tolist(),
      "poses": np.round(poses, 2).tolist(),
      "level": level,
    }
    return Video(frames, fps=1 / doom_world.FRAME_SECONDS, extra=extra)
