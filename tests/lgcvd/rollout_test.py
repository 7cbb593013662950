import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lgcvd import toy
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.lgcvd.conditioning import given_positions, task_positions
from videodiff_jax.lgcvd.rollout import Rollout, sampling_params

PROCESS = Process(make_schedule("cosine", max_beta=0.9999), "v_prediction")
SAMPLER = make_sampler(PROCESS, "ddpm", 3, grid="spaced", clip=True)


@functools.cache
def rollout(**options) -> Rollout:
  return Rollout(toy.Linear(), PROCESS, SAMPLER, toy.FRAMES, toy.SLOTS, **options)


def given(b: int = 3) -> np.ndarray:
  shape = (b, toy.SLOTS, toy.SIDE, toy.SIDE, toy.CHANNELS)
  return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def keys(b: int = 3) -> jax.Array:
  return jax.random.split(jax.random.key(5), b)


def drawn(total: int, task: str = "prediction", rows: slice = slice(3), **options) -> np.ndarray:
  frames = jnp.asarray(given()[rows])
  positions = jnp.array([task_positions(task, toy.FRAMES, toy.SLOTS)] * len(frames))
  stream = rollout(**options).run(toy.linear_params(), frames, positions, total, keys()[rows])
  return np.concatenate(list(stream), axis=1)


@pytest.mark.parametrize(
  "total, last_fragment, windows",
  [
    (8, "truncate", [(0, 0, 8)]),
    (5, "truncate", [(0, 0, 5)]),
    (14, "truncate", [(0, 0, 6), (6, 6, 14)]),
    (16, "truncate", [(0, 0, 6), (6, 6, 12), (12, 12, 16)]),
    (16, "right_aligned", [(0, 0, 6), (6, 6, 14), (8, 14, 16)]),
    (14, "right_aligned", [(0, 0, 6), (6, 6, 14)]),
    (9, "right_aligned", [(0, 0, 8), (1, 8, 9)]),
  ],
)
def test_windows(total, last_fragment, windows):
  assert [tuple(w) for w in rollout(last_fragment=last_fragment).windows(total)] == windows


def test_a_right_aligned_video_has_a_fragment_s_length():
  with pytest.raises(ValueError, match="8 frames or more, not 7"):
    rollout(last_fragment="right_aligned").windows(7)


@pytest.mark.parametrize("total", [5, 8, 26, 28, 30])
def test_truncated_videos_do_not_depend_on_their_length(total):
  short, long = drawn(total), drawn(100)
  assert short.shape[1] == total and long.shape[1] == 100
  np.testing.assert_allclose(short, long[:, :total], atol=1e-5)


def test_a_trajectory_does_not_depend_on_the_batch():
  together = drawn(20)
  for i in range(3):
    np.testing.assert_allclose(drawn(20, rows=slice(i, i + 1))[0], together[i], atol=1e-5)
  assert np.abs(together[0] - together[1]).max() > 0.1


def test_no_fragment_draws_what_another_has_drawn():
  """Nor what its sampler adds: every key is used once, over trajectories, fragments and steps."""
  draws = []

  class Recording(Rollout):
    def draw_fragment(self, params, memory, frames, positions, x_T, keys):
      steps = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(3)]
      added = [jax.vmap(lambda key: jax.random.normal(key, x_T.shape[1:]))(k) for k in steps]
      draws.extend(np.asarray(x).reshape(len(x), -1) for x in (x_T, *added))
      return super().draw_fragment(params, memory, frames, positions, x_T, keys)

  recording = Recording(toy.Linear(), PROCESS, SAMPLER, toy.FRAMES, toy.SLOTS)
  positions = jnp.array([task_positions("prediction", toy.FRAMES, toy.SLOTS)] * 3)
  with jax.disable_jit():
    list(recording.run(toy.linear_params(), jnp.asarray(given()), positions, 20, keys()))
  every = np.concatenate(draws)
  assert len(every) == 3 * 3 * 4  # trajectories, fragments, x_T and three steps
  assert len(np.unique(every[:, :4], axis=0)) == len(every)
  assert np.abs(np.corrcoef(every) - np.eye(len(every))).max() < 0.5


def test_one_compilation_whatever_the_length():
  fresh = Rollout(toy.Linear(), PROCESS, SAMPLER, last_fragment="right_aligned")
  positions = jnp.array([[0, 1]] * 3)
  for total in (8, 30, 33):
    list(fresh.run(toy.linear_params(), jnp.asarray(given()), positions, total, keys()))
  assert fresh.step._cache_size() == 1


