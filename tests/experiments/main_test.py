"""Mistakes on the command line: one clear sentence each, and nothing compiled."""

import contextlib
import errno
import logging as python_logging
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import pytest
from absl import logging
from absl.testing import flagsaver

from experiments import main
from experiments.commands import mode_table, modes
from experiments.sampling import glober_samples
from experiments.train import train
from tests.inputs.make import make_store, noise_video
from videodiff_jax import command as door
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.loop import NonFiniteLossError

ROOT = pathlib.Path(main.__file__).resolve().parents[1]
DIGITS = "--config=configs/glober_digits.py:smoke"


@pytest.fixture
def command(monkeypatch, capsys, caplog):
  """Runs a command in this process and returns (exit status, what it wrote to stderr)."""
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(main, "_quiet_libraries", lambda: None)
  monkeypatch.setattr(main, "enable_compilation_cache", lambda: None)

  def run(*options: str) -> tuple[int, str]:
    argv = ["experiments.main", *options]
    monkeypatch.setattr(sys, "argv", argv)  # where ml_collections reads --config.a.b=value
    with flagsaver.flagsaver(), jax.log_compiles(), pytest.raises(SystemExit) as exit_:
      main.main(main.parse_flags(argv))
    compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert not compiled
    return exit_.value.code, capsys.readouterr().err

  return run


def test_the_fixture_would_see_a_compilation(caplog) -> None:
  with jax.log_compiles():
    jax.jit(lambda x: x + 7)(2.0)
  assert any("Compiling" in record.getMessage() for record in caplog.records)


ALL_FILES = "configs/glober_digits.py, configs/glober_sky.py"


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    (["--config=configs/nope.py"], ["'configs/nope.py'", ALL_FILES]),
    (["--config", "configs/nope.py"], ["'configs/nope.py'", ALL_FILES]),
    (["--config=configs/nope.py", "--config.data.dir=x"], ["'configs/nope.py'", ALL_FILES]),
    (["--config=configs/common.py"], ["'configs/common.py'", ALL_FILES]),
    (["--config.data.dir=x"], ["--config.data.dir needs --config=FILE", ALL_FILES]),
    (
      ["--config=configs/glober_digits.py:128"],
      ["variant '128'", "64, cra, frames64, long, smoke"],
    ),
    ([DIGITS, "--config.data.dirr=x"], ["config.data.dirr", "dir, flip, frame_time"]),
    ([DIGITS, "--config.dat.dir=x"], ["config.dat", "condition, data, diffusion"]),
    ([DIGITS, "--config.seed.first=1"], ["config.seed is a value", "--config.seed=VALUE"]),
    ([DIGITS, "--config.seed=one"], ["--config.seed=one", "invalid literal for int()"]),
    ([DIGITS, "--mode=learn"], ["--mode=learn", "Choose one of: train, sample, redraw"]),
    ([DIGITS, "--wordir=x"], ["'wordir'", "workdir"]),
    ([DIGITS, "sample"], ["Unexpected 'sample'", "begin with --"]),
    ([DIGITS, "--steps=0"], ["--steps=0", "range [1, "]),
  ],
)
def test_flags(command, options: list[str], expected: list[str]) -> None:
  status, said = command(*options)
  assert status == 2
  _check_message(said, expected)


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ([], ["--mode=train needs --config", ALL_FILES]),
    (["--mode=plan"], ["--mode=plan needs --config", ALL_FILES]),
    ([DIGITS], ["--mode=train needs --workdir"]),
    (["--mode=benchmark", "--inputs"], ["--inputs needs --config"]),
    (["--mode=sample"], ["--mode=sample needs --workdir"]),
    (["--mode=sample", "--workdir=/no/such/folder"], ["/no/such/folder is not a workdir"]),
    ([DIGITS, "--workdir=x", "--stage=dit"], ["--stage 'dit'", "kl_vae, autoencoder, generator"]),
    (
      [DIGITS, "--workdir=x", "--config.train.generator.batch_size=12"],
      ["config.train.generator.batch_size (12)", "8 device(s)", "for example 16"],
    ),
    ([DIGITS, "--workdir=x", "--config.mesh.fsdp=3"], ["fsdp=3", "8 device(s)", "4 x 2"]),
    (
      [DIGITS, "--config.data.num_keyframes=17", "--mode=plan"],
      ["config.data.num_keyframes is 17", "between 1 and the 16 frames"],
    ),
    ([DIGITS, "--config.model.unet.num_heads=3", "--mode=plan"], ["num_heads=3", "divides"]),
    (["--config=configs/glober_sky.py:smoke", "--workdir=x"], ["config.data.dir is empty"]),
    (
      ["--config=configs/glober_sky.py:smoke", "--workdir=x", "--config.data.dir=configs"],
      ["configs holds no frame store", "python -m data.prepare"],
    ),
  ],
)
def test_values(command, options: list[str], expected: list[str]) -> None:
  status, said = command(*options)
  assert status == 1
  _check_message(said, expected)
  assert not (ROOT / "x").exists()


