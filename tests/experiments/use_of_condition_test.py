"""'Use of condition': nothing for what is ignored or not changed, something for what is used."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.scoring import use_of_condition
from tests.glober import tiny as tiny_glober
from tests.lgcvd import tiny as tiny_lgcvd
from videodiff_jax.glober import condition_use as of_clips
from videodiff_jax.inputs.clips import ClipSampler
from videodiff_jax.lgcvd import condition_use as of_fragments
from videodiff_jax.metrics import condition_use
from videodiff_jax.training import partitioning

COUNT = 11  # no whole number of a device's chunks


def measured(predict, params, rows, swaps, draws: int = 2) -> dict[str, dict[str, float]]:
  every = [
    (rows | {"t": np.full(COUNT, 100 + draw, np.int32),
             "number": np.arange(COUNT, dtype=np.uint32) + draw * COUNT}, swaps)
    for draw in range(draws)
  ]  # fmt: skip
  stats = use_of_condition.measure(predict, params, partitioning.make_mesh(), every)
  return condition_use.figures(stats, seed=0)[0]


def test_figures_of_a_network_that_copies_its_condition() -> None:
  """Its prediction is the condition times `params`, and the truth is the condition."""

  def predict(params: jax.Array, rows: dict) -> tuple[jax.Array, jax.Array]:
    prediction = params * rows["condition"] + rows["other"]
    return prediction, jnp.square(prediction - rows["condition"]).mean(axis=1) + 1.0

  rng = np.random.default_rng(0)
  condition = rng.standard_normal((COUNT, 500), np.float32)
  rows = {"condition": condition, "other": np.zeros_like(condition)}
  swaps = {
    "itself": {"condition": condition.copy()},
    "unlike": {"condition": rng.standard_normal((COUNT, 500), np.float32)},
    "doubled": {"condition": 2 * condition},
    "loss alone": {"other": condition},
  }
  found = measured(predict, jnp.float32(1.0), rows, swaps)
  assert found["itself"] == {"change": 0.0, "loss_change": 0.0, "loss": 1.0}
  assert found["unlike"]["change"] == pytest.approx(np.sqrt(2), rel=0.05)
  assert found["doubled"]["change"] == pytest.approx(1.0)
  assert found["loss alone"]["change"] == pytest.approx(1.0)
  power = float(np.square(condition).mean())
  assert found["loss alone"]["loss_change"] == pytest.approx(power, rel=1e-5)  # of a loss of 1
  assert found["loss alone"]["loss"] == pytest.approx(1 + power, rel=1e-5)


def test_intervals_are_paired() -> None:
  """Clips differ far more than the swap changes any one of them."""
  loss = np.linspace(1.0, 9.0, 20)
  stats = {"power": np.ones(20), "change": np.ones(20), "loss": loss, "swapped_loss": 1.01 * loss}
  scores, spread = condition_use.figures({"swap": stats}, seed=0)
  assert scores["swap"]["loss_change"] == pytest.approx(0.01)
  assert np.ptp(spread["swap"]["loss_change"]) < 1e-9 < 1.0 < np.ptp(spread["swap"]["loss"])


@pytest.mark.parametrize(("unet", "used"), [(2, "fragment"), (1, "frames"), (None, "")])
def test_a_dead_module_of_lgcvd_is_seen(unet: int | None, used: str) -> None:
  """The stand-in's prediction sees frames by its weight 1, the last fragment by its weight 2."""
  networks = tiny_lgcvd.build(tiny_lgcvd.config())
  weights = np.array([0.5, 0.0, 0.0, 0.1, 0.2], np.float32)
  if unet is not None:
    weights[unet] = 0.4
  params = {"params": {"unet": weights, "encoder": np.float32(0.7)}}
  rows, swaps = of_fragments.conditions(networks, tiny_lgcvd.clips(COUNT), True)
  found = measured(functools.partial(of_fragments.predict, networks, False), params, rows, swaps)
  assert list(found) == [
    "frames of another video", "fragment of another video", "no fragment, U",
    "noise for a fragment",
  ]  # fmt: skip
  for name, row in found.items():
    kind = "frames" if name.startswith("frames") else "fragment"
    assert (row["change"] > 0.01) == (kind == used), name
    if kind != used:
      assert row["change"] == row["loss_change"] == 0.0
  assert "-0.0000" not in use_of_condition.report(found)


