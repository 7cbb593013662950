"""A robot arm above a table with objects: simulated and drawn by pybullet, on the CPU.

Lengths are in metres. x points from the arm's base to the camera, z up; the table's top is at
z = 0.
"""

import contextlib
import functools
import math
import pathlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

CENTRE = np.array([0.5, 0.0])  # Of the part of the table that the camera sees.
REACH = np.array([0.14, 0.19])  # Half the sides of the part that objects start in.
FRAME_SECONDS = 0.1
_STEP_SECONDS = 1 / 240
_STEPS_A_SOLUTION = 4  # Of physics to one of inverse kinematics.
_SOLUTIONS_A_FRAME = round(FRAME_SECONDS / _STEP_SECONDS / _STEPS_A_SOLUTION)

_CAMERA, _FIELD_OF_VIEW = (1.0, 0.0, 0.88), 40.0  # The latter in degrees.
_OVERSAMPLING = 2
_BLUR = 0.6  # Standard deviation in pixels of 64: a lens as soft as that of BAIR.

# Matt colours, and few: at JPEG's quality 95 a sharp coloured edge takes most bytes.
_TABLE_COLOUR = (0.60, 0.60, 0.60)
_ARM_COLOUR, _HAND_COLOUR = (0.72, 0.72, 0.72), (0.44, 0.44, 0.44)
_OBJECT_COLOURS = (
  (0.78, 0.30, 0.26),
  (0.30, 0.58, 0.36),
  (0.27, 0.42, 0.74),
  (0.82, 0.68, 0.25),
  (0.56, 0.34, 0.62),
  (0.28, 0.62, 0.64),
)

# Of franka_panda/panda.urdf.
_ARM_JOINTS = range(7)
_FINGER_JOINTS = (9, 10)
_HAND_LINKS = (8, 9, 10)
_TIP_LINK = 11  # Between the fingers' ends.
_REST_POSE = (0.0, 0.2, 0.0, -2.2, 0.0, 2.4, 0.785)
_POINTING_DOWN = (1.0, 0.0, 0.0, 0.0)
_FINGER_OPENING = 0.015
_FINGER_FORCE, _ARM_TORQUE = 40.0, 240.0  # Newtons, newton metres.

# pybullet counts its worlds in one table a process, and never lets go of Python's own lock.
_LOCK = threading.Lock()


def import_pybullet() -> Any:
  """The module, or an error that names the extra."""
  try:
    import pybullet
  except ImportError as error:
    raise ImportError('robot_push is simulated by pybullet: pip install -e ".[robot]".') from error
  return pybullet


class _World:
  """pybullet's functions and constants, the functions bound to a world without a window."""

  def __init__(self) -> None:
    self._pybullet = import_pybullet()
    self._number = self._pybullet.connect(self._pybullet.DIRECT)

  def __getattr__(self, name: str) -> Any:
    value = getattr(self._pybullet, name)
    return functools.partial(value, physicsClientId=self._number) if callable(value) else value