@pytest.mark.parametrize(
  ("error", "said"),
  [
    (ImportError("No module named 'diffusers'"), "(ImportError: No module named 'diffusers')"),
    (
      RuntimeError("Failed to import models.unets because\nof torchvision::nms"),
      "(RuntimeError: Failed to import models.unets because of torchvision::nms)",
    ),
  ],
)
def test_benchmark_where_diffusers_cannot_be_imported(command, monkeypatch, error, said) -> None:
  class Broken(types.ModuleType):
    def __getattr__(self, name: str) -> None:
      raise error  # as its modules that load on first use do

  monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
  monkeypatch.setitem(sys.modules, "diffusers", Broken("diffusers"))
  status, message = command("--mode=benchmark")
  assert status == 1
  _check_message(message, ["--mode=benchmark", said, 'pip install -e ".[parity]"'])


@pytest.mark.parametrize(
  ("system", "flag"),
  [
    ("lgcvd", "--guidance_scale=2"),
    ("lgcvd", "--frame_times=0,1"),
    ("lgcvd", "--cache=latents"),
    ("glober", "--trajectories=2"),
    ("glober", "--gap=3"),
  ],
)
def test_flags_of_another_system(command, monkeypatch, system: str, flag: str) -> None:
  monkeypatch.setattr(main, "saved_config", lambda *_: types.SimpleNamespace(system=system))
  mode = modes.READ_BY[flag.strip("-").split("=")[0]][0]
  status, said = command(f"--mode={mode}", "--workdir=x", flag)
  assert status == 1
  _check_message(said, [flag.split("=")[0], f"is not supported by system {system!r}"])


@pytest.mark.parametrize(
  ("environment", "count"),
  [
    ({}, 3),
    ({"JAX_NUM_CPU_DEVICES": "2"}, 2),
    ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
  ],
)
def test_devices_are_made_of_the_cpu(environment: dict[str, str], count: int) -> None:
  program = "import jax; from experiments import main; main.split_cpu(3); print(jax.device_count())"
  free = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
  said = subprocess.check_output(
    [sys.executable, "-c", program], cwd=ROOT, env=free | environment, text=True
  )
  assert said.split()[-1] == str(count)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
  """What glober_clips:smoke reads: 32 x 32 colour videos."""
  videos = {f"video {i}": noise_video(16, 32, seed=i) for i in range(12)}
  return make_store(tmp_path_factory.mktemp("clips"), videos)


def test_folder_that_is_no_workdir(command, store, tmp_path) -> None:
  (tmp_path / "notes.txt").write_text("mine")
  status, said = command(
    "--config=configs/glober_clips.py:smoke",
    f"--config.data.dir={store}",
    f"--workdir={tmp_path}",
  )
  assert status == 1
  _check_message(said, [str(tmp_path), "not empty", "config.json", "another --workdir"])
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_workdir_of_another_configuration(command, store, tmp_path) -> None:
  from configs import glober_clips

  saved = glober_clips.get_config("smoke")
  (tmp_path / "config.json").write_text(saved.to_json())
  before = (tmp_path / "config.json").read_text()
  status, said = command(
    "--config=configs/glober_clips.py:smoke", f"--config.data.dir={store}",
    f"--workdir={tmp_path}", "--config.model.unet.channels=16",
  )  # fmt: skip
  assert status == 1
  assert "config.model.unet.channels: 8 there, 16 now" in said
  assert said.startswith(f"Error: {tmp_path} holds a run of another configuration")
  assert (tmp_path / "config.json").read_text() == before


def test_store_of_another_size(command, store, tmp_path) -> None:
  status, said = command(
    "--config=configs/glober_clips.py:smoke", f"--config.data.dir={store}",
    f"--workdir={tmp_path}", "--config.data.image_size=64",
  )  # fmt: skip
  assert status == 1
  _check_message(said, ["image_size 32", "config.data.image_size is 64"])


@pytest.mark.parametrize(
  "error",
  [
    NonFiniteLossError("Loss nan at step 7 (videos of the batch: [3]). Last good checkpoint: 4."),
    CheckpointError("Stage 'generator' was trained on other frozen networks."),
  ],
)
def test_errors_of_training_are_told(command, monkeypatch, tmp_path, error) -> None:
  def stopped(*_) -> bool:
    raise error

  monkeypatch.setattr(train, "train", stopped)
  status, said = command(DIGITS, f"--workdir={tmp_path}")
  assert (status, said) == (1, f"Error: {error}\n")


@pytest.mark.parametrize(
  ("options", "finished", "drawn"),
  [([], True, ["sample"]), ([], False, []), (["--stage=kl_vae"], True, [])],
)
def test_what_follows_training(monkeypatch, tmp_path, options, finished, drawn) -> None:
  """config.after runs when all stages are finished: not after SIGTERM, not after one stage."""
  called = []
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(main, "enable_compilation_cache", lambda: None)
  monkeypatch.setattr(train, "train", lambda *_: finished)
  monkeypatch.setattr(glober_samples, "sample", lambda *_: called.append("sample"))
  argv = ["experiments.main", DIGITS, f"--workdir={tmp_path}", *options]
  monkeypatch.setattr(sys, "argv", argv)
  ended = contextlib.nullcontext() if finished else pytest.raises(door.Terminated)
  with flagsaver.flagsaver(), ended:
    main.parse_flags(argv)
    main.run()
  assert called == drawn


