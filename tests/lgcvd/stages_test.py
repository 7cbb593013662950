"""What the training loop is given."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.lgcvd import tiny
from videodiff_jax.lgcvd import stages
from videodiff_jax.lgcvd.networks import make_objective
from videodiff_jax.models.pixels import to_float
from videodiff_jax.training.stage import Stage
from videodiff_jax.training.state import TrainState


def batch(count: int = 8) -> dict[str, np.ndarray]:
  return {"frames": tiny.clips(count)}


@pytest.fixture(scope="module")
def stage() -> Stage:
  return stages.lgcvd_stage(tiny.config(), tiny.build(tiny.config()))


@pytest.fixture(scope="module")
def state(stage) -> TrainState:
  return stage.init(jax.random.key(0))


@pytest.fixture(scope="module")
def step(stage) -> Callable:
  ((first, function),) = stage.train_steps
  assert first == 0
  return jax.jit(function)


def test_a_step_is_the_objective_s_on_floats(stage, state, step) -> None:
  after, metrics = step(state, {}, batch())
  assert int(after.step) == 1
  objective = make_objective(tiny.config(), tiny.build(tiny.config()))
  frames = to_float(jnp.asarray(batch()["frames"]))
  draws = objective.draw(jax.random.fold_in(state.key, 0), frames)
  loss, _ = objective.loss(state.params, objective.first_inputs(frames, draws))
  np.testing.assert_allclose(metrics["loss_first"], loss, rtol=1e-5)
  assert np.isfinite(metrics["gradient_norm"])


def test_both_networks_learn(state, step) -> None:
  after, _ = step(state, {}, batch())
  for network in ("unet", "encoder"):
    assert np.all(after.params["params"][network] != state.params["params"][network])


def test_steps_draw_anew(state, step) -> None:
  one, other = (step(state, {}, batch())[1]["loss"] for _ in range(2))
  assert one == other
  assert step(state.replace(step=jnp.int32(1)), {}, batch())[1]["loss"] != one


@pytest.mark.parametrize("two_stage", [True, False])
def test_validation_is_a_step_s_loss_of_the_average(state, two_stage: bool) -> None:
  """With a step's draws, where both windows meet the same weights."""
  config = tiny.config()
  config.objective.update(updates="one", two_stage=two_stage, one_stage="both")
  stage = stages.lgcvd_stage(config, tiny.build(config))
  _, trained = jax.jit(stage.train_steps[0][1])(state, {}, batch())
  train = state.replace(params=None, ema_params=state.params)
  losses = jax.jit(stage.validate)(train, {}, batch(), jax.random.fold_in(state.key, 0))
  assert losses.keys() == {"loss", "loss_first", "loss_second"}
  for name, loss in losses.items():
    np.testing.assert_allclose(loss, trained[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
  ("objective", "factor"),
  [
    ({"updates": "two"}, 2),
    ({"updates": "one"}, 1),
    ({"two_stage": False}, 1),
    ({"two_stage": False, "one_stage": "both"}, 2),
  ],
)
def test_a_schedule_of_iterations_is_one_of_updates(monkeypatch, objective, factor) -> None:
  made = {}
  monkeypatch.setattr(
    stages.optimizers, "make_optimizer", lambda **options: made.update(options) or optax.sgd(1.0)
  )
  config = tiny.config()
  config.objective.update(objective)
  config.train.lgcvd.steps = 100
  config.train.lgcvd.optimizer.update(warmup_steps=10, decay="cosine")
  stages.make_stage(config, "lgcvd")
  assert (made["steps"], made["warmup_steps"]) == (100 * factor, 10 * factor)
  assert config.train.lgcvd.optimizer.warmup_steps == 10


def test_preview_is_figure_3(stage, state) -> None:
  drawn = stage.preview(state, {}, batch(2), jax.random.key(1))
  assert list(drawn) == ["one step", "sampled", "real"]
  real = np.asarray(to_float(jnp.asarray(batch(2)["frames"][:, : tiny.FRAMES])))
  np.testing.assert_allclose(drawn["real"], real, atol=1e-6)
  assert {video.shape for video in drawn.values()} == {real.shape}
  # The given frames stand in the sampled fragment; the one-step estimate is the network's own.
  k = tiny.SLOTS
  np.testing.assert_allclose(drawn["sampled"][:, :k], real[:, :k], atol=1e-6)
  for name in ("one step", "sampled"):
    assert np.abs(drawn[name][:, k:] - real[:, k:]).max() > 0.05
  assert np.abs(drawn["one step"][:, :k] - real[:, :k]).max() > 0.05


def test_unknown_stage_is_told() -> None:
  with pytest.raises(ValueError, match=r"'generator'.*lgcvd"):
    stages.make_stage(tiny.config(), "generator")
