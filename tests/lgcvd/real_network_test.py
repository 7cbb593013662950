"""What a rollout promises, with the real networks in small; rollout_test.py has its mechanics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import fill
from tests.lgcvd import tiny
from videodiff_jax.lgcvd import networks
from videodiff_jax.lgcvd.conditioning import given_positions, task_positions
from videodiff_jax.lgcvd.rollout import Rollout
from videodiff_jax.training import partitioning

ROWS = 8  # as many as devices


class Setup:
  def __init__(self) -> None:
    config = tiny.config()
    config.model.update(channels=8, multipliers=(1, 2), attention_rates=(2,))
    built = networks.build(config)
    x, condition = (jnp.zeros((1, *s)) for s in (built.fragment_shape, built.condition_shape))
    shapes = jax.eval_shape(built.model.init, jax.random.key(0), x, jnp.zeros(1), condition, x)
    self.params = jax.tree.map(jnp.asarray, fill(shapes, scale=0.2))
    self.rollout: Rollout = networks.make_rollout(config, built)
    shape = (ROWS, built.slots, *built.frame_shape)
    self.given = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    self.keys = jax.random.split(jax.random.key(5), ROWS)

  def draw(
    self, total: int, rows: np.ndarray | None = None, positions: np.ndarray | None = None
  ) -> np.ndarray:
    """Videos (8, total, h, w, c) of the given frames and noise numbered `rows`."""
    rows = np.arange(ROWS) if rows is None else rows
    if positions is None:
      positions = np.tile(task_positions("prediction", tiny.FRAMES, tiny.SLOTS), (ROWS, 1))
    stream = self.rollout.run(
      self.params, jnp.asarray(self.given[rows]), jnp.asarray(positions), total, self.keys[rows]
    )
    return np.concatenate(list(stream), axis=1)


@pytest.fixture(scope="module")
def setup() -> Setup:
  return Setup()


@pytest.fixture(scope="module")
def long(setup) -> np.ndarray:
  return setup.draw(100)


def test_the_first_28_frames_of_100_are_those_of_28(setup, long) -> None:
  np.testing.assert_allclose(setup.draw(28), long[:, :28], atol=1e-5)
  assert setup.rollout.step._cache_size() == 1
  apart = long.std(axis=0).mean(axis=(1, 2, 3))  # videos differ in every frame, to the end
  assert apart.min() > 0.05


def test_given_frames_come_back_untouched(setup, long) -> None:
  np.testing.assert_array_equal(long[:, : tiny.SLOTS], setup.given)


def test_a_trajectory_does_not_depend_on_the_batch(setup, long) -> None:
  """Each in another place, among others."""
  rows = np.array([5, 5, 2, 7, 0, 0, 0, 2])
  np.testing.assert_allclose(setup.draw(20, rows), long[rows, :20], atol=1e-5)


def test_eight_devices_draw_what_one_does(setup, long) -> None:
  """Each a batch of one."""
  with jax.set_mesh(partitioning.make_mesh()):
    np.testing.assert_allclose(setup.draw(28), long[:, :28], atol=1e-5)


def test_gaps_of_1_to_6_in_one_fragment(setup) -> None:
  gaps = np.array([1, 2, 3, 4, 5, 6, 6, 1])
  positions = np.array([given_positions(1, 1, tiny.FRAMES, tiny.SLOTS, gap) for gap in gaps])
  drawn = setup.draw(tiny.FRAMES, positions=positions)
  for video, given, gap in zip(drawn, setup.given, gaps):
    np.testing.assert_array_equal(video[[0, gap + 1]], given)
  # Both ends count: without the second another filling is drawn.
  positions[:, 1] = -1
  alone = setup.draw(tiny.FRAMES, positions=positions)
  assert np.abs(alone - drawn).max(axis=(1, 2, 3, 4)).min() > 0.01