def test_frames_are_streamed_a_fragment_at_a_time():
  positions = jnp.array([[0, 1]] * 3)
  stream = rollout().run(toy.linear_params(), jnp.asarray(given()), positions, 10**6, keys())
  assert [next(stream).shape[1] for _ in range(4)] == [6] * 4


def test_given_frames_come_back_untouched_or_redrawn():
  video = drawn(14)
  np.testing.assert_array_equal(video[:, :2], given())
  redrawn = drawn(14, given_frames="redrawn")
  assert np.abs(redrawn[:, :2] - given()).max() > 0.1
  # Nothing of a frame that was not given.
  live = drawn(14, "live_photo")
  np.testing.assert_array_equal(live[:, :1], given()[:, :1])
  assert np.abs(live[:, 1] - given()[:, 1]).max() > 0.1
  assert np.abs(drawn(14, "generation")[:, 0] - given()[:, 0]).max() > 0.1


@pytest.mark.parametrize("gap", range(1, 7))
def test_one_fragment_fills_gaps_between_two_frames(gap):
  positions = jnp.array([given_positions(1, 1, toy.FRAMES, toy.SLOTS, gap)] * 3)
  stream = rollout().run(toy.linear_params(), jnp.asarray(given()), positions, gap + 2, keys())
  (video,) = list(stream)
  assert video.shape[1] == gap + 2
  np.testing.assert_array_equal(video[:, [0, -1]], given())


def test_every_fragment_follows_the_one_before():
  """Other given frames change the last frame of a long video, through both contexts."""
  positions = jnp.array([[0, 1]] * 3)
  moved = [
    np.concatenate(list(rollout().run(toy.linear_params(), frames, positions, 30, keys())), axis=1)
    for frames in (jnp.asarray(given()), -jnp.asarray(given()))
  ]
  assert np.abs(moved[0][:, -1] - moved[1][:, -1]).max() > 1e-3


def test_averaged_features_halve_from_the_second_fragment_on():
  averaging = rollout(average_features=True)
  params = toy.linear_params()
  memory = averaging.start(params, (3, *toy.FRAGMENT))
  positions, before = jnp.array([[0, 1]] * 3), None
  for i in range(3):
    own = toy.Linear().apply(params, memory.fragment, method="encode")
    _, memory = averaging.step(params, memory, jnp.asarray(given()), positions, keys())
    expected = own if i == 0 else (own + before) / 2
    np.testing.assert_allclose(memory.context, expected, atol=1e-6)
    before = expected


def test_a_model_without_encoder_has_no_context():
  model = toy.networks(encoder=False)
  plan = Rollout(model, PROCESS, SAMPLER, average_features=True)
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  x, condition = f((3, *toy.FRAGMENT)), f((3, toy.SIDE, toy.SIDE, 4))
  params = jax.eval_shape(model.init, jax.random.key(0), x, f((3,)), condition, x)

  def two(params, frames, keys):
    positions, memory = jnp.array([[0, 1]] * 3), plan.start(params, x.shape)
    for _ in range(2):
      fragment, memory = plan.step(params, memory, frames, positions, keys)
    return fragment, memory

  fragment, memory = jax.eval_shape(two, params, f(given().shape), keys())
  assert fragment.shape == (3, 8, toy.SIDE, toy.SIDE, toy.CHANNELS) and memory.context is None


def test_which_weights_sample():
  raw = {"params": {"unet": 1, "encoder": 2}}
  ema = {"params": {"unet": 10, "encoder": 20}}
  assert sampling_params(raw, ema) == ema
  assert sampling_params(raw, ema, "raw") == {"params": {"unet": 10, "encoder": 2}}
  alone = {"params": {"unet": 10}}
  assert sampling_params({"params": {"unet": 1}}, alone, "raw") == alone
  with pytest.raises(ValueError, match=r"'both'.*ema, raw"):
    sampling_params(raw, ema, "both")


def test_unknown_options_list_the_choices():
  with pytest.raises(ValueError, match=r"last_fragment 'pad'.*truncate, right_aligned"):
    rollout(last_fragment="pad")
  with pytest.raises(ValueError, match=r"given_frames 'lost'.*kept, redrawn"):
    rollout(given_frames="lost")
