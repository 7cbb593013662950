"""Scores of predictions against what each setting of a protocol says."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from videodiff_jax.metrics import frechet, images, lpips, prediction
from videodiff_jax.metrics.protocols import PROTOCOLS, PredictionProtocol

P, HORIZON = 2, 4


def protocol(**changes) -> PredictionProtocol:
  return PredictionProtocol("test", "A test's.", num_frames=HORIZON, gap=HORIZON - 1, **changes)


def videos(*lead: int, side: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
  shape = (*lead, P + HORIZON, side, side, channels)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


DRAWN, REAL = videos(2, 3), videos(2, seed=1)
SAME = np.broadcast_to(REAL[:, None], DRAWN.shape)


def test_frames_and_trajectories_of_the_standard_protocol() -> None:
  frames = prediction.frame_scores(DRAWN, REAL, protocol())
  assert {x.shape for x in frames.values()} == {(2, 3, HORIZON)}
  np.testing.assert_allclose(frames["psnr"], images.psnr(DRAWN, SAME)[..., P:])
  np.testing.assert_allclose(frames["ssim"], images.ssim(DRAWN, SAME)[..., P:])
  scores = prediction.trajectory_scores(frames, DRAWN, REAL, protocol())
  np.testing.assert_allclose(scores["psnr"], frames["psnr"].mean(-1))
  assert {x.shape for x in scores.values()} == {(2, 3)}
  summary = prediction.summary(scores, protocol())
  assert summary["psnr"] == pytest.approx(scores["psnr"].mean())
  assert summary["psnr_best"] == pytest.approx(scores["psnr"].max(1).mean())
  alone = {name: x[:, :1] for name, x in scores.items()}
  assert "psnr_best" not in prediction.summary(alone, protocol())
  bests = prediction.bests(scores, protocol())
  np.testing.assert_array_equal(bests["psnr_best"], scores["psnr"].max(1))
  assert bests.keys() == {"psnr_best", "ssim_best"} and not prediction.bests(alone, protocol())


def test_first_scored_leaves_drawn_frames_out() -> None:
  """LGC-VD's release scores from the third frame on, also where one frame is given."""
  frames = prediction.frame_scores(DRAWN, REAL, protocol(past=1, first_scored=2))
  np.testing.assert_allclose(frames["psnr"], images.psnr(DRAWN, SAME)[..., 2:])


def test_brightness_is_signed() -> None:
  real = np.full_like(REAL, 100)
  drawn = np.full_like(DRAWN, 100)
  drawn[:, 0, P:] += 10
  drawn[:, 1, P:-1] += 6
  drawn[:, 1, -1] -= 6
  frames = prediction.frame_scores(drawn, real, protocol())
  scores = prediction.trajectory_scores(frames, drawn, real, protocol())
  np.testing.assert_allclose(scores["brightness_shift"][0], [10, 3, 0])
  np.testing.assert_allclose(scores["brightness_shift_last"][0], [10, -6, 0])
  np.testing.assert_allclose(scores["brightness_error"][0], [10, 6, 0])
  assert frames["psnr"][0, 2, 0] == 60.0  # an exact copy


def test_mcvd_s_psnr_and_ssim() -> None:
  ours = protocol(psnr="video", ssim_grey=True)
  frames = prediction.frame_scores(DRAWN, REAL, ours)
  scores = prediction.trajectory_scores(frames, DRAWN, REAL, ours)
  np.testing.assert_allclose(scores["psnr"], images.video_psnr(DRAWN[:, :, P:], SAME[:, :, P:]))

  def grey(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).convert("L"))[..., None]

  expected = images.ssim(grey(DRAWN[1, 2, P]), grey(REAL[1, P]))
  assert frames["ssim"][1, 2, 0] == pytest.approx(expected, rel=1e-12)


def test_ssim_window() -> None:
  frames = prediction.frame_scores(DRAWN, REAL, protocol(ssim_window="uniform"))
  np.testing.assert_allclose(frames["ssim"], images.ssim(DRAWN, SAME, "uniform")[..., P:])


