"""The commands that the kills and the faults of the disk are tried on."""

import pathlib
import shutil

from tests.faults import commands
from tests.faults.kills import Command

STAGES = {"glober": ("kl_vae", "autoencoder", "generator"), "lgcvd": ("lgcvd",)}
CACHE = pathlib.Path("beside", "store.cache")  # below the workdir, see `caching`
NAMES = {"glober": "GLOBER", "lgcvd": "LGC-VD"}


def options(system: str, store: pathlib.Path) -> list[str]:
  """A configuration of few steps, with a checkpoint, a preview and a validation now and then."""
  chosen = [
    f"--config=configs/{system}_digits.py:smoke",
    f"--config.data.dir={store}",
    "--config.data.name=moving_digits",
    "--config.data.image_size=16",
  ]
  if system == "glober":  # the second program begins in the middle
    chosen += ["--config.loss.lambda_cra=0.1", "--config.loss.cra.start_step=3"]
  settings = {
    "steps": 8, "log_every": 1, "checkpoint_every": 2, "preview_every": 3, "validate_every": 4,
    "batch_size": 4,
  }  # fmt: skip
  for stage in STAGES[system]:
    chosen += [f"--config.train.{stage}.{key}={value}" for key, value in settings.items()]
  return chosen


def training(system: str, workdir: pathlib.Path, store: pathlib.Path) -> Command:
  """`--mode=train`, which draws samples at its end."""
  return Command("experiments.main", (*options(system, store), f"--workdir={workdir}"), workdir)


def mode(name: str, workdir: pathlib.Path, *flags: str) -> Command:
  return Command("experiments.main", (f"--mode={name}", f"--workdir={workdir}", *flags), workdir)


def caching(workdir: pathlib.Path, store: pathlib.Path) -> Command:
  """`--mode=cache` of a workdir that is trained, of a copy of the store beside which CACHE lies."""
  copy = workdir / CACHE.with_name("store")
  shutil.copytree(store, copy)
  flags = ("--mode=cache", "--cache=global_features", f"--workdir={workdir}")
  return Command("experiments.main", (*options("glober", copy), *flags), workdir)


def preparation(store: pathlib.Path, videos: int = 40) -> Command:
  argv = ("--dataset=moving_digits", f"--out={store}", "--size=16", "--num_frames=20",
          f"--num_videos={videos}", "--workers=1")  # fmt: skip
  return Command("data.prepare", argv, store.parent)


def undisturbed(command: Command) -> tuple[pathlib.Path, float]:
  """What a command makes that nobody kills, and how long it takes with a warm cache."""
  noted = command.folder.with_name(f"{command.folder.name}.seconds")
  if not noted.exists():
    outcome = None
    for _ in range(2):  # the first compiles
      shutil.rmtree(command.folder, ignore_errors=True)
      outcome = commands.run(command.module, command.argv, command.log, limit=1800)
      assert outcome.verdict == "accepted", outcome.said
    noted.write_text(str(outcome.seconds))
  return command.folder, float(noted.read_text())


def trained(system: str, folder: pathlib.Path, store: pathlib.Path) -> tuple[pathlib.Path, float]:
  """`undisturbed` of a system's training, which is made once in a folder."""
  return undisturbed(training(system, folder / f"undisturbed_{system}", store))
