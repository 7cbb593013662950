import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lgcvd import toy
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.lgcvd.conditioning import TaskMix, stack_frames
from videodiff_jax.lgcvd.objective import Objective
from videodiff_jax.training import state
from videodiff_jax.training.state import Ema

PROCESS = Process(make_schedule("cosine", max_beta=0.9999), "v_prediction")
MIX = TaskMix({"prediction": 0.5, "interpolation": 0.5}, toy.FRAMES, toy.SLOTS)
OPTIMIZER = optax.adam(1e-2)
EMA = Ema(decay=0.5)


def objective(**options) -> Objective:
  return Objective(toy.Linear(), PROCESS, MIX, **options)


@functools.cache
def frames(b: int = 4) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (b, 14, toy.SIDE, toy.SIDE, toy.CHANNELS)).astype(np.float32)


def train() -> state.TrainState:
  return state.create(jax.random.key(0), toy.linear_params(), OPTIMIZER)


@functools.cache
def draws():
  """The local frames of both tasks, as the release chooses them."""
  drawn = (objective(second_stage="release").draw(jax.random.key(i), frames()) for i in range(20))
  return next(d for d in drawn if d.continues.any() and not d.continues.all())


def close(ours, expected) -> None:
  chex.assert_trees_all_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_windows_overlap_by_the_slots():
  first, second = objective().windows(jnp.asarray(frames()))
  np.testing.assert_array_equal(first, frames()[:, 0:8])
  np.testing.assert_array_equal(second, frames()[:, 6:14])
  with pytest.raises(ValueError, match="need 14 frames; the data gives 13"):
    objective().windows(jnp.asarray(frames()[:, :13]))


def test_the_first_stage_has_true_frames_and_u():
  inputs = objective().first_inputs(frames(), draws())
  np.testing.assert_array_equal(inputs.x_0, stack_frames(frames()[:, :8]))
  np.testing.assert_array_equal(inputs.last_fragment, np.zeros((1, *inputs.x_0.shape[1:])))
  for row, positions in zip(inputs.condition, draws().first.positions):
    i = int(positions[1])
    assert i in (1, 7)
    sample = [j for j in range(4) if (row[..., 0] == frames()[j, 0, ..., 0]).all()]
    np.testing.assert_array_equal(row[..., 2], frames()[sample[0], i, ..., 0])


def test_the_second_stage_goes_on_from_the_estimate():
  both = draws()
  estimate = jax.random.normal(jax.random.key(1), (4, *toy.FRAGMENT))
  inputs = objective().second_inputs(frames(), estimate, both)
  np.testing.assert_array_equal(inputs.x_0, stack_frames(frames()[:, 6:]))
  np.testing.assert_array_equal(inputs.last_fragment, estimate)
  for i, continues in enumerate(both.continues):
    given = inputs.condition[i][..., [0, 2]]  # one channel a frame, each before its mask
    true = frames()[i, [6, 13], ..., 0]
    expected = estimate[i, ..., -2:] if continues else np.moveaxis(true, 0, -1)
    np.testing.assert_array_equal(given, expected)


def test_in_the_paper_the_second_stage_always_goes_on_from_the_estimate():
  """Sec. 3.3, whatever the first stage's frames were: here none, both ends, and drawn ones."""
  shares = {"generation": 0.3, "interpolation": 0.3, "infilling": 0.4}
  plan = dataclasses.replace(objective(), mix=TaskMix(shares, toy.FRAMES, toy.SLOTS))
  draws = plan.draw(jax.random.key(3), frames())
  assert {-1, 0, 7} <= set(np.ravel(draws.first.positions).tolist())
  np.testing.assert_array_equal(draws.second.positions, [[0, 1]] * 4)
  estimate = jax.random.normal(jax.random.key(1), (4, *toy.FRAGMENT))
  inputs = plan.second_inputs(frames(), estimate, draws)
  np.testing.assert_array_equal(inputs.condition[..., [0, 2]], estimate[..., -2:])
  masks = np.array([1, 2]) / 9 * 2 - 1
  np.testing.assert_allclose(inputs.condition[:, 0, 0, [1, 3]], [masks] * 4, rtol=1e-6)
  np.testing.assert_array_equal(inputs.last_fragment, estimate)
  released = dataclasses.replace(plan, second_stage="release").draw(jax.random.key(3), frames())
  np.testing.assert_array_equal(released.first.positions, draws.first.positions)
  assert not released.continues.any()  # there: true frames, or none


