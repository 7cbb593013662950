"""The papers' tables: their figures are consistent, and ours come from the run that a row names."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.scoring import glober_protocols, lgcvd_prediction
from experiments.setup import checks
from experiments.tables import papers, score_table, speed_table
from experiments.tables.papers import TABLES, Measure
from tests.glober import tiny
from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS, GENERATED_VIDEOS
from videodiff_jax.metrics.protocols import PROTOCOLS
from videodiff_jax.training.workdir import write_config

CRA = "glober_ucf101:class_names"
NO_CRA = "glober_ucf101:class_names,no_cra"


def measures(name: str) -> list[Measure]:
  return [measure for row in TABLES[name].rows for measure in row.ours]


def figures(name: str) -> dict[str, tuple[str, ...]]:
  return {row.name: row.paper for row in TABLES[name].rows}


# ---- the data


def test_every_table_of_figures_is_there() -> None:
  of_glober = {f"glober_{number}" for number in ("1a", "1b", "1c", "1d", *"34567")}
  of_lgcvd = {f"lgcvd_{number}" for number in range(1, 6)}
  assert set(TABLES) == of_glober | of_lgcvd | {"moving_mnist"}
  assert papers.SPEED == "glober_2" and papers.SPEED not in TABLES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_whole_and_each_figure_of_ours_can_be_measured(name: str) -> None:
  table = TABLES[name]
  assert table.notes and measures(name)
  for row in table.rows:
    assert len(row.paper) == len(table.columns)
    assert len(row.ours) in (0, len(table.columns))
  for measure in measures(name):
    config = score_table.load(measure.config)
    checks.check_config(config)
    assert {key for key, _ in measure.sample} <= set(config.sample)
    group = measure.score.split(".")[0]
    if measure.protocol in CLIP_PROTOCOLS:
      protocol = CLIP_PROTOCOLS[measure.protocol]
      assert group == protocol.drawn
      if config.system == "glober":
        assert protocol.num_frames == config.data.num_frames
      else:
        assert measure.protocol in GENERATED_VIDEOS
    else:
      assert config.system == "lgcvd" and group in PROTOCOLS[measure.protocol].tasks


@pytest.mark.parametrize("name", ["lgcvd_1", "lgcvd_3"])
def test_p_and_n_of_a_row_are_those_of_its_protocol(name: str) -> None:
  for row in TABLES[name].rows:
    past, _, ahead = map(int, re.search(r"(\d+)/(\d+)/(\d+)", row.name).groups())
    for measure in row.ours:
      protocol = PROTOCOLS[measure.protocol]
      assert (protocol.past, protocol.num_frames, protocol.trajectories) == (past, ahead, 100)


def test_sizes_are_those_of_the_titles() -> None:
  for name in TABLES:
    for row in TABLES[name].rows:
      told = re.search(r"(\d+) x \1", f"{row.name} {TABLES[name].title}")
      for measure in row.ours:
        if told and name != "glober_4":
          assert score_table.load(measure.config).data.image_size == int(told[1])


def test_the_paper_read_as_its_tables_agree_with_each_other() -> None:
  sweep = {row.name: row for row in TABLES["glober_6"].rows}
  best = min(sweep.values(), key=lambda row: float(row.paper[0]))
  assert best.paper == figures("glober_3")["UCF-101, w/o CRA"] == ("106.7",)
  assert {row.ours[0].config for row in sweep.values()} == {NO_CRA}
  assert dict(best.ours[0].sample) == {"guidance_form": "text", "guidance_decoder": 6.0}
  # Workdirs sample as they say, and old ones say otherwise.
  assert {dict(measure.sample)["guidance_form"] for measure in measures("glober_6")} == {"text"}
  headline = TABLES["glober_1d"].rows[-1]
  (twelve,) = [row for row in TABLES["glober_7"].rows if row.name == "mu = 12"]
  assert headline.paper == twelve.paper == ("168.9",) and headline.ours == twelve.ours
  shapes = figures("glober_4")
  generated = [float(shapes[name][1]) for name in ("16 x 16 x 16", "16 x 16 x 32")]
  assert generated[0] - generated[1] == pytest.approx(39.2)
  assert figures("lgcvd_5")["full"] == tuple(
    figure.split()[0] for figure in figures("lgcvd_1")["LGC-VD, 2/6/28"]
  )


# ---- which run fills which row


def make_run(folder: Any, config: str) -> Any:
  folder.mkdir()
  write_config(folder, score_table.load(config))
  return folder


@pytest.fixture
def evaluated(monkeypatch) -> list[tuple]:
  """What was evaluated, instead of its evaluation."""
  calls, shared = [], {}

  def evaluate(
    workdir: Any, config: ConfigDict, protocol: Any, features: Any = None, *, reuse: bool
  ) -> dict:
    assert reuse
    calls.append((workdir.name, config, protocol))
    if features is not None:  # what one run's sets gave is at hand for the next
      assert shared.setdefault(protocol.name, features) is features
    row = {"fvd": 100.0 + len(calls), "psnr": 20.0, "lpips_best": 0.5}
    group = getattr(protocol, "drawn", "prediction")
    rows = row if group != "prediction" else {"predicted": row}
    ends = {"fvd": [99.0, 199.0]} if group != "prediction" else {"predicted": {}}
    deviations = {"prediction": {"predicted": {"lpips_best": 0.031}}}
    return {"scores": {group: rows}, "intervals": {group: ends}, "deviations": deviations}

  monkeypatch.setattr(glober_protocols, "evaluate", evaluate)
  monkeypatch.setattr(lgcvd_prediction, "evaluate", evaluate)
  return calls


def line_of(report: str, row: str) -> list[str]:
  (line,) = [line for line in report.splitlines() if line.startswith(f"{row}  ")]
  return re.split(r" {2,}", line.strip())


def test_each_workdir_fills_its_row_and_the_others_are_not_run(evaluated, tmp_path) -> None:
  runs = [make_run(tmp_path / "b", NO_CRA), make_run(tmp_path / "a", "glober_sky")]
  report = score_table.run("glober_3", runs)
  assert [call[0] for call in evaluated] == ["b", "a"]
  assert line_of(report, "UCF-101, w/o CRA")[1:] == ["106.7", "101 [99, 199]"]
  assert line_of(report, "Sky Time-lapse, w/ CRA")[1:] == ["63.5", "102 [99, 199]"]
  for row in ("UCF-101, w/ CRA", "TaiChi-HD, w/o CRA"):
    assert line_of(report, row)[-1] == "not run"
  assert f"configs/{NO_CRA.replace(':', '.py:')}, glober_reconstruction: {runs[0]}" in report
  assert {protocol.name for _, _, protocol in evaluated} == {"glober_reconstruction"}


def test_a_sweep_is_of_one_run(evaluated, tmp_path) -> None:
  run = make_run(tmp_path / "run", CRA)
  score_table.run("glober_7", [run])
  scales = [config.sample.guidance_generator for _, config, _ in evaluated]
  assert scales == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
  assert {config.sample.guidance_decoder for _, config, _ in evaluated} == {6.0}
  with pytest.raises(checks.UserError, match=r"loss\.lambda_cra > 0 true, not false"):
    score_table.run("glober_6", [run])


def test_a_class_table_stands_for_class_names(evaluated, tmp_path) -> None:
  score_table.run("glober_7", [make_run(tmp_path / "run", "glober_ucf101:cond")])
  assert len(evaluated) == 6
  with pytest.raises(checks.UserError, match='condition "none, or one for all", not "each'):
    score_table.run("glober_7", [make_run(tmp_path / "other", "glober_ucf101")])


def test_the_paper_alone(evaluated) -> None:
  report = score_table.run("lgcvd_3", [])
  assert not evaluated and report.count("not run") == 9 + 1
  assert line_of(report, "SLAMP, 2/10/28")[1:] == ["245.0", "19.7", "0.818"]


def test_a_figure_that_an_evaluation_left_out(evaluated, tmp_path) -> None:
  report = score_table.run("lgcvd_3", [make_run(tmp_path / "run", "lgcvd_bair")])
  row = line_of(report, "LGC-VD, 1/7/15")
  assert row[1:] == ["80.9", "101", "21.8", "left out", "0.891", "left out"]


def test_a_deviation_stands_where_the_paper_prints_one(evaluated, tmp_path) -> None:
  run = make_run(tmp_path / "run", "lgcvd_cityscapes")
  row = line_of(score_table.run("lgcvd_1", [run]), "LGC-VD, 2/6/28")
  assert row[3:5] == ["0.069 ± 0.03", "0.5 ± 0.031"]


def test_a_released_checkpoint_is_scored_as_its_authors_draw(evaluated, tmp_path) -> None:
  """Only the settings that the row is about are taken from its configuration."""
  report = score_table.run("lgcvd_3", [make_run(tmp_path / "run", "lgcvd_bair:release")])
  for _, config, _ in evaluated:
    sample = config.sample
    assert (sample.encoder_weights, sample.average_features) == ("raw", True)
    assert (sample.given_frames, sample.last_fragment) == ("redrawn", "right_aligned")
    assert sample.precision == "float32"
  told = "sampled as the run says: last_fragment right_aligned, not truncate"
  assert told in report and "encoder_weights raw, not ema" in report
  same = score_table.load("lgcvd_bair")
  assert score_table._own_sampling(same, same) == []
  glober = make_run(tmp_path / "glober", CRA)
  saved = score_table.load(CRA)
  saved.sample.guidance_decoder = 2.0
  write_config(glober, saved)
  evaluated.clear()
  score_table.run("glober_7", [glober])
  assert {config.sample.guidance_decoder for _, config, _ in evaluated} == {2.0}
  assert [config.sample.guidance_generator for _, config, _ in evaluated][-1] == 15.0


def test_table_2_is_an_interpolation_and_nothing_else() -> None:
  assert {PROTOCOLS[m.protocol].tasks for m in measures("lgcvd_2")} == {("interpolation",)}


def test_smoke_takes_few_clips_of_smoke_runs(evaluated, tmp_path) -> None:
  run = make_run(tmp_path / "run", "lgcvd_cityscapes:baseline,smoke")
  report = score_table.run("lgcvd_5:smoke", [run])
  assert "the figures here mean nothing" in report
  ((_, config, protocol), *_) = evaluated
  assert config.model.channels == 8 and not config.model.sequence_encoder
  assert (protocol.num_videos, protocol.trajectories, protocol.lpips_required) == (2, 2, False)
  assert protocol.name == "lgcvd_paper_cityscapes_smoke"
  with pytest.raises(checks.UserError, match="fills no row"):
    score_table.run("lgcvd_5", [run])


@pytest.mark.parametrize(
  ("name", "said"),
  [
    (
      "glober_9",
      r"Unknown table 'glober_9'\. .*Choose one of: glober_1a, .*moving_mnist, glober_2",
    ),
    ("glober_2", "time and memory: give it to --mode=benchmark"),
    ("glober_3:quick", "No variant 'quick' of a table; the only one is 'smoke'"),
  ],
)
def test_no_such_table(name: str, said: str) -> None:
  with pytest.raises(checks.UserError, match=said):
    score_table.run(name, [])


def test_two_runs_of_one_row_are_refused(tmp_path) -> None:
  runs = [make_run(tmp_path / name, "glober_sky") for name in ("one", "two")]
  expected = r"one and .*two were both trained with glober_sky: give one"
  with pytest.raises(checks.UserError, match=expected):
    score_table.run("glober_1a", runs)


# ---- Table 2


def test_time_and_memory_stand_beside_the_paper_s(monkeypatch) -> None:
  monkeypatch.setattr(speed_table, "untrained", lambda config: config.data.image_size)
  monkeypatch.setattr(speed_table, "measure", lambda side, frames: (frames / side, 2.0))
  report = speed_table.show("glober_2", score_table.load("glober_ucf101:smoke"))
  for frames in (16, 32, 64):
    here = f"{frames / 32:.2f}s/2.0G"
    assert line_of(report, f"F = {frames}")[1:] == [*papers.SPEED_ROWS[frames], here]
  assert line_of(report, "F = 128")[1:] == ["-"] * 5 + ["4.00s/2.0G"]
  assert "32 x 32, 2 + 2 steps, all frames at once, float32, one cpu" in report
  report = speed_table.show("glober_2", score_table.load("lgcvd_bair:smoke"))
  assert "32 x 32, 2 steps a fragment of 8 frames, float32, one cpu" in report


def test_all_frames_of_a_clip_are_drawn_at_once_and_without_training(monkeypatch) -> None:
  drawn = []

  def generate(self: speed_table.glober.Pipeline, count: int, num_frames: int, seed: int) -> None:
    drawn.append((count, num_frames, self.config.sample.frames_per_chunk))

  monkeypatch.setattr(speed_table.glober.Pipeline, "generate", generate)
  pipeline = speed_table.untrained(tiny.config())
  seconds, gigabytes = speed_table.measure(pipeline, 64)
  assert seconds > 0 and gigabytes > 0
  assert drawn == [(1, 64, 64)] * 4  # the first compiles
  trained = jax.tree.map(np.shape, tiny.sampling_params())
  assert jax.tree.map(np.shape, pipeline.params) == trained


def test_autoregression_is_timed_too(monkeypatch) -> None:
  drawn = []
  monkeypatch.setattr(
    speed_table.lgcvd.Pipeline,
    "generate",
    lambda self, *clips, **options: drawn.append((clips, options)),
  )
  config = score_table.load("lgcvd_digits:smoke")
  speed_table.measure(speed_table.untrained(config), 64)
  assert drawn == [((1,), {"num_frames": 64, "seed": seed}) for seed in range(4)]


def test_other_tables_are_not_timed() -> None:
  with pytest.raises(checks.UserError, match="has only --table=glober_2; give others"):
    speed_table.show("glober_3", None)


def test_protocols_of_the_tables_are_the_published_ones_changed_as_they_say() -> None:
  base = PROTOCOLS["lgcvd_paper_bair"]
  for name, changes in (
    ("lgcvd_paper_bair_n14", {"num_frames": 14}),
    ("lgcvd_paper_bair_p1_n15", {"past": 1, "num_frames": 15}),
    ("lgcvd_paper_cityscapes_p1", {"past": 1}),
  ):
    ours = PROTOCOLS[name]
    assert ours == dataclasses.replace(base, name=name, about=ours.about, **changes)
