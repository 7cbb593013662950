"""--mode=export, and what is done with the folder it makes."""

import json
import pathlib
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

import videodiff_jax
from experiments import main
from experiments.export import card, export
from experiments.sampling import glober_samples
from experiments.setup import systems
from experiments.setup.errors import UserError
from experiments.workdirs import outputs
from tests.glober import tiny as glober_tiny
from tests.helpers import filled_state
from tests.lgcvd import tiny as lgcvd_tiny
from videodiff_jax import glober, lgcvd, shipped
from videodiff_jax.training import exported, loop, partitioning, warm_start
from videodiff_jax.training.checkpoints import CheckpointError, Checkpoints
from videodiff_jax.training.workdir import load_ema, read_config, steps_done, write_config

TINY = {"glober": glober_tiny.config, "lgcvd": lgcvd_tiny.config}
PIPELINES = {"glober": glober.Pipeline, "lgcvd": lgcvd.Pipeline}
SYSTEMS = pytest.mark.parametrize("system", TINY)
META = {"code": "0.1.0+abc", "frozen": "", "examples": 0}


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory) -> dict[str, pathlib.Path]:
  """A run of one step for each system, with filled weights, samples, scores and a command."""
  found = {}
  for system, make in TINY.items():
    found[system] = workdir = tmp_path_factory.mktemp("runs") / system
    config = make()
    config.data.dir = "/home/someone/stores/digits"
    config.data.name = "moving_digits"
    write_config(workdir, config)
    for name in systems.by_name(system).stages.NAMES:
      state = filled_state(systems.by_name(system).stages.make_stage(config, name), scale=0.2)
      checkpoints = Checkpoints(workdir / name / "checkpoints")
      checkpoints.save(1, jax.tree.map(jnp.asarray, state), META)
      checkpoints.wait()
      checkpoints.close()
    _beside(workdir, config)
  return found


def _beside(workdir: pathlib.Path, config) -> None:
  steps = dict.fromkeys(config.stages, 1)
  (workdir / "evaluations").mkdir()
  for name, of in (("old", dict.fromkeys(steps, 7)), ("new", steps)):
    record = {
      "protocol": "ladder", "scores": {"fvd": {"real": 60.0}, "frames": {"kl": {"psnr": 30.0}}},
      "intervals": {"fvd": {"real": [50.0, 70.0]}}, "settings": {"steps": of, "sample": {}},
      "config": json.loads(config.to_json()),
    }  # fmt: skip
    (workdir / "evaluations" / f"{name}.json").write_text(json.dumps(record))
  folder = workdir / "samples" / "000_sample_seed0"
  folder.mkdir(parents=True)
  for name in ("all.gif", "strip.png", "samples.npz", "000.mp4"):
    (folder / name).write_bytes(b"x")
  command = (
    f"python -m experiments.main --config=configs/x.py --workdir={workdir} "
    "--config.data.dir=/home/someone/stores/digits --config.seed=3"
  )
  (workdir / "commands.jsonl").write_text(json.dumps({"command": command, "code": "abc"}) + "\n")


@pytest.fixture(scope="module")
def folders(workdirs, tmp_path_factory) -> dict[str, pathlib.Path]:
  """What was exported of each, with a person's notes."""
  place = tmp_path_factory.mktemp("exported")
  notes = place / "notes.md"
  notes.write_text("## Licence\n\nApache-2.0\n\n## What it cannot do\n\nColours.\n")
  for system, workdir in workdirs.items():
    export.export(workdir, None, options(place / system, notes))
  return {system: place / system for system in workdirs}


def options(out: pathlib.Path | None, notes: pathlib.Path | None = None) -> types.SimpleNamespace:
  return types.SimpleNamespace(out=out and str(out), notes=notes and str(notes))


@SYSTEMS
def test_weights_are_the_average_rounded_and_statistics_are_whole(
  workdirs, folders, system: str
) -> None:
  config, mesh = read_config(folders[system]), partitioning.make_mesh()
  stages = systems.by_name(system).stages
  for name in stages.NAMES:
    stage = stages.make_stage(config, name)
    run, ours = (load_ema(config, f[system], stage, mesh) for f in (workdirs, folders))
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), run["ema_params"])
    chex.assert_trees_all_equal(ours["ema_params"], rounded)
    chex.assert_trees_all_equal(ours["statistics"], run["statistics"])
    assert steps_done(folders[system], name) == 1
    assert jax.tree.structure(ours) == jax.tree.structure(run)


