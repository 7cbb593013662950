"""--mode=compare: like beside like, and the difference named where they are unlike."""

import copy
import dataclasses
import json
import pathlib
import sys

import pytest
from absl.testing import flagsaver

from experiments import main
from experiments.scoring import score_files
from experiments.setup import checks
from tests.helpers import ROOT
from videodiff_jax.metrics.clip_protocols import CLIP_PROTOCOLS
from videodiff_jax.metrics.protocols import PROTOCOLS

RESULTS = ROOT / "experiments" / "results"
LADDERS = [str(RESULTS / "glober_digits" / f"ladder_seed{i}.json") for i in range(3)]
# From before score files had intervals, or protocols a choice of frames.
QUICK = pathlib.Path(__file__).parent / "earlier" / "quick.json"


def test_a_regression_is_not_called_a_sampler() -> None:
  two = {"kind": "dpmpp_2m", "num_steps": 2, "grid": "log_snr"}
  many = {"kind": "ddpm", "num_steps": (50, 50), "grid": "spaced"}
  said = score_files.drawn_by({"noise": "shared", "decoder": two, "generator": many})
  assert said == (
    "Drawn by decoder dpmpp_2m, 2 steps, grid 'log_snr': nearly a conditional mean, not a sample; "
    "generator ddpm, 100 steps, grid 'spaced'."
  )


@pytest.fixture
def record() -> dict:
  return json.loads(QUICK.read_text())


def written(tmp_path: pathlib.Path, name: str, record: dict) -> str:
  file = tmp_path / name
  file.write_text(json.dumps(record))
  return str(file)


def test_runs_of_one_protocol_stand_side_by_side() -> None:
  table = score_files.compare(LADDERS)
  rows = {line.split("  ")[0].strip(): line.split() for line in table.splitlines() if line}
  values = [json.loads(pathlib.Path(file).read_text())["scores"] for file in LADDERS]
  expected = [f"{scores['fvd']['generated']:.4g}" for scores in values]
  assert rows["fvd / generated"][3:] == expected
  assert f"A: {LADDERS[0]} (steps kl_vae 550, autoencoder 1500, generator 480" in table


def test_intervals_stand_beside_their_figures(tmp_path, record) -> None:
  record["intervals"] = {"prediction": {"predicted": {"fvd": [400.0, 555.5]}}}
  new = written(tmp_path, "new.json", record)
  table = score_files.compare([str(QUICK), new])
  assert "[low, high]" in table and "[low, high]" not in score_files.compare(LADDERS)
  (line,) = [line for line in table.splitlines() if line.startswith("prediction / predicted / fvd")]
  assert line.split("fvd")[1].split() == ["477.8", "477.8", "[400,", "555.5]"]


@pytest.mark.parametrize(
  ("where", "key", "value", "said"),
  [
    ("protocol", "num_videos", 256, "protocol.num_videos: 32 and 256"),
    ("protocol", "lpips_range", [0.0, 1.0], "protocol.lpips_range: [-1.0, 1.0] and [0.0, 1.0]"),
    ("protocol", "seed", 1, "protocol.seed: 0 and 1"),
    ("protocol", "choice", "spaced", 'protocol.choice: "random" and "spaced"'),
    ("settings", "data_fingerprint", "f00", 'settings.data_fingerprint: "c43b3842c80c4e52" and'),
    ("settings", "detector_sha256", "f00", "settings.detector_sha256"),
    ("settings", "image_size", 64, "settings.image_size: 32 and 64"),
    ("settings", "codec", "jpeg", 'settings.codec: "raw" and "jpeg"'),
    ("settings", "flip", True, "settings.flip: not given and true"),
  ],
)
def test_unlike_measurements_are_refused(tmp_path, record, where, key, value, said) -> None:
  record[where][key] = value
  other = written(tmp_path, "other.json", record)
  with pytest.raises(checks.UserError, match="were not measured alike") as error:
    score_files.compare([str(QUICK), other])
  assert said in str(error.value) and other in str(error.value)
  assert len([line for line in str(error.value).splitlines() if line.startswith("  ")]) == 1


def test_what_is_the_model_s_own_may_differ(tmp_path, record) -> None:
  other = copy.deepcopy(record)
  other["settings"]["sample"]["sampler"]["num_steps"] = 50
  other["settings"]["steps"] = {"lgcvd": 9}
  other["settings"]["code"] = "later"
  other["protocol"]["about"] = "in other words"
  assert "B: " in score_files.compare([str(QUICK), written(tmp_path, "other.json", other)])


def test_figures_added_to_a_protocol_do_not_part_old_files_from_new(tmp_path, record) -> None:
  new = copy.deepcopy(record)
  new["settings"] |= {"frame_detector_sha256": "a", "inception_splits": 1}
  new["scores"]["prediction"]["predicted"]["alexnet_frame_frechet"] = 3.25
  files = [str(QUICK), written(tmp_path, "new.json", new)]
  for order in (files, files[::-1]):
    (line,) = [x for x in score_files.compare(order).splitlines() if "alexnet" in x]
    assert line.split("/")[-1].split() == ["alexnet_frame_frechet", "3.25"]
  new["settings"]["frame_detector_sha256"] = "b"
  other = written(tmp_path, "other.json", new)
  with pytest.raises(checks.UserError, match=r'frame_detector_sha256: "a" and "b"'):
    score_files.compare([files[1], other])


def test_a_setting_added_since_counts_as_its_default(record) -> None:
  assert "choice" not in record["protocol"]
  assert score_files.measured(record)["protocol.choice"] == '"random"'
  now = json.loads(json.dumps(dataclasses.asdict(PROTOCOLS["quick"])))
  assert score_files.with_defaults(now) == {
    **score_files.with_defaults(record["protocol"]),
    "lpips_range": [-1.0, 1.0],
  }


def test_systems_and_protocols_of_one_name_are_told_apart(tmp_path, record) -> None:
  glober = {**record, "protocol": dataclasses.asdict(CLIP_PROTOCOLS["quick"])}
  other = written(tmp_path, "other.json", glober)
  with pytest.raises(checks.UserError, match="were not measured alike"):
    score_files.compare([str(QUICK), other])
  with pytest.raises(checks.UserError, match=r'protocol\.name: "ladder" and "quick"'):
    score_files.compare([LADDERS[0], str(QUICK)])


@pytest.mark.parametrize(
  "text", ["{", "[]", '{"protocol": "a", "scores": []}', '{"protocol": {}, "scores": {}}']
)
def test_what_is_no_score_file_is_told(tmp_path, text) -> None:
  (tmp_path / "bad.json").write_text(text)
  with pytest.raises(checks.UserError, match=r"bad\.json is no score file"):
    score_files.compare([LADDERS[0], str(tmp_path / "bad.json")])
  with pytest.raises(checks.UserError, match=r"none\.json is no score file"):
    score_files.compare([LADDERS[0], str(tmp_path / "none.json")])
  with pytest.raises(checks.UserError, match="needs two score files or more"):
    score_files.compare(LADDERS[:1])


def test_the_command(monkeypatch, capsys) -> None:
  argv = ["main.py", "--mode=compare", *LADDERS]
  monkeypatch.setattr(sys, "argv", argv)
  monkeypatch.setattr(main, "_quiet_libraries", lambda: None)
  with flagsaver.flagsaver():
    main.main(main.parse_flags(argv))
    assert "fvd / generated" in capsys.readouterr().out
    with pytest.raises(SystemExit):
      main.main([*main.parse_flags(argv), str(QUICK)])
  assert "Error: " in (said := capsys.readouterr().err) and "not measured alike" in said
