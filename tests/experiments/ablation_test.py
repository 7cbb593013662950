"""Table 5's command: which runs, over several sittings, what is compared; nothing is trained."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from configs import lgcvd_digits
from experiments import ablation, checks, score_prediction, train
from videodiff_jax.metrics.protocols import PROTOCOLS

VARIANTS = ["baseline", "no_encoder", "no_two_stage", "full", "eps", "one_update"]
VIDEOS = 4


def config(**changes):
  found = lgcvd_digits.get_config("smoke")
  found.ablation.update(changes)
  return found


def test_runs_are_the_variants_by_name(tmp_path) -> None:
  runs = list(ablation.plan(tmp_path, config()))
  assert [(run.variant, run.seed) for run in runs] == [
    (name, seed) for seed in (0, 1, 2) for name in VARIANTS
  ]
  assert len({run.workdir for run in runs}) == 18
  for run in runs:
    named = lgcvd_digits.get_config(f"smoke,{run.variant}")
    named.seed = run.seed
    assert run.config.to_json() == named.to_json()


def test_a_part_of_the_runs(tmp_path) -> None:
  some = config(compared="eps,full", seeds=(7,))
  assert [(r.variant, r.seed) for r in ablation.plan(tmp_path, some)] == [("eps", 7), ("full", 7)]
  with pytest.raises(checks.UserError, match=r"ablation\.compared is 'huge'\. Choose one of: base"):
    list(ablation.plan(tmp_path, config(compared="huge")))
  with pytest.raises(checks.UserError, match="seeds is empty"):
    list(ablation.plan(tmp_path, config(seeds=())))


class Bench:
  """Stands in for training and scoring; `stop_after` trainings it behaves as after SIGTERM."""

  def __init__(self, monkeypatch):
    self.trained: list[str] = []
    self.scored: list[str] = []
    self.stop_after = 99
    monkeypatch.setattr(train, "train", self.train)
    monkeypatch.setattr(train, "open_store", lambda *_: None)
    monkeypatch.setattr(score_prediction, "check", lambda *_: None)
    monkeypatch.setattr(score_prediction, "evaluate", self.evaluate)
    monkeypatch.setattr(ablation, "steps_done", lambda folder, _: self.steps(folder))

  def steps(self, folder: pathlib.Path) -> int | None:
    file = folder / "steps"
    return int(file.read_text()) if file.is_file() else None

  def train(self, config, folder, only) -> bool:
    assert only is None
    if len(self.trained) == self.stop_after:
      return False
    train.claim_workdir(config, folder)
    self.trained.append(f"{folder.parent.name}/{folder.name}")
    (folder / "steps").write_text(str(config.train.lgcvd.steps))
    return True

  def evaluate(self, folder, config, name, features, reuse) -> dict:
    assert (name, reuse) == ("smoke", True)
    self.scored.append(folder.parent.name)
    rng = np.random.default_rng(config.seed)
    psnr = rng.normal(20, 3, VIDEOS) + VARIANTS.index(folder.parent.name)
    return {
      "videos": {"predicted": {"psnr": psnr.tolist(), "brightness_shift": [0.5] * VIDEOS}},
      "scores": {"prediction": {"predicted": {"fvd": 100.0 + VARIANTS.index(folder.parent.name)}}},
      "settings": {"sample": config.sample.to_dict()},
    }


@pytest.fixture
def bench(monkeypatch) -> Iterator[Bench]:
  yield Bench(monkeypatch)


def test_several_sittings(bench, tmp_path) -> None:
  few = config(compared="full,eps", seeds=(0, 1))
  bench.stop_after = 3
  assert ablation.run(tmp_path, few) is None
  done = ["full/seed_0", "eps/seed_0", "full/seed_1"]
  assert bench.trained == done
  # What there is can be read: the difference of one seed.
  partly = json.loads((tmp_path / "ablation.json").read_text())["variants"]
  assert (partly["full"]["seeds"], partly["eps"]["seeds"]) == ([0, 1], [0])
  assert partly["eps"]["difference"]["psnr"]["seeds"] == [0]

  bench.stop_after = 99
  result = ablation.run(tmp_path, few)
  assert bench.trained == [*done, "eps/seed_1"]
  difference = result["variants"]["eps"]["difference"]
  # The same videos and seeds: what differs is the variant alone.
  assert difference["psnr"]["mean"] == pytest.approx(1)
  assert difference["psnr"]["standard_error"] == pytest.approx(0, abs=1e-9)
  assert (difference["fvd"]["mean"], difference["fvd"]["standard_error"]) == (1.0, 0.0)
  assert not result["variants"]["full"]["difference"]


def test_more_steps_go_on(bench, tmp_path) -> None:
  few = config(compared="full", seeds=(0,))
  ablation.run(tmp_path, few)
  few.train.lgcvd.steps = 8
  ablation.run(tmp_path, few)
  assert bench.trained == ["full/seed_0"] * 2
  few.objective.updates = "one"
  with pytest.raises(checks.UserError, match=r"config\.objective\.updates"):
    ablation.run(tmp_path, few)


def test_tables(bench, tmp_path) -> None:
  result = ablation.run(tmp_path, config(seeds=(0, 1)))
  text = (tmp_path / "ablation.md").read_text()
  assert text.count("| full, epsilon | 2 | 8 |") == 2
  assert text.count("| full | 2 | 8 |") == 1
  assert "| baseline + two-stage training | 2 | 8 | -2.00 ± 0.00 | -2.0 ± 0.0 |" in text
  assert "LPIPS" not in text  # nobody had its weights
  assert "standard error" in text and "4 iterations each" in text
  said = ablation.report(result)
  assert "Differences to the full model" in said and "8 frames predicted from 2" in said


def test_variants_without_two_stages_have_as_many_updates(bench, tmp_path) -> None:
  """So that two-stage training is compared with its like; a column tells of those that have not."""
  result = ablation.run(tmp_path, config(seeds=(0,)))
  updates = {name: row["updates"] for name, row in result["variants"].items()}
  assert updates == dict.fromkeys(VARIANTS, 8) | {"one_update": 4}
  assert "| full, one update | 1 | 4 |" in (tmp_path / "ablation.md").read_text()


def test_samples_are_scored_and_not_means(bench, tmp_path) -> None:
  """The digits' too: what divides by sqrt(abar) at t = 999 shifts the brightness by itself."""
  whole = lgcvd_digits.get_config()
  for run in ablation.plan(tmp_path, whole):
    sampler = run.config.sample.sampler
    assert (sampler.kind, sampler.num_steps, sampler.grid) == ("ddpm", 25, "spaced")
  said = ablation.notes(ablation.run(tmp_path, config(compared="full", seeds=(0,))))
  assert "Drawn by sampler ddpm, 2 steps, grid 'spaced': nearly a conditional mean" in said


def test_another_run_s_folder_is_refused(bench, tmp_path) -> None:
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(checks.UserError, match="workdir of a single run"):
    ablation.run(tmp_path, config())
  assert not bench.trained


def test_every_run_is_checked_before_the_first(bench, tmp_path) -> None:
  wrong = config()
  wrong.ablation.variants.eps = {"diffusion": {"process": {"prediction_type": "noise"}}}
  with pytest.raises(checks.UserError, match="prediction type 'noise'"):
    ablation.run(tmp_path, wrong)
  with pytest.raises(checks.UserError, match=rf"'big'\. Choose one of: {', '.join(PROTOCOLS)}"):
    ablation.run(tmp_path, config(), "big")
  assert not bench.trained