def test_its_pipeline_draws_what_the_run_draws_of_rounded_weights(workdirs, folders) -> None:
  of_run = glober.Pipeline.from_workdir(workdirs["glober"])
  kept = ("latent_statistics", "feature_statistics")
  params = {
    name: tree
    if name in kept
    else jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), tree)
    for name, tree in of_run.params.items()
  }
  rounded = glober.Pipeline(of_run.config, params, of_run.mesh)
  drawn = videodiff_jax.load(folders["glober"], num_videos=3).generate(2, seed=1)
  np.testing.assert_array_equal(drawn.videos, rounded.generate(2, seed=1).videos)
  assert not (drawn.videos == of_run.generate(2, seed=1).videos).all()


@SYSTEMS
def test_the_folder_has_what_is_told_and_no_path_of_the_machine(folders, system: str) -> None:
  folder = folders[system]
  files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
  stages = {f"{name}/weights.safetensors" for name in read_config(folder).stages}
  assert files - stages == {
    "README.md", "config.json", "curves.json", "export.json", "evaluations/new.json",
    "samples/000_sample_seed0/all.gif", "samples/000_sample_seed0/strip.png",
  }  # fmt: skip
  for file in files - stages:
    if not file.endswith((".gif", ".png")):
      assert "/home" not in (folder / file).read_text(), file
      assert "/tmp" not in (folder / file).read_text(), file
  text = (folder / "README.md").read_text()
  assert f"--config=configs/x.py --workdir=runs/{system} --config.seed=3  # abc" in text
  assert "60 [50, 70]" in text and "Colours." in text and "Apache-2.0" in text
  assert f"{card.OPEN} on what machine" in text  # the run does not tell
  assert text.count(card.OPEN) == 1
  assert read_config(folder).data.dir == ""