# ---- LPIPS, with a stand-in that compiles at once and is not symmetric


@pytest.fixture
def stand_in(monkeypatch) -> Iterator[None]:
  def difference(a: jax.Array, b: jax.Array, net: str, params: dict) -> jax.Array:
    assert net == "alex" and a.shape[-1] == 3 and a.dtype == jnp.float32
    return (params["weight"] * a[:, 1:] - b[:, :-1] ** 2).mean(axis=(1, 2, 3))

  monkeypatch.setattr(lpips, "lpips", difference)
  prediction._compiled_lpips.cache_clear()
  yield
  prediction._compiled_lpips.cache_clear()


PARAMS = {"weight": np.float32(2.0)}


@pytest.mark.parametrize(("limits", "channels"), [((-1.0, 1.0), 1), ((0.0, 1.0), 3)])
def test_lpips_range(stand_in, limits, channels) -> None:
  """More pairs than one call takes; grey is repeated."""
  drawn, real = videos(2, 9, channels=channels), videos(2, channels=channels, seed=1)
  found = prediction.frame_scores(drawn, real, protocol(lpips_range=limits), PARAMS)["lpips"]
  low, high = limits

  def scaled(x: np.ndarray) -> np.ndarray:
    return (low + (high - low) * x[..., P:, :, :, :] / 255.0).astype(np.float32)

  expected = 2 * scaled(drawn)[..., 1:, :, :] - scaled(real)[:, None, :, :-1] ** 2
  np.testing.assert_allclose(found, expected.mean(axis=(-3, -2, -1)), atol=1e-5)


def test_lpips_of_resized_frames_is_pillow_s(stand_in) -> None:
  """MCVD's: bilinear, rounded to 8 bits."""
  drawn, real = videos(1, 1, side=20), videos(1, side=20, seed=1)
  found = prediction.frame_scores(drawn, real, protocol(lpips_size=32), PARAMS)["lpips"]

  def resized(x: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / 127.5 - 1

  expected = 2 * resized(drawn[0, 0, P])[1:] - resized(real[0, P])[:-1] ** 2
  np.testing.assert_allclose(found[0, 0, 0], expected.mean(), atol=1e-3)


# ---- the best of N


def test_a_sampler_s_spread_is_its_error_and_a_regression_has_none() -> None:
  """Trajectories and truth from one distribution; then the same trajectory again and again."""
  rng = np.random.default_rng(0)
  truth, *many = rng.integers(0, 256, (6, 40, 3, 8, 8, 1), np.uint8)  # 5 of 40 videos

  def found(trajectories: list[np.ndarray]) -> dict[str, float]:
    pairs = zip(trajectories[1:], trajectories)
    apart = np.stack([prediction.square_difference(*pair) for pair in pairs], axis=1)
    error = [prediction.square_difference(one, truth) for one in trajectories]
    return prediction.spread(apart, np.stack(error, axis=1))

  sampler, regression = found(many), found(many[:1] * 5)
  deviation = np.sqrt((256**2 - 1) / 12)  # of a uniform pixel
  assert sampler["spread"] == pytest.approx(deviation, rel=0.01)
  assert sampler["rms_error"] == pytest.approx(np.sqrt(2) * deviation, rel=0.01)
  assert sampler["spread_share"] == pytest.approx(1.0, rel=0.01)
  assert (regression["spread"], regression["spread_share"]) == (0.0, 0.0)
  alone = prediction.spread(np.zeros((40, 0, 3)), np.ones((40, 1, 3)))
  assert alone == {"rms_error": 1.0}


def test_best_of_each_video() -> None:
  values = np.array([[1.0, 3.0], [5.0, 4.0]])
  np.testing.assert_array_equal(prediction.best(values, protocol(), lower=False), [3, 5])
  np.testing.assert_array_equal(prediction.best(values, protocol(), lower=True), [1, 4])


@pytest.mark.parametrize("lower", [False, True])
def test_best_as_released(lower: bool) -> None:
  """The loop of the release's eva.py: files of 10, a group closed at each index i % 10 == 0."""
  values = np.random.default_rng(0).normal(size=(4, 100))
  choose = min if lower else max
  expected, group = [], []
  for i, file in enumerate(values.reshape(40, 10)):
    group.extend(file)
    if i % 10 == 0:
      expected.append(choose(group))
      group = []
  found = prediction.best(values, protocol(best="released_groups"), lower)
  np.testing.assert_array_equal(found, expected)
  with pytest.raises(ValueError, match="a multiple of 10 trajectories per video, not 3"):
    prediction.best(values[:, :3], protocol(best="released_groups"), lower)


# ---- FVD, by three numbers of each clip


def features(clips: np.ndarray) -> np.ndarray:
  flat = clips.reshape(len(clips), -1) / 255.0
  return flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 3))


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
  return videos(6, 2, side=4), videos(6, side=4, seed=1)


