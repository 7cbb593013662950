"""Freedoom's levels, walked through and drawn by ViZDoom: without a window, on the CPU.

Lengths are in map units (a player is 56 high), angles in degrees, counter-clockwise.
"""

import contextlib
import dataclasses
import functools
import pathlib
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

LEVELS = tuple(f"MAP{number:02d}" for number in range(1, 33))  # of Freedoom: Phase 2
TICS_A_FRAME = 3
FRAME_SECONDS = TICS_A_FRAME / 35
_GAME = "freedoom2.wad"
_HORIZON = slice(100, 140)  # of 240 rows: the view ahead, without floor and ceiling
_DAZED_TICS = 12  # more than the time for which a walker cannot move after it is placed
_NEAR = 6  # of 255, the depth at 50 units: near enough to push
_FASTEST = 12.0  # degrees that a walker turns in a frame
_DOORS = (1, 31, 117, 118)  # line types: doors that open when pushed, without a key
_WAITS = 16  # frames that a door has to open


def import_vizdoom() -> Any:
  """Imports ViZDoom; raises ImportError with the extra to install."""
  try:
    import vizdoom
  except ImportError as error:
    raise ImportError('doom is played by ViZDoom: pip install -e ".[doom]".') from error
  return vizdoom


@dataclasses.dataclass(frozen=True)
class Action:
  """The action of a walker until the next frame.

  Attributes:
    forward: whether it walks.
    turn: degrees to the left in all.
    use: whether it pushes what is in front of it, such as a door, a lift or a switch.
  """

  forward: bool
  turn: float
  use: bool


class World:
  """One level, as the walker sees it; `open_world` makes it."""

  def __init__(self, game: Any):
    self._game = game

  @property
  def left(self) -> bool:
    """Whether the walker has left the level by its exit."""
    return self._game.is_episode_finished()

  @property
  def frame(self) -> np.ndarray:
    """Returns the picture, uint8 (240, 320, 3)."""
    return self._game.get_state().screen_buffer

  @property
  def pose(self) -> np.ndarray:
    """(3,): x, y and the angle from x towards y, in degrees."""
    return np.array(self._game.get_state().game_variables)

  @property
  def depth(self) -> np.ndarray:
    """Returns the depth of each pixel, uint8 (240, 320); 255 is the farthest."""
    return self._game.get_state().depth_buffer

  def act(self, action: Action) -> None:
    """Moves time by one frame."""
    # ViZDoom turns to the right, by as much in every tic.
    turn = -action.turn / TICS_A_FRAME
    self._game.make_action([float(action.forward), turn, float(action.use)], TICS_A_FRAME)


