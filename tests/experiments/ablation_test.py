"""Table 5's command: which runs, over several sittings, what is compared; nothing is trained."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from configs import glober_digits, lgcvd_digits
from experiments.claims import ablation, claim_scores
from experiments.measures import set_scores
from experiments.scoring import glober_ladder, lgcvd_prediction, score_files
from experiments.setup import checks, frame_stores
from experiments.train import plan, train
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
  with pytest.raises(checks.UserError, match=r"ablation\.seeds is \(\); it must hold 1 to"):
    checks.check_config(config(seeds=()))


class Bench:
  """Stands in for training and scoring; `stop_after` trainings it behaves as after SIGTERM."""

  def __init__(self, monkeypatch):
    self.trained: list[str] = []
    self.scored: list[str] = []
    self.stop_after = 99
    monkeypatch.setattr(train, "train", self.train)
    monkeypatch.setattr(frame_stores, "open_store", lambda *_: None)
    monkeypatch.setattr(lgcvd_prediction, "check", lambda *_: None)
    monkeypatch.setattr(lgcvd_prediction, "evaluate", self.evaluate)
    monkeypatch.setattr(ablation, "steps_done", lambda folder, _: self.steps(folder))

  def steps(self, folder: pathlib.Path) -> int | None:
    file = folder / "steps"
    return int(file.read_text()) if file.is_file() else None

  def train(self, config, folder, only) -> bool:
    assert only is None
    if len(self.trained) == self.stop_after:
      return False
    with train.claimed(config, folder):
      pass
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
      "scores": {
        "prediction": {"predicted": {"fvd": 100.0 + VARIANTS.index(folder.parent.name)}},
        "use_of_condition": {"fragment of another video": {"loss_change": 0.25}}
        if config.model.sequence_encoder
        else {},
      },
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


def test_earlier_scores_without_a_figure_leave_its_column_out(bench, tmp_path, monkeypatch) -> None:
  """Seed 1 of the reference was scored by a version that had no KID."""

  def evaluate(folder, config, *_, reuse) -> dict:
    record = bench.evaluate(folder, config, "smoke", None, reuse)
    if (folder.parent.name, folder.name) != ("full", "seed_1"):
      record["scores"]["prediction"]["predicted"]["i3d_kernel_distance"] = 0.5
    return record

  monkeypatch.setattr(lgcvd_prediction, "evaluate", evaluate)
  rows = ablation.run(tmp_path, config(compared="full,eps", seeds=(0, 1)))["variants"]
  assert rows["eps"]["mean"]["i3d_kernel_distance"] == 0.5
  assert "i3d_kernel_distance" not in rows["full"]["mean"] | rows["eps"]["difference"]
  assert "fvd" in rows["eps"]["difference"]
  assert "KID" in (tmp_path / "ablation.md").read_text()


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
  ends = "-2.00 [-2.00, -2.00] | -2.0 [-2.0, -2.0]"
  # A variant without an encoder has no use of it.
  assert f"| baseline + two-stage training | 2 | 8 |  | {ends} |" in text
  assert "| full | 2 | 8 | 0.250 |" in text
  assert "LPIPS" not in text  # nobody had its weights
  assert "95 %, by Student's t" in text and "full, one update: 4 of lgcvd. Drawn by" in text
  said = ablation.report(result)
  assert "Differences to 'full'" in said and "8 frames predicted from 2" in said


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
  with pytest.raises(checks.UserError, match="prediction_type is 'noise'"):
    ablation.run(tmp_path, wrong)
  with pytest.raises(checks.UserError, match=rf"'big'\. Choose one of: {', '.join(PROTOCOLS)}"):
    ablation.run(tmp_path, config(), "big")
  assert not bench.trained


# ---- GLOBER Table 3


@pytest.fixture
def ladders(bench, monkeypatch) -> list[str]:
  """The ladder in place of predictions; gives the runs it has scored."""
  scored = []

  def ladder(folder, config) -> dict:
    scored.append(f"{folder.parent.name}/{folder.name}")
    worse = 7.0 if config.loss.lambda_cra else 0.0
    record = {
      "protocol": "ladder",
      "scores": {"fvd": {"generated": 100.0 + config.seed + worse}, "frames": {}},
      "settings": {
        "sample": config.sample.to_dict(),
        "steps": dict.fromkeys(config.stages, 4),
        **{name: config.evaluate[name] for name in ("num_real", "num_fake")},
      },
    }
    (folder / "evaluations").mkdir()
    score_files.save(folder / "evaluations" / "ladder.json", record)
    return record

  def train_stages(config, folder, only) -> bool:
    with train.claimed(config, folder):
      pass
    for name in config.stages:
      if not (folder / name).is_dir():
        bench.trained.append(f"{folder.parent.name}/{folder.name}/{name}")
        (folder / name).mkdir()
        (folder / name / "weights").write_text(f"of seed {config.seed}")
    (folder / "steps").write_text("4")
    return True

  monkeypatch.setattr(train, "train", train_stages)
  monkeypatch.setattr(glober_ladder, "evaluate", ladder)
  monkeypatch.setattr(set_scores, "locate", lambda: None)
  monkeypatch.setattr(claim_scores, "steps_done", lambda *_: 4)
  return scored


def test_cra_on_and_off_from_the_same_kl_vae(bench, ladders, tmp_path) -> None:
  claim = glober_digits.get_config("cra,smoke")
  claim.ablation.seeds = (0, 1)
  result = ablation.run(tmp_path, claim)
  first = ["no_cra/seed_{}/kl_vae", "no_cra/seed_{}/autoencoder", "no_cra/seed_{}/generator"]
  second = ["cra/seed_{}/autoencoder", "cra/seed_{}/generator"]
  assert bench.trained == [name.format(seed) for seed in (0, 1) for name in first + second]
  assert (tmp_path / "cra" / "seed_1" / "kl_vae" / "weights").read_text() == "of seed 1"
  difference = result["variants"]["cra"]["difference"]["fvd.generated"]
  assert (difference["mean"], difference["interval"]) == (7.0, (7.0, 7.0))
  assert "| cra | 2 | 12 | +7.0 [+7.0, +7.0] |" in (tmp_path / "ablation.md").read_text()
  assert "Differences to 'no_cra'" in ablation.report(result)
  # What was scored is not scored again.
  assert ablation.run(tmp_path, claim) == result and len(ladders) == 4


# ---- all frames at once against fragment by fragment


def test_another_system_has_the_same_videos_and_as_many_flops(monkeypatch) -> None:
  flops = {"kl_vae": 2, "autoencoder": 5, "generator": 3, "lgcvd": 4}

  def flops_between(config, name, begin, end) -> int:
    return flops[name] * (end - begin)

  monkeypatch.setattr(plan, "flops_between", flops_between)
  claim = glober_digits.get_config("frames64,smoke")
  claim.data.dir = "there"
  claim.ablation.seeds = (3,)
  one, other = ablation.plan(pathlib.Path("claim"), claim)
  assert one.config.data.num_frames == other.config.data.video_frames == 64
  assert (other.config.system, other.config.seed, other.config.data.dir) == ("lgcvd", 3, "there")
  assert other.config.data.name == "moving_digits" and other.config.tasks.shares.generation == 0.4
  assert other.config.train.lgcvd.steps == 4 * (2 + 5 + 3) / 4
  for run in (one, other):
    checks.check_given(run.config)


def test_every_variant_of_the_claims_is_a_configuration() -> None:
  for config in (glober_digits.get_config("cra,smoke"), lgcvd_digits.get_config("smoke")):
    config.ablation.compared = ",".join(config.ablation.variants)
    runs = list(ablation.plan(pathlib.Path("claim"), config))
    assert len({run.config.to_json() for run in runs}) == len(runs)
    for run in runs:
      checks.check_given(run.config)