def test_loss_and_estimate_are_those_of_the_process():
  inputs = objective().first_inputs(frames(), draws())
  params = toy.linear_params()
  loss, estimate = objective(clip_estimate=False).loss(params, inputs)
  x_t = PROCESS.q_sample(inputs.x_0, inputs.t, inputs.noise)
  v = toy.Linear().apply(params, x_t, inputs.t, inputs.condition, inputs.last_fragment)
  alpha, sigma = PROCESS.alpha_sigma(inputs.t, 4)
  target = alpha * inputs.noise - sigma * inputs.x_0
  np.testing.assert_allclose(loss, jnp.square(v - target).mean(), rtol=1e-5)
  np.testing.assert_allclose(estimate, alpha * x_t - sigma * v, atol=1e-5)
  assert np.abs(estimate).max() > 1
  _, clipped = objective().loss(params, inputs)
  np.testing.assert_array_equal(clipped, np.clip(estimate, -1, 1))


def test_the_estimate_sends_no_gradient_back():
  inputs = objective().first_inputs(frames(), draws())
  gradient = jax.grad(lambda p: objective().loss(p, inputs)[1].sum())(toy.linear_params())
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def by_hand(updates: str) -> state.TrainState:
  """The iteration of section 3.3 written out."""
  plan, now = objective(updates=updates), train()
  first, _, estimate = plan.gradients(now.params, plan.first_inputs(frames(), draws()))
  inputs = plan.second_inputs(frames(), estimate, draws())
  if updates == "two":
    step, opt_state = OPTIMIZER.update(first, now.opt_state, now.params)
    params = optax.apply_updates(now.params, step)
    second, _, _ = plan.gradients(params, inputs)
  else:
    params, opt_state = now.params, now.opt_state
    second, _, _ = plan.gradients(params, inputs)
    second = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
  step, opt_state = OPTIMIZER.update(second, opt_state, params)
  params = optax.apply_updates(params, step)
  average = jax.tree.map(lambda a, b: (a + b) / 2, now.params, params)
  return now.replace(step=now.step + 1, params=params, ema_params=average, opt_state=opt_state)


@pytest.mark.parametrize("updates", ["two", "one"])
def test_an_iteration_in_both_forms(updates):
  plan = objective(updates=updates)
  iterate = jax.jit(functools.partial(plan.iterate, optimizer=OPTIMIZER, ema=EMA))
  done, metrics = iterate(train(), frames(), draws())
  expected = by_hand(updates)
  close(done.params, expected.params)
  close(done.ema_params, expected.ema_params)
  assert done.step == 1 and optax.tree.get(done.opt_state, "count") == 1 + (updates == "two")
  mean = 0.5 * (metrics["loss_first"] + metrics["loss_second"])
  np.testing.assert_allclose(metrics["loss"], mean, rtol=1e-6)


def test_gradient_norms_of_all_and_of_each_network():
  """The larger one of both stages, so that a network that learns nothing is seen."""
  plan = objective(updates="one")  # both stages at the same weights
  _, metrics = plan.iterate(train(), frames(), draws(), OPTIMIZER, EMA)
  params = train().params
  first, _, estimate = plan.gradients(params, plan.first_inputs(frames(), draws()))
  second, _, _ = plan.gradients(params, plan.second_inputs(frames(), estimate, draws()))
  assert not first["params"]["encoder"]  # U is zero: nothing to learn from it here
  for name in ("unet", "encoder"):
    norms = [np.linalg.norm(of["params"][name]) for of in (first, second)]
    np.testing.assert_allclose(metrics[f"gradient_norm_{name}"], max(norms), rtol=1e-5)
    assert max(norms) > 0
  norms = [np.linalg.norm(np.hstack(jax.tree.leaves(of))) for of in (first, second)]
  np.testing.assert_allclose(metrics["gradient_norm"], max(norms), rtol=1e-5)