def test_nothing_is_written_over_and_nothing_half_made_stays(
  workdirs, folders, tmp_path, monkeypatch
) -> None:
  before = (folders["glober"] / "export.json").read_bytes()
  with pytest.raises(UserError, match="exists already and is not overwritten"):
    export.export(workdirs["glober"], None, options(folders["glober"]))
  assert (folders["glober"] / "export.json").read_bytes() == before
  monkeypatch.setattr(card, "write", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    export.export(workdirs["lgcvd"], None, options(tmp_path / "out"))
  assert not (tmp_path / "out").exists()
  monkeypatch.undo()
  export.export(workdirs["lgcvd"], None, options(tmp_path / "out"))
  assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_the_command(workdirs, tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(main, "enable_compilation_cache", lambda: None)
  monkeypatch.chdir(tmp_path)
  export_it = [
    "",
    "--mode=export",
    f"--workdir={workdirs['lgcvd']}",
    f"--out={tmp_path / 'digits'}",
  ]
  report_it = ["", "--mode=report", f"--workdir={tmp_path / 'digits'}"]
  for argv in (export_it, report_it):
    with flagsaver.flagsaver():
      main.parse_flags(argv)
      main.run()
  assert "Evaluation: new" in (tmp_path / "runs/pretrained/digits/report.html").read_text()
  assert (
    exported.is_exported(tmp_path / "digits") and not (tmp_path / "digits/report.html").exists()
  )


def test_what_cannot_be_exported_is_told(workdirs, folders, tmp_path) -> None:
  out = tmp_path / "out"
  with pytest.raises(UserError, match="--mode=export needs --out=DIR"):
    export.export(workdirs["lgcvd"], None, options(None))
  with pytest.raises(UserError, match="is an exported folder already"):
    export.export(folders["lgcvd"], None, options(out))
  raw = lgcvd_tiny.config()
  raw.sample.encoder_weights = "raw"
  with pytest.raises(UserError, match="encoder_weights is 'raw'"):
    export.export(workdirs["lgcvd"], raw, options(out))
  notes = tmp_path / "notes.md"
  notes.write_text("## Weather\n\nFine.")
  with pytest.raises(UserError, match=r"section 'Weather'.*## Use, ## Data"):
    export.export(workdirs["lgcvd"], None, options(out, notes))
  assert not out.exists()


def test_a_damaged_folder_is_told(folders, tmp_path) -> None:
  for name in ("config.json", "export.json"):
    (tmp_path / name).write_bytes((folders["lgcvd"] / name).read_bytes())
  (tmp_path / "lgcvd").mkdir()
  weights = (folders["lgcvd"] / "lgcvd" / "weights.safetensors").read_bytes()
  (tmp_path / "lgcvd" / "weights.safetensors").write_bytes(weights[:-1] + b"\0")
  with pytest.raises(CheckpointError, match="not as it was exported"):
    lgcvd.Pipeline.from_workdir(tmp_path)
  (tmp_path / "export.json").write_text("{}")
  with pytest.raises(CheckpointError, match=r"export\.json is damaged"):
    lgcvd.Pipeline.from_workdir(tmp_path)


def test_an_average_is_not_taken_for_raw_weights(folders) -> None:
  with pytest.raises(ValueError, match="holds only averaged weights"):
    lgcvd.Pipeline.from_workdir(folders["lgcvd"], encoder_weights="raw")


def test_outputs_go_beside(folders, workdirs, tmp_path, monkeypatch) -> None:
  monkeypatch.chdir(tmp_path)
  outputs.check(folders["glober"], "sample")
  assert outputs.folder(folders["glober"]) == tmp_path / "runs" / "pretrained" / "glober"
  assert outputs.folder(workdirs["glober"]) == workdirs["glober"]
  with flagsaver.flagsaver(out=str(tmp_path / "mine")):
    assert outputs.folder(folders["glober"]) == tmp_path / "mine"
    with pytest.raises(UserError, match="--out is for"):
      outputs.check(workdirs["glober"], "sample")
  with flagsaver.flagsaver(out=str(workdirs["lgcvd"])):
    with pytest.raises(UserError, match="holds a run of its own"):
      outputs.check(folders["glober"], "sample")
  with pytest.raises(UserError, match=r"only read.*--config\.init\.run="):
    outputs.check(folders["glober"], "train")
  with pytest.raises(UserError, match="has no samples yet"):
    glober_samples.newest_samples(folders["glober"])


def test_load_by_name_and_by_path(folders, monkeypatch, tmp_path) -> None:
  monkeypatch.setattr(shipped, "FOLDER", folders["glober"].parent)
  assert shipped.names() == ["glober", "lgcvd"]
  for system, pipeline in PIPELINES.items():
    assert isinstance(videodiff_jax.load(system), pipeline)
  assert isinstance(videodiff_jax.load(folders["lgcvd"]), lgcvd.Pipeline)
  with pytest.raises(FileNotFoundError, match=r"'digits'.* There are: glober, lgcvd; or"):
    videodiff_jax.load("digits")
  monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")
  with pytest.raises(FileNotFoundError, match="pip install -e"):
    videodiff_jax.load("glober")


@SYSTEMS
def test_a_run_begins_with_the_weights_of_another(folders, workdirs, system: str) -> None:
  stages = systems.by_name(system).stages
  for run in (folders[system], workdirs[system]):
    config = TINY[system]()
    config.init.run = str(run)
    warm_start.check(config, stages.NAMES, stages.make_stage, ("model",))
    name = stages.NAMES[-1]
    stage = stages.make_stage(config, name)
    mesh = partitioning.make_mesh()
    state = jax.device_put(filled_state(stage), loop.abstract_state(stage, 0, mesh).step.sharding)
    begun = stage.pretrained(state)
    wanted = load_ema(config, run, stage, mesh)
    for params in (begun.params, begun.ema_params):
      chex.assert_trees_all_equal(params, wanted["ema_params"])
    chex.assert_trees_all_equal(begun.statistics, wanted["statistics"])
    assert stage.measure is None and int(begun.step) == 0


def test_a_run_of_other_networks_is_told(folders) -> None:
  def told(change, system: str = "glober", run: str = "glober") -> str:
    config = TINY[system]()
    config.init.run = str(folders[run])
    change(config)
    with pytest.raises(ValueError) as caught:
      systems.of(config).check_pretrained(config, systems.of(config).stages.NAMES)
    return str(caught.value)

  said = told(lambda config: config.model.dit.update(width=32))
  assert "config.model.dit.width: 16 there, 32 now" in said
  said = told(lambda config: config.data.update(num_classes=3))
  assert "generator, ema_params/" in said and "(3, " in said and "(4, " in said
  said = told(lambda config: config.init.update(unet="x"))
  assert "config.init.run and config.init.unet" in said
  assert "system 'glober', not 'lgcvd'" in told(lambda config: None, "lgcvd")
  assert "config.model.channels" in told(lambda c: c.model.update(channels=8), "lgcvd", "lgcvd")
  missing = told(lambda config: config.init.update(run="/no/such/run"))
  assert "/no/such/run is not a workdir" in missing


def test_an_exported_folder_is_one_by_its_manifest(folders, workdirs) -> None:
  assert exported.is_exported(folders["glober"]) and not exported.is_exported(workdirs["glober"])
