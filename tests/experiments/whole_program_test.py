"""The whole program on several hosts: every mode by the real command, against one process.

  HOSTS_DIR=FOLDER python -m pytest -n 0 -s -m slow tests/experiments/whole_program_test.py

Two and four processes of two devices on loopback train, draw, score and cache. What one process of
two devices made stays in HOSTS_DIR, so that the cases may be run in several sittings. The largest
differences go to experiments/results/several_hosts/figures.json and, as a table, to docs/pods.md.
"""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data import prepare
from tests import processes
from videodiff_jax.training.writers import format_table, read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIGURES = ROOT / "experiments" / "results" / "several_hosts" / "figures.json"
PAGE, BEGIN, END = ROOT / "docs" / "pods.md", "<!-- table -->\n", "<!-- end of table -->"
SIDE = 32
STAGES = {"glober": ("kl_vae", "autoencoder", "generator"), "lgcvd": ("lgcvd",)}
# Mode -> its flags.
MODES: dict[str, dict[str, list[str]]] = {
  "lgcvd": {
    "train": [],
    "sample": ["--num_videos=5", "--num_frames=9"],
    "predict": ["--num_videos=3", "--trajectories=2"],
    "interpolate": ["--num_videos=3", "--gap=3"],
    "evaluate": ["--config.evaluate.protocol=smoke"],
  },
  "glober": {
    "train": [],
    "cache": ["--cache=global_features"],
    "sample": ["--num_videos=5", "--seed=3"],
    "redraw": ["--num_frames=3"],
    "reconstruct": ["--num_videos=5"],
    # One frame a device in every call, so that pixels depend least on the number of devices.
    "evaluate": [
      "--config.evaluate.num_real=7",
      "--config.evaluate.num_fake=5",
      "--config.sample.frames_per_chunk=1",
    ],
  },
}
SIZES = {
  "glober": ["--config.model.dit.width=64"],
  "lgcvd": [
    "--config.data.name=moving_digits",
    "--config.model.channels=32",
    "--config.model.multipliers=(1,)",
    "--config.model.attention_rates=()",
  ],
}
# Networks of which fsdp splits some parameters in every stage.
WIDE = {
  "glober": ["--config.model.kl_vae.channels=48", "--config.model.unet.channels=32"],
  "lgcvd": [],  # they are already
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  kept = os.environ.get("HOSTS_DIR")
  return pathlib.Path(kept) if kept else tmp_path_factory.mktemp("hosts")


def arguments(system: str, mode: str, mesh: str, workdir: pathlib.Path) -> list[str]:
  found = [f"--config=configs/{system}_digits.py:smoke", f"--workdir={workdir}", f"--mode={mode}"]
  if mode in ("train", "cache"):  # caches lie beside the store
    found += [f"--config.data.dir={workdir}_store", *SIZES[system]]
    found += ["--config.mesh.fsdp=2", *WIDE[system]] if mesh == "fsdp" else []
  if mode == "train":
    found += ["--config.after=()"]
    found += [f"--config.train.{stage}.log_every=1" for stage in STAGES[system]]
  return [*found, *MODES[system][mode]]


def run(system: str, mode: str, mesh: str, workdir: pathlib.Path, count: int) -> None:
  """Runs a mode in `count` processes of two devices, all of which end well."""
  if mode in ("train", "cache"):
    store = workdir.with_name(f"{workdir.name}_store")
    prepare.ensure("moving_digits", store, size=SIDE, num_frames=20, num_videos=40)
  given = arguments(system, mode, mesh, workdir)
  ended = processes.run("experiments.main", given, count, devices=2, timeout=1500)
  for status, said in ended:
    assert status == 0, "\n\n".join(said for _, said in ended)


def alone(folder: pathlib.Path, system: str, mode: str, mesh: str) -> pathlib.Path:
  """The workdir in which one process ran a mode."""
  workdir = folder / f"{system}_{mesh}_alone"
  if not (done := workdir / f"{mode}.done").exists():
    run(system, mode, mesh, workdir, 1)
    done.touch()
  return workdir


@pytest.mark.parametrize("mesh", ["data", "fsdp"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("system", MODES)
def test_several_processes_make_what_one_makes(system, count, mesh, folder) -> None:
  several = folder / f"{system}_{mesh}_{count}"
  for path in folder.glob(f"{several.name}*"):
    shutil.rmtree(path)
  for mode in MODES[system]:
    one = alone(folder, system, mode, mesh)
    workdir = several.with_name(f"{several.name}_trained") if mode == "train" else several
    run(system, mode, mesh, workdir, count)
    if mode == "train":
      assert mesh == "data" or all(splits(workdir / stage) for stage in STAGES[system])
    found = difference(one, workdir, mode)
    if mode == "train":  # later modes draw from the weights of one process
      shutil.copytree(one, several, ignore=shutil.ignore_patterns("samples", "evaluations"))
    note(f"{system} {mode}", f"{count} x 2, {mesh}", found)
    print(f"{system} {mode}, {count} processes, {mesh}: {found[0]} levels, {found[1]:.1e}")
    # There a pixel was seen to differ by the one level, which moves scores of five clips by 4e-3.
    bound = 1e-2 if (system, mode, mesh) == ("glober", "evaluate", "fsdp") else 1e-5
    assert found[0] <= 1 and found[1] <= bound


def difference(one: pathlib.Path, several: pathlib.Path, mode: str) -> tuple[int, float]:
  """How far what a mode wrote is from what one process did.

  Returns:
    The largest difference of pixels, in levels of 255, and of all other numbers, relative to the
    larger of 1 and the number.
  """
  if mode == "train":
    return _of_training(one, several)
  if mode == "cache":
    caches = [folder.with_name(f"{folder.name}_store.cache") for folder in (one, several)]
    files = [newest(cache, "*.npy") for cache in caches]
    return 0, apart(*map(np.load, files))
  if mode == "evaluate":
    files = [newest(folder / "evaluations", "*.json") for folder in (one, several)]
    records = [json.loads(file.read_text()) for file in files]
    settings = [record["settings"] | {"code": None} for record in records]
    assert settings[0] == settings[1]
    parts = ("scores", "intervals", "deviations", "curves", "videos")
    found = [np.array([*leaves({part: one.get(part) for part in parts})]) for one in records]
    assert found[0].shape == found[1].shape and found[0].size
    return 0, apart(*found)
  files = [newest(folder / "samples", f"*_{mode}_*/samples.npz") for folder in (one, several)]
  with np.load(files[0]) as a, np.load(files[1]) as b:
    assert a.files == b.files
    names = [name for name in a.files if name != "videos" and a[name].dtype.kind in "fiu"]
    pixels = np.abs(a["videos"].astype(int) - b["videos"].astype(int)).max()
    return int(pixels), max([apart(a[name], b[name]) for name in names], default=0.0)


def _of_training(one: pathlib.Path, several: pathlib.Path) -> tuple[int, float]:
  """The same of previews, and of the losses in training and validation."""
  pixels, losses = 0, 0.0
  files = sorted(one.glob("*/metrics.jsonl"))
  assert files
  for file in files:
    rows = [read_metrics(folder / file.relative_to(one)) for folder in (one, several)]
    for name in ("loss", "validation_loss"):
      a, b = (np.array([row[name] for row in found if name in row]) for found in rows)
      losses = max(losses, apart(a, b))
  for file in sorted(one.glob("*/previews/*.png")):
    a, b = (
      np.asarray(Image.open(folder / file.relative_to(one)), int) for folder in (one, several)
    )
    pixels = max(pixels, int(np.abs(a - b).max()))
  return pixels, losses


def splits(stage: pathlib.Path) -> bool:
  """Whether the checkpoint of a stage holds an array that is split over fsdp."""
  text = newest(stage / "checkpoints", "*/rest/_sharding").read_text()
  return re.search(r"partition_spec[^]]*fsdp", text) is not None


def newest(folder: pathlib.Path, pattern: str) -> pathlib.Path:
  return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns)


def leaves(tree: object) -> list[float]:
  if isinstance(tree, dict):
    return [number for key in sorted(tree) for number in leaves(tree[key])]
  if isinstance(tree, list):
    return [number for one in tree for number in leaves(one)]
  return [] if tree is None else [float(tree)]


def apart(a: np.ndarray, b: np.ndarray) -> float:
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  assert a.shape == b.shape
  return float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1.0), initial=0.0))


def note(mode: str, case: str, found: tuple[int, float]) -> None:
  """Keeps a figure, and writes the table of all."""
  figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
  figures.setdefault(mode, {})[case] = list(found)
  FIGURES.parent.mkdir(parents=True, exist_ok=True)
  FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
  cases = [f"{count} x 2, {mesh}" for count in (2, 4) for mesh in ("data", "fsdp")]
  rows = [
    (f"{system} {mode}", *(_cell(figures.get(f"{system} {mode}", {}).get(case)) for case in cases))
    for system, modes in MODES.items()
    for mode in modes
  ]
  before, _, rest = PAGE.read_text().partition(BEGIN)
  table = format_table(rows, ("processes x devices, mesh", *cases))
  PAGE.write_text(f"{before}{BEGIN}```\n{table}\n```\n{END}{rest.partition(END)[2]}")


def _cell(found: list[float] | None) -> str:
  return "not run" if found is None else f"{found[0]:.0f} levels, {found[1]:.0e}"