class Scene:
  """The arm and the objects of one video, drawn by chance; `open_scene` makes it.

  Attributes:
    target: (3,), where the arm is told to hold the end of its hand.
  """

  def __init__(self, world: _World, rng: np.random.Generator):
    self._world = world
    world.setPhysicsEngineParameter(fixedTimeStep=_STEP_SECONDS, deterministicOverlappingPairs=1)
    world.setGravity(0, 0, -9.81)
    self._add(world.GEOM_BOX, {"halfExtents": (0.8, 1.2, 0.1)}, (0.5, 0, -0.1), _TABLE_COLOUR)
    self._objects = self._add_objects(rng)
    self.target = np.append(CENTRE + rng.uniform(-1, 1, 2) * REACH, rng.uniform(0.06, 0.14))
    self._arm = self._add_arm()
    self.move(np.zeros(3))  # Objects settle.

  @property
  def tip(self) -> np.ndarray:
    """(3,), where the end of the hand is."""
    return np.array(self._world.getLinkState(self._arm, _TIP_LINK, True, True)[4])

  @property
  def objects(self) -> np.ndarray:
    """(n, 3), the objects' centres."""
    poses = map(self._world.getBasePositionAndOrientation, self._objects)
    return np.array([position for position, _ in poses])

  def move(self, displacement: np.ndarray) -> None:
    """Moves the target by (3,) in a straight line, and time by one frame."""
    start, self.target = self.target, self.target + displacement
    for i in range(1, _SOLUTIONS_A_FRAME + 1):
      angles = self._solve(start + displacement * i / _SOLUTIONS_A_FRAME)
      self._hold(_ARM_JOINTS, angles, _ARM_TORQUE)
      self._hold(_FINGER_JOINTS, [_FINGER_OPENING] * 2, _FINGER_FORCE)
      for _ in range(_STEPS_A_SOLUTION):
        self._world.stepSimulation()

  def draw(self, size: int) -> np.ndarray:
    """The picture, uint8 (size, size, 3)."""
    world, side = self._world, size * _OVERSAMPLING
    view = world.computeViewMatrix(_CAMERA, (*CENTRE, 0.03), (0, 0, 1))
    projection = world.computeProjectionMatrixFOV(_FIELD_OF_VIEW, 1, 0.1, 4)
    pixels = world.getCameraImage(
      side, side, view, projection, lightDirection=(0.6, 0.5, 1.5), shadow=0,
      lightAmbientCoeff=0.65, lightDiffuseCoeff=0.35, lightSpecularCoeff=0,
      renderer=world.ER_TINY_RENDERER,
    )[2]  # fmt: skip
    image = Image.fromarray(np.asarray(pixels, np.uint8).reshape(side, side, 4)[..., :3])
    image = image.filter(ImageFilter.GaussianBlur(_BLUR * _OVERSAMPLING * size / 64))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))

  def _solve(self, position: np.ndarray) -> Sequence[float]:
    """Angles that bring the hand's end towards `position` from where it is."""
    return self._world.calculateInverseKinematics(
      self._arm, _TIP_LINK, position.tolist(), _POINTING_DOWN, lowerLimits=[-2.9] * 7,
      upperLimits=[2.9] * 7, jointRanges=[5.8] * 7, restPoses=_REST_POSE, maxNumIterations=20,
    )[: len(_ARM_JOINTS)]  # fmt: skip

  def _hold(self, joints: Sequence[int], angles: Sequence[float], force: float) -> None:
    self._world.setJointMotorControlArray(
      self._arm, list(joints), self._world.POSITION_CONTROL, targetPositions=list(angles),
      forces=[force] * len(joints),
    )  # fmt: skip

  def _add_arm(self) -> int:
    """pybullet's number of the arm, whose hand's end is at the target."""
    import pybullet_data

    folder = pathlib.Path(pybullet_data.getDataPath()) / "franka_panda"
    text = (folder / "panda.urdf").read_text().replace("package://", f"{folder}/")
    with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
      # What the arm collides with is also what is drawn: details are lost on a few pixels.
      file.write(text.replace("meshes/visual", "meshes/collision"))
      file.flush()
      self._arm = self._world.loadURDF(file.name, useFixedBase=True)
    for link in range(-1, _TIP_LINK):
      colour = _HAND_COLOUR if link in _HAND_LINKS else _ARM_COLOUR
      self._world.changeVisualShape(self._arm, link, rgbaColor=(*colour, 1))
    for joint, angle in zip(_ARM_JOINTS, _REST_POSE):
      self._world.resetJointState(self._arm, joint, angle)
    for joint in _FINGER_JOINTS:
      self._world.resetJointState(self._arm, joint, _FINGER_OPENING)
    for _ in range(20):  # Every solution starts from the pose before it.
      for joint, angle in zip(_ARM_JOINTS, self._solve(self.target)):
        self._world.resetJointState(self._arm, joint, angle)
    return self._arm

  def _add_objects(self, rng: np.random.Generator) -> list[int]:
    """Three or four boxes and cylinders, apart from each other; pybullet's numbers of them."""
    bodies, places = [], []
    colours = rng.permutation(_OBJECT_COLOURS)[: rng.integers(3, 5)]
    while len(places) < len(colours):
      place = CENTRE + rng.uniform(-1, 1, 2) * REACH
      if all(math.dist(place, other) > 0.11 for other in places):
        places.append(place)
    for place, colour in zip(places, colours):
      x, y, z = rng.uniform((0.022, 0.022, 0.018), (0.035, 0.045, 0.026))
      if rng.random() < 0.6:
        shape, sizes = self._world.GEOM_BOX, {"halfExtents": (x, y, z)}
      else:
        shape, sizes = self._world.GEOM_CYLINDER, {"radius": x, "height": 2 * z}
      angle = rng.uniform(0, math.pi)
      body = self._add(shape, sizes, (*place, z), colour, angle, mass=0.15)
      self._world.changeDynamics(body, -1, lateralFriction=0.6)
      bodies.append(body)
    return bodies

  def _add(
    self,
    shape: int,
    sizes: dict[str, Any],
    position: Sequence[float],
    colour: Sequence[float],
    angle: float = 0.0,
    mass: float = 0.0,
  ) -> int:
    """A body of one convex shape, turned about z; one without mass never moves."""
    drawn = {"length" if key == "height" else key: value for key, value in sizes.items()}
    return self._world.createMultiBody(
      mass,
      self._world.createCollisionShape(shape, **sizes),
      self._world.createVisualShape(shape, rgbaColor=(*colour, 1), **drawn),
      position,
      (0, 0, math.sin(angle / 2), math.cos(angle / 2)),
    )


@contextlib.contextmanager
def open_scene(rng: np.random.Generator) -> Iterator[Scene]:
  """A new scene, drawn from `rng`, in a world of its own; one at a time in a process."""
  with _LOCK:
    world = _World()
    try:
      yield Scene(world, rng)
    finally:
      world.disconnect()