def fvd_of(drawn: np.ndarray, real: np.ndarray, of: PredictionProtocol) -> float:
  count = 1 if of.fvd_trajectories == "first" else drawn.shape[1]
  fakes = [features(prediction.compared(drawn[:, j], real, of)) for j in range(count)]
  return prediction.fvd(features(real), np.stack(fakes), of)


def test_fvd_of_which_trajectories(sets) -> None:
  drawn, real = sets
  one, other, true = (features(x) for x in (drawn[:, 0], drawn[:, 1], real))

  def fvd(**changes) -> float:
    return fvd_of(drawn, real, protocol(fvd_given="drawn", **changes))

  assert fvd() == pytest.approx(frechet.fvd(true, one))
  whole = np.concatenate([one, other])
  assert fvd(fvd_trajectories="all") == pytest.approx(frechet.fvd(true, whole))
  both = (frechet.fvd(true, one) + frechet.fvd(true, other)) / 2
  assert fvd(fvd_trajectories="each") == pytest.approx(both)
  repeated = frechet.fvd(np.concatenate([true, true]), whole)
  assert fvd(fvd_trajectories="all", fvd_repeat_real=True) == pytest.approx(repeated)
  assert len({fvd(), both, repeated, frechet.fvd(true, whole)}) == 4


def test_fvd_of_which_given_frames(sets) -> None:
  drawn, real = sets
  begun = np.concatenate([real[:, :P], drawn[:, 0, P:]], axis=1)
  expected = frechet.fvd(features(real), features(begun))
  assert fvd_of(drawn, real, protocol()) == pytest.approx(expected)


def test_every_protocol_scores_two_videos() -> None:
  """Nothing in a named one is left undone."""
  twice = np.tile(videos(2, 1, side=12), (1, 1, 2, 1, 1, 1))
  for ours in PROTOCOLS.values():
    same = twice[:, :, : ours.first_scored + 2]
    drawn = np.broadcast_to(same, (2, 10 if ours.trajectories > 1 else 1, *same.shape[2:]))
    frames = prediction.frame_scores(drawn, same[:, 0], ours)
    scores = prediction.trajectory_scores(frames, drawn, same[:, 0], ours)
    summary = prediction.summary(scores, ours)
    assert summary["psnr"] == 60.0
    assert ("psnr_best" in summary) == (ours.trajectories > 1)


def test_mse_is_summed_over_a_frame_s_pixels_in_0_to_1_where_it_is_asked_for() -> None:
  frames = prediction.frame_scores(DRAWN, REAL, protocol(mse=True))
  apart = (DRAWN[:, :, P:].astype(float) - REAL[:, None, P:]) / 255
  np.testing.assert_allclose(frames["mse"], (apart**2).sum((-3, -2, -1)))
  assert "mse" not in prediction.frame_scores(DRAWN, REAL, protocol())
