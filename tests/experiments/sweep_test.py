"""--mode=sweep: which points, over several sittings, what is timed; toys stand in for systems."""

import dataclasses
import json
import time

import numpy as np
import pytest

from configs import common, lgcvd_common
from experiments.claims import sweep, sweep_sets
from experiments.measures import set_scores
from experiments.setup import checks
from videodiff_jax import locks
from videodiff_jax.metrics import kid

PARTS = range(0, 6, 2)
REAL = np.random.default_rng(9).integers(0, 256, (4, 10, 16, 16, 1), np.uint8)


class Pipeline:
  """Draws clips that are the nearer to the real ones the more steps; counts its draws."""

  def __init__(self, config, drawn, point=None):
    self.config, self.drawn, self.point = config, drawn, point

  def with_settings(self, decoder):
    if decoder["num_steps"] > 1000:
      raise ValueError("1001 steps of 1000")
    return Pipeline(self.config, self.drawn, tuple(decoder.values()))

  def draw(self, first: int) -> np.ndarray:
    self.drawn.append((*self.point, first))
    if self.drawn.count(self.drawn[-1]) == 1 and first == 0:
      self.clock.append(self.clock[-1] + 60.0)  # compiles
    self.clock.append(self.clock[-1] + self.point[2])
    rng = np.random.default_rng(first)
    return rng.integers(0, 100 - self.point[2], (2, 10, 16, 16, 1), np.uint8)


@pytest.fixture
def bench(monkeypatch) -> Pipeline:
  config = common.base()
  config.sweep.update(kinds=("ddim", "unipc"), grids=("uniform",), steps=(8, 2))
  pipeline = Pipeline(config, [])
  Pipeline.clock = [0.0]
  settings = {"about": "Of a test.", "part": 2, "device": "none", "weights": "1f"}

  def build(*_):
    return sweep_sets.Bench(
      pipeline, settings, lambda: REAL, ("decoder",), PARTS,
      lambda of, first: of.draw(first), None, paired=False,
    )  # fmt: skip

  def features(videos: np.ndarray) -> set_scores.Features:
    values = videos.reshape(len(videos), -1)[:, :5] / 1.0
    return set_scores.Features(values, np.stack([values] * 10, axis=1))

  monkeypatch.setattr(sweep, "read_config", lambda _: config)
  monkeypatch.setattr(sweep_sets, "glober_bench", build)
  monkeypatch.setattr(set_scores, "locate", lambda: None)
  monkeypatch.setattr(set_scores, "features", features)
  monkeypatch.setattr(checks, "check_config", lambda _: None)
  monkeypatch.setattr(time, "monotonic", lambda: Pipeline.clock[-1])
  pipeline.settings = settings
  return pipeline


def test_predictions_are_compared_with_other_videos_than_their_own(bench) -> None:
  """Perfect ones: with their own videos among those compared, their distance would be below 0."""
  both = [dataclasses.replace(sweep_sets.glober_bench(), paired=paired) for paired in (True, False)]
  paired, unpaired = (sweep.Judge(one)(REAL) for one in both)
  logits = set_scores.features(REAL).logits
  name = "i3d_kernel_distance"
  assert paired[0][name] == pytest.approx(kid.kernel_distance(logits, logits, paired=True))
  assert unpaired[0][name] == pytest.approx(kid.kernel_distance(logits, logits))
  assert unpaired[0][name] < 0
  # A video and its own prediction are drawn together, so that nothing but rounding is left.
  assert np.abs(paired[1][name]).max() < 1e-6 * np.abs(unpaired[1][name]).max()


def test_every_point_once_and_few_steps_first(bench, tmp_path) -> None:
  record = sweep.run(tmp_path, None)
  made = [(row["kind"], row["grid"], row["steps"]) for row in record["points"]]
  assert made == [(kind, "uniform", steps) for steps in (2, 8) for kind in ("ddim", "unipc")]
  # The first part once more, which is not timed: its program was compiled in 60 seconds.
  assert [first for *_, first in bench.drawn] == [0, 0, 2, 4] * 4
  assert [row["seconds_a_clip"] for row in record["points"]] == [1, 1, 4, 4]
  for row in record["points"]:
    low, high = row["intervals"]["fvd"]
    assert low < row["scores"]["fvd"] < high
  assert json.loads((tmp_path / "sweep.json").read_text()) == json.loads(json.dumps(record))
  assert (tmp_path / "sweep.png").stat().st_size > 5000
  lines = (tmp_path / "sweep.md").read_text().splitlines()
  assert [line for line in lines if "| unipc | uniform | 8 | 4 |" in line]
  assert "parts of 2 clips" in sweep.report(record)


def test_a_killed_sweep_goes_on(bench, tmp_path, monkeypatch) -> None:
  whole = sweep.plan(bench.config.sweep)
  bench.config.sweep.steps = (2,)
  first = sweep.run(tmp_path, None)
  bench.drawn.clear()
  bench.config.sweep.steps = (8, 2)
  second = sweep.run(tmp_path, None)
  assert second["points"][:2] == json.loads(json.dumps(first["points"]))
  assert [sweep._point(row) for row in second["points"]] == whole
  assert {steps for _, _, steps, _ in bench.drawn} == {8}
  # With nothing missing nothing is drawn.
  bench.drawn.clear()
  assert sweep.run(tmp_path, None) == second and not bench.drawn


def test_two_at_once_are_refused_before_a_point_is_drawn(bench, tmp_path) -> None:
  with (
    locks.hold(tmp_path / "sweep.lock", "sweeps it"),
    pytest.raises(locks.LockedError, match=r"Another process sweeps .* Wait for it"),
  ):
    sweep.run(tmp_path, None)
  assert not bench.drawn and not list(tmp_path.iterdir())
  assert len(sweep.run(tmp_path, None)["points"]) == 4


def test_other_weights_are_another_sweep(bench, tmp_path) -> None:
  sweep.run(tmp_path, None)
  bench.settings["weights"] = "2e"
  with pytest.raises(checks.UserError, match=r"other settings \(weights\): move it away"):
    sweep.run(tmp_path, None)


def test_what_cannot_be_drawn_is_told_first(bench, tmp_path) -> None:
  bench.config.sweep.steps = (2, 1001)
  with pytest.raises(checks.UserError, match=r"config\.sweep, ddim, uniform, 1001 steps: 1001"):
    sweep.run(tmp_path, None)
  bench.config.sweep.kinds = ()
  with pytest.raises(checks.UserError, match="no points"):
    sweep.run(tmp_path, None)
  assert not bench.drawn


def test_every_system_has_grids_that_its_schedule_allows() -> None:
  """LGC-VD's cosine schedule allows no more than three steps uniform in log-SNR."""
  assert common.base().sweep.grids == ("uniform", "log_snr")
  assert lgcvd_common.base().sweep.grids == ("uniform", "spaced")
  for base in (common.base, lgcvd_common.base):
    assert len(sweep.plan(base().sweep)) == 48