def test_without_an_encoder_frames_alone_are_swapped() -> None:
  networks = tiny_lgcvd.build(tiny_lgcvd.config())
  clips = tiny_lgcvd.clips(3)
  rows, swaps = of_fragments.conditions(networks, clips, False)
  assert list(swaps) == ["frames of another video"]
  np.testing.assert_array_equal(rows["window"], clips[:, 6:])
  np.testing.assert_array_equal(rows["given"], rows["window"][:, :2])
  np.testing.assert_array_equal(swaps["frames of another video"]["given"], clips[[2, 0, 1], 6:8])
  np.testing.assert_allclose(rows["last"] * 127.5 + 127.5, clips[:, :8], atol=1e-3)


def test_a_class_that_glober_s_decoder_cannot_see() -> None:
  """All classes have one embedding there; the generator has its own."""
  networks, params = tiny_glober.networks(), dict(tiny_glober.sampling_params())
  params["autoencoder"] = jax.tree.map_with_path(
    lambda path, x: x * 0 if "class_embedding" in jax.tree_util.keystr(path) else x,
    params["autoencoder"],
  )
  rng = np.random.default_rng(0)
  v = rng.standard_normal((COUNT, *tiny_glober.FEATURE), np.float32)
  condition = np.array([0, 0, 1] * COUNT, np.int32)[:COUNT]
  by_class = of_clips.condition_swaps(networks, params, condition)
  assert list(by_class) == ["class of another clip", "no class"]
  assert (by_class["class of another clip"]["condition"] == 1 - condition).all()
  assert (by_class["no class"]["condition"] == 2).all()
  rows = {"v": v, "condition": condition}
  frames = {"frame": tiny_glober.clips(COUNT)[:, 2], "time": np.full(COUNT, 0.25, np.float32)}
  swaps = of_clips.frame_swaps(v, frames["time"] + 0.5) | by_class | {"itself": {"v": v.copy()}}
  predict = functools.partial(of_clips.predict_frame, networks)
  found = measured(predict, params, rows | frames, swaps, draws=1)
  for name, row in found.items():
    seen = name in ("global feature of another clip", "time of another frame")
    assert (row["change"] > 0, row["loss_change"] != 0) == (seen, seen), name
  predict = functools.partial(of_clips.predict_feature, networks)
  found = measured(predict, params, rows, by_class, draws=1)
  assert min(row["change"] for row in found.values()) > 0


def test_clips_that_are_told_the_same_have_no_other_class() -> None:
  networks = tiny_glober.networks()
  alike = of_clips.condition_swaps(networks, {}, np.ones(3, np.int32))
  assert list(alike) == ["no class"]


def test_too_few_long_videos_are_told(caplog) -> None:
  """An evaluation goes on without the figures."""
  store = types.SimpleNamespace(split="test", videos=[{"frames": 8}, {"frames": 13}])
  assert use_of_condition._held_out(store, ClipSampler(num_frames=10, content="clip")) is None
  assert "two held-out videos of 10 frames" in caplog.text
  found = use_of_condition._held_out(store, ClipSampler(num_frames=8, content="clip"))
  assert sorted(found.videos) == [0, 1]


def test_fragments_are_swapped_where_videos_begin() -> None:
  """As in predictions: elsewhere the fragment before need not matter."""
  store = types.SimpleNamespace(split="test", videos=[{"frames": 30}] * 9)
  sampler = ClipSampler(num_frames=8, content="clip")
  found = use_of_condition._held_out(store, sampler, first=True)
  assert sorted(found.videos) == list(range(9)) and not found.starts.any()
  assert use_of_condition._held_out(store, sampler).starts.any()


def test_black_drawn_blacker_than_black_is_no_loss_where_it_was_none_in_training() -> None:
  """All black, of which the stand-in says -0.1 x_t, whose estimate lies on either side of black."""
  networks = tiny_lgcvd.build(tiny_lgcvd.config())
  params = {"params": {"unet": np.array([-0.1, 0, 0, 0, 0], np.float32), "encoder": np.float32(0)}}
  rows, _ = of_fragments.conditions(networks, np.zeros_like(tiny_lgcvd.clips(4)), True)
  rows |= {"t": np.full(4, 500, np.int32), "number": np.arange(4, dtype=np.uint32)}
  losses = [of_fragments.predict(networks, saturate, params, rows)[1] for saturate in (False, True)]
  assert (0 < losses[1]).all() and (losses[1] < losses[0]).all()