def test_without_two_stages_half_the_batch_sees_the_true_first_window():
  plan = objective(two_stage=False)
  inputs = plan.either_inputs(jnp.asarray(frames()), draws(), step=5)
  first, second = (stack_frames(w) for w in plan.windows(jnp.asarray(frames())))
  np.testing.assert_array_equal(inputs.x_0[0::2], first[0::2])
  np.testing.assert_array_equal(inputs.x_0[1::2], second[1::2])
  np.testing.assert_array_equal(inputs.last_fragment[0::2], np.zeros_like(first[0::2]))
  np.testing.assert_array_equal(inputs.last_fragment[1::2], first[1::2])
  np.testing.assert_array_equal(inputs.condition[1, ..., 0], second[1, ..., 0])
  done, metrics = plan.iterate(train(), frames(), draws(), OPTIMIZER, EMA)
  assert done.step == optax.tree.get(done.opt_state, "count") == 1
  gradients, loss, _ = plan.gradients(train().params, inputs)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
  np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradients), rtol=1e-5)


def test_without_two_stages_a_batch_of_one_trains_both_windows_in_turn():
  plan = objective(two_stage=False)
  one = jax.tree.map(lambda x: x[:1], (jnp.asarray(frames()), draws()))
  windows = [stack_frames(window) for window in plan.windows(one[0])]
  for step in range(4):
    inputs = plan.either_inputs(*one, step)
    np.testing.assert_array_equal(inputs.x_0, windows[step % 2])
    assert inputs.last_fragment.any() == bool(step % 2)


def test_one_stage_with_as_many_updates_is_the_two_stage_training_from_true_frames():
  plan = objective(two_stage=False, one_stage="both")
  done, metrics = plan.iterate(train(), frames(), draws(), OPTIMIZER, EMA)
  assert optax.tree.get(done.opt_state, "count") == plan.num_updates == objective().num_updates == 2
  first, loss_1, _ = plan.gradients(train().params, plan.first_inputs(frames(), draws()))
  now = state.update_params(train(), first, OPTIMIZER)
  true = stack_frames(jnp.asarray(frames()[:, :8]))
  inputs = plan.second_inputs(frames(), true, draws())
  for i, (last, given) in enumerate(zip(inputs.last_fragment, inputs.condition)):
    np.testing.assert_array_equal(last, true[i])
    at = [6 + int(j) for j in draws().second.positions[i]]
    np.testing.assert_array_equal(given[..., [0, 2]], np.moveaxis(frames()[i, at, ..., 0], 0, -1))
  second, loss_2, _ = plan.gradients(now.params, inputs)
  close(done.params, state.update_params(now, second, OPTIMIZER).params)
  np.testing.assert_allclose(metrics["loss"], (loss_1 + loss_2) / 2, rtol=1e-5)
  assert objective(two_stage=False).num_updates == 1
  assert objective(two_stage=False, one_stage="both", updates="one").num_updates == 1


@pytest.mark.parametrize(
  ("shares", "options", "trained", "new"),
  [
    (
      {"prediction": 0.8, "interpolation": 0.2},
      {"second_stage": "release"},
      [(0, 1), (0, 7)],
      [(0, -1), (0, 2), (7, 0), (-1, -1)],
    ),
    ({"generation": 1.0}, {}, [(-1, -1), (0, 1)], [(0, 7)]),
    ({"generation": 1.0}, {"second_stage": "release"}, [(-1, -1)], [(0, 1)]),
    ({"generation": 1.0}, {"two_stage": False}, [(-1, -1)], [(0, 1)]),
    ({"live_photo": 1.0}, {"second_stage": "release"}, [(0, -1), (0, 1)], [(1, -1)]),
    ({"infilling": 1.0}, {"second_stage": "release"}, [(3, 7), (-1, 0), (0, 1)], [(-1, -1)]),
    ({"random": 1.0}, {}, [(5, 2), (0, -1)], [(0, 7)]),
    ({"random": 1.0, "interpolation": 0.0}, {}, [(0, 6)], [(0, 7)]),
  ],
)
def test_which_positions_are_trained(shares, options, trained, new):
  plan = Objective(toy.Linear(), PROCESS, TaskMix(shares, toy.FRAMES, toy.SLOTS), **options)
  assert all(map(plan.trains, trained)) and not any(map(plan.trains, new))