@contextlib.contextmanager
def open_world(level: str, start: np.ndarray, seed: int) -> Iterator[World]:
  """A level without monsters, in a process of its own, with the walker at `start` (2,), x and y."""
  vizdoom = import_vizdoom()
  game = vizdoom.DoomGame()
  with tempfile.TemporaryDirectory() as folder:
    game.set_doom_config_path(f"{folder}/settings.ini")  # else it is written where one works
    game.set_doom_game_path(str(_folder() / _GAME))
    game.set_doom_scenario_path("")
    game.set_doom_map(level)
    game.set_seed(seed)
    game.set_episode_timeout(0)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    for shown in ("hud", "weapon", "crosshair", "messages", "screen_flashes"):
      getattr(game, f"set_render_{shown}")(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    buttons = vizdoom.Button
    game.set_available_buttons([buttons.MOVE_FORWARD, buttons.TURN_LEFT_RIGHT_DELTA, buttons.USE])
    variables = vizdoom.GameVariable
    game.set_available_game_variables([variables.POSITION_X, variables.POSITION_Y, variables.ANGLE])
    game.add_game_args("-nomonsters +cl_showsecretmessage 0")
    try:
      game.init()
      game.send_game_command("god")  # nothing hurts, so that no walk ends
      game.send_game_command(f"warp {start[0]} {start[1]}")
      game.make_action([0.0, 0.0, 0.0], _DAZED_TICS)
      yield World(game)
    finally:
      game.close()
      # The engine makes this folder wherever one works, and leaves it empty.
      with contextlib.suppress(OSError):
        pathlib.Path("_vizdoom").rmdir()


@functools.cache
def places(level: str) -> np.ndarray:
  """Returns x and y (n, 2) of all things in a level; a walker can stand in these places."""
  return _lump(level, "THINGS", 5)[:, :2].astype(int)


@functools.cache
def approaches(level: str) -> np.ndarray:
  """Returns (n, 4): x and y of a place and of a nearby door's middle; it opens from there."""
  lines, corners = _lump(level, "LINEDEFS", 7), _lump(level, "VERTEXES", 2).astype(int)
  doors = lines[np.isin(lines[:, 3], _DOORS)]
  begin, end = corners[doors[:, 0]], corners[doors[:, 1]]
  middle, along = (begin + end) / 2, end - begin
  inwards = np.stack([along[:, 1], -along[:, 0]], -1)  # of a line, its right side is its front
  offset = places(level)[:, None] - middle  # (places, doors, 2)
  distance = np.linalg.norm(offset, axis=-1)
  in_front = (offset * inwards).sum(-1) > 0.8 * distance * np.linalg.norm(inwards, axis=-1)
  place, door = np.nonzero(in_front & (distance > 80) & (distance < 320))
  return np.concatenate([places(level)[place], middle[door]], axis=-1)


def _lump(level: str, name: str, columns: int) -> np.ndarray:
  """Reads one table of a level from the game's file, (n, columns) int16."""
  data = _game()
  count, directory = struct.unpack_from("<ii", data, 4)
  lumps = [struct.unpack_from("<ii8s", data, directory + 16 * i) for i in range(count)]
  names = [name.rstrip(b"\0").decode() for *_, name in lumps]
  offset, size, _ = lumps[names.index(name, names.index(level))]
  return np.frombuffer(data[offset : offset + size], "<i2").reshape(-1, columns)


@functools.cache
def _game() -> bytes:
  return (_folder() / _GAME).read_bytes()


def _folder() -> pathlib.Path:
  return pathlib.Path(import_vizdoom().__file__).parent


class Walker:
  """Walks where there is room, turns at random, and pushes what stands in its way."""

  def __init__(self, rng: np.random.Generator, straight: bool = False):
    """`straight`: whether it goes straight to a door; it waits longer for this than for others."""
    self._rng = rng
    self._straight = straight
    self._patience = 0  # frames that it waits for a sign that something opens
    self._swing = 0.0  # of the turn, in degrees a frame
    self._away = 0.0  # degrees that it still turns from a wall
    self._waits = 0  # frames since it pushed
    self._pushed: np.ndarray | None = None  # the depth as it was then

  def act(self, depth: np.ndarray) -> Action:
    """The next action, given `World.depth`."""
    thirds = np.array_split(depth[_HORIZON].min(axis=0), 3, axis=-1)
    left, ahead, right = (part.mean() for part in thirds)
    if self._away:
      turn = float(np.clip(self._away, -_FASTEST, _FASTEST))
      self._away -= turn
      return Action(forward=False, turn=turn, use=False)
    if ahead > _NEAR:
      self._pushed = None
      if self._straight:
        return Action(forward=True, turn=0.0, use=False)
      # The swing is a slow random walk that tends to 0, and to where there is more room.
      room = (left - right) / (left + right + 1)
      self._swing = 0.8 * self._swing + self._rng.normal(0, 1.5) + 2 * room
      turn = float(np.clip(self._swing, -_FASTEST, _FASTEST))
      return Action(forward=True, turn=turn, use=False)
    if self._pushed is None:
      self._pushed, self._waits = depth.copy(), 0
      self._patience, self._straight = 8 if self._straight else 2, False
      return Action(forward=False, turn=0.0, use=True)
    self._waits += 1
    opens = (depth > self._pushed).mean() > 0.05  # a wall comes nearer, as the walker glides on
    if self._waits <= (_WAITS if opens else self._patience):
      return Action(forward=False, turn=0.0, use=False)
    # A wall: away from it, to the side where there is more room.
    self._pushed = None
    self._away = (1 if left > right else -1) * self._rng.uniform(45, 120)
    return self.act(depth)