@pytest.mark.parametrize("chosen", [True, False])
def test_compiled_programs_are_kept(monkeypatch, tmp_path, chosen: bool) -> None:
  """In the user's cache folder, unless JAX's own variable says where."""
  settings: dict[str, object] = {}
  monkeypatch.setattr(jax.config, "update", settings.__setitem__)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  if chosen:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
  main.enable_compilation_cache()
  folder = None if chosen else str(tmp_path / "videodiff_jax" / "jax")
  assert settings.get("jax_compilation_cache_dir") == folder
  assert settings["jax_persistent_cache_min_compile_time_secs"] == 0.5


def test_who_has_no_home_compiles_anew(monkeypatch, caplog) -> None:
  """As in a container with an arbitrary uid: a warning, and the command goes on."""

  def unknown() -> pathlib.Path:
    raise RuntimeError("Could not determine home directory.")

  settings: dict[str, object] = {}
  monkeypatch.setattr(jax.config, "update", settings.__setitem__)
  monkeypatch.setattr(pathlib.Path, "home", unknown)
  for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
    monkeypatch.delenv(name, raising=False)
  main.enable_compilation_cache()
  assert not settings and "Set HOME or JAX_COMPILATION_CACHE_DIR" in caplog.text


@pytest.mark.parametrize(
  ("options", "status", "expected"),
  [
    (["--config=configs/glober_sky.py:cond"], 2, "variant 'cond'"),
    ([DIGITS, "--config.data.num_keyframes=17", "--mode=plan"], 1, "num_keyframes is 17"),
  ],
)
def test_as_a_process(options: list[str], status: int, expected: str) -> None:
  """The same from outside: the exit status, one line, no traceback."""
  run = subprocess.run(
    [sys.executable, "-m", "experiments.main", *options],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert run.returncode == status
  assert run.stdout == ""
  _check_message(run.stderr, [expected])


def _check_message(said: str, expected: list[str]) -> None:
  assert said.startswith("Error: ") and said.count("\n") == 1
  for part in expected:
    assert part in said


@pytest.mark.parametrize("mode", mode_table.MODES)
def test_help_shows_what_a_mode_takes_with_an_example(capsys, mode: str) -> None:
  with pytest.raises(SystemExit) as ended:
    main.parse_flags(["experiments.main", f"--mode={mode}", "--help"])
  assert ended.value.code == 0
  said = capsys.readouterr().out
  named = {*re.findall(r"^  --(\w+)", said, re.MULTILINE)} - {"config"}
  assert named == {name for name, readers in modes.READ_BY.items() if mode in readers} - {"config"}
  example = said.rstrip().splitlines()[-1]
  assert example.startswith(f"  python -m experiments.main --mode={mode}")
  given = {word[2:].partition("=")[0] for word in example.split() if word.startswith("--")}
  assert {name.partition(".")[0] for name in given} - {"mode", "config"} <= named


def test_help_of_no_mode_lists_them_all(capsys) -> None:
  for argument in ("--help", "-h"):
    with pytest.raises(SystemExit):
      main.parse_flags(["experiments.main", argument])
    said = capsys.readouterr().out
    assert re.findall(r"^  (\w+) ", said, re.MULTILINE) == [*mode_table.MODES]


@pytest.mark.parametrize(
  ("argument", "meant"),
  [
    ("--mode=smaple", "Did you mean 'sample'?"),
    ("--mode=evalute", "Did you mean 'evaluate'?"),
    ("--clas_label=2", "Did you mean: class_label"),
  ],
)
def test_what_is_mistyped_is_told_with_the_nearest(command, argument: str, meant: str) -> None:
  status, said = command(argument)
  assert status == 2
  _check_message(said, [meant])


@pytest.mark.parametrize(
  ("error", "level", "verbosity", "shown"),
  [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), python_logging.ERROR, 0, False),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), python_logging.ERROR, 1, True),
    (KeyError("a mistake"), python_logging.ERROR, 0, True),
    (None, python_logging.WARNING, 0, True),
    (None, python_logging.INFO, 0, False),
  ],
)
def test_what_libraries_log_of_a_fault_that_is_told_is_left_out(
  error, level, verbosity, shown
) -> None:
  """Orbax logs the traceback of each of its threads; the door says the same in one sentence."""
  caught = (type(error), error, None) if error else None
  record = python_logging.LogRecord("absl", level, "site-packages/x.py", 1, "said", (), caught)
  before = logging.get_verbosity()
  logging.set_verbosity(verbosity)
  try:
    assert main.is_shown(record) == shown
  finally:
    logging.set_verbosity(before)