def test_a_step_draws_from_its_number_and_the_same_again():
  step = jax.jit(functools.partial(objective().train_step, optimizer=OPTIMIZER, ema=EMA))
  once, again = step(train(), frames()), step(train(), frames())
  close((once[0].params, once[1]), (again[0].params, again[1]))
  other = step(train().replace(step=jnp.int32(1)), frames())
  assert np.abs(other[1]["loss_first"] - once[1]["loss_first"]) > 1e-4


def test_draws_are_of_every_sample_and_stage():
  t = jnp.stack([draws().first.t, draws().second.t])
  assert len(np.unique(t)) == t.size and t.min() >= 0 and t.max() <= 999
  noise = jnp.stack([draws().first.noise, draws().second.noise])
  assert noise.shape == (2, 4, *toy.FRAGMENT)
  assert noise.std() == pytest.approx(1.0, abs=0.1)
  assert np.abs(np.corrcoef(noise.reshape(8, -1)) - np.eye(8)).max() < 0.5


def test_training_learns_a_constant_video():
  """Predicting what never moves: the loss falls well below that of the start."""
  plan = dataclasses.replace(objective(), mix=TaskMix({"prediction": 1.0}))
  still = jnp.broadcast_to(jnp.asarray(frames()[:, :1]), frames().shape)
  step = jax.jit(functools.partial(plan.train_step, optimizer=OPTIMIZER, ema=EMA))
  now, losses = train(), []
  for _ in range(150):
    now, metrics = step(now, still)
    losses.append(float(metrics["loss"]))
  assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("two_stage", [True, False])
@pytest.mark.parametrize("encoder", [True, False])
def test_the_ablations_of_table_5_by_their_shapes(two_stage, encoder):
  """With the real networks; nothing is computed."""
  plan = Objective(toy.networks(encoder), PROCESS, MIX, two_stage=two_stage)
  f = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  x, condition = f((4, *toy.FRAGMENT)), f((4, toy.SIDE, toy.SIDE, 4))
  params = jax.eval_shape(plan.model.init, jax.random.key(0), x, f((4,)), condition, x)
  assert ("encoder" in params["params"]) == encoder
  assert ("middle_cross" in params["params"]["unet"]) == encoder
  begun = jax.eval_shape(lambda p: state.create(jax.random.key(0), p, OPTIMIZER), params)
  step = functools.partial(plan.train_step, optimizer=OPTIMIZER, ema=EMA)
  done, metrics = jax.eval_shape(step, begun, f(frames().shape))
  assert jax.tree.map(lambda x: x.shape, done) == jax.tree.map(lambda x: x.shape, begun)
  assert ("loss_second" in metrics) == two_stage and {"loss", "gradient_norm"} <= set(metrics)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"updates": "three"}, "Unknown updates 'three'.*two, one"),
    ({"second_stage": "both"}, "Unknown second_stage 'both'.*paper, release"),
    ({"one_stage": "none"}, "Unknown one_stage 'none'.*both, halves"),
  ],
)
def test_unknown_options_list_the_choices(options, message):
  with pytest.raises(ValueError, match=message):
    objective(**options)


def test_saturated_pixels_may_be_drawn_beyond_the_range():
  """No loss and no gradient where black is drawn blacker; elsewhere the loss is as it was."""
  plain, saturating = objective(), objective(saturate=True)
  inputs = plain.first_inputs(frames(), draws())
  ends = inputs._replace(x_0=jnp.sign(inputs.x_0))

  def error(which: Objective, factor: float, x_0: jax.Array) -> jax.Array:
    """The loss of a network that returns v of `factor` times the truth."""

    class Exact:
      def apply(self, *_):
        return PROCESS.target(factor * x_0, ends.t, ends.noise)

    exact = dataclasses.replace(which, model=Exact())
    return exact.loss(toy.linear_params(), ends._replace(x_0=x_0))[0]

  for factor, forgiven in ((1.5, True), (0.5, False)):
    assert error(plain, factor, ends.x_0) > 1e-3
    expected = 0.0 if forgiven else error(plain, factor, ends.x_0)
    np.testing.assert_allclose(error(saturating, factor, ends.x_0), expected, atol=1e-6)
  inside = 0.5 * ends.x_0  # not at the end of the range: as ever
  np.testing.assert_allclose(error(saturating, 1.5, inside), error(plain, 1.5, inside), rtol=1e-6)
