"""Damaged files of every kind: told, or harmless, never read as if they were whole."""

import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from tests import damage
from tests.faults import commands, doors, kills, runs, toys
from tests.faults.ledger import Ledger
from videodiff_jax import glober, lgcvd, text_files
from videodiff_jax.glober import stages as glober_stages
from videodiff_jax.inputs import latent_cache
from videodiff_jax.inputs.frame_store import FrameStore, StoreError
from videodiff_jax.lgcvd import stages as lgcvd_stages
from videodiff_jax.training import partitioning, workdir
from videodiff_jax.training.checkpoints import CheckpointError

pytestmark = pytest.mark.faults

FLIPS = 2


@pytest.fixture
def trained(workdirs, tmp_path) -> Callable[[str], pathlib.Path]:
  """A copy of a system's undisturbed workdir."""

  def copy(system: str) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(workdirs[system], tmp_path / system))

  return copy


def campaign(
  part: str, where: pathlib.Path, name: str, read: Callable[[], Any], told: tuple[type, ...] = ()
) -> None:
  """Damages every file below a folder, and compares what is read with what the whole one holds.

  Args:
    part: of the table.
    where: the files.
    name: of them, in the table.
    read: gives arrays by name, a bool or nothing; ends as a command does, or raises one of `told`.
    told: errors that a command tells in a sentence.
  """
  ledger, whole = Ledger(), read()
  for what in damage.damages(where, FLIPS):
    case = f"{name}: {what}"
    if not ledger.left(part, [case]):
      continue
    found: list[Any] = []

    def attempt(found: list[Any] = found) -> None:
      try:
        found.append(read())
      except told as error:
        raise SystemExit(f"Error: {error}") from error

    outcome = commands.call(attempt)
    verdict = outcome.verdict
    if verdict == "accepted":
      verdict = "kept" if kills.same_arrays(whole, found[0]) else "silent"
    ledger.add(part, case, verdict, outcome.told)
  ledger.check(part, name)


STAGES = [("lgcvd", "lgcvd"), ("glober", "kl_vae")]


@pytest.mark.parametrize(("system", "name"), STAGES)
def test_checkpoints(system, name, trained) -> None:
  """As a resume reads them: the whole state, and what stands beside it."""
  run = trained(system)
  config = workdir.read_config(run)
  stages = {"glober": glober_stages, "lgcvd": lgcvd_stages}[system]

  def read() -> dict[str, np.ndarray]:
    with toys.installed():
      stage = stages.make_stage(config, name)
      meta = workdir.newest_meta(run, name)
      state = workdir.load_state(config, run, stage, partitioning.make_mesh())
    state = state.replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return found | {"meta": np.array(sorted(map(str, meta.items())))}

  checkpoints = run / name / "checkpoints" / "8"
  campaign("damage: checkpoints", checkpoints, name, read, (CheckpointError,))


def test_stores(store, tmp_path) -> None:
  copy = pathlib.Path(shutil.copytree(store, tmp_path / "store"))

  def read() -> dict[str, np.ndarray]:
    found = {}
    for split in ("train", "test"):
      opened = FrameStore.open(copy, split)
      for number, video in enumerate(opened.videos):
        found[f"{split} {number}"] = opened.read(number, np.arange(video["frames"]))
      found[f"{split} index"] = np.array([str(sorted(video.items())) for video in opened.videos])
    return found

  campaign("damage: other files", copy, "store", read, (StoreError,))


@pytest.mark.parametrize("system", runs.STAGES)
def test_exported_folders(system, trained, tmp_path) -> None:
  run = trained(system)
  exported = tmp_path / "exported"
  made = doors.draw(["--mode=export", f"--workdir={run}", f"--out={exported}"])
  assert made.verdict == "accepted", made.said
  pipelines = {"glober": glober.Pipeline, "lgcvd": lgcvd.Pipeline}

  def read() -> dict[str, np.ndarray]:
    with toys.installed():
      params = pipelines[system].from_workdir(exported).params
    return {
      jax.tree_util.keystr(path): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }

  for stage in runs.STAGES[system]:
    name = f"exported {stage}"
    campaign("damage: other files", exported / stage, name, read, (CheckpointError,))


def test_caches(cache, tmp_path) -> None:
  """As training reads them: all rows, as they are and mirrored."""
  copy = pathlib.Path(shutil.copytree(cache, tmp_path / "cache"))
  (file,) = copy.glob("*.npy")
  about = text_files.read_json(file.with_suffix(".json"))
  about.pop("crc32")

  def read() -> dict[str, np.ndarray]:
    latent_cache.check(file, about)
    count, views = np.load(file, mmap_mode="r").shape[:2]
    moments = latent_cache.Moments(about["kind"], file, np.zeros(1, int))
    return {str(flip): moments.read(0, np.arange(count), flip) for flip in range(views)}

  campaign("damage: other files", copy, "cache", read, (latent_cache.MomentsError,))


def test_workdirs(trained, store) -> None:
  """Whatever is no checkpoint: sampling goes to the door of the networks, the report is written."""
  run = trained("glober")
  ran = functools.partial(_accepted, run)
  aside = run.parent / "aside"
  for part in ("config.json", "commands.jsonl", "samples", "kl_vae/metrics.jsonl",
               "kl_vae/previews"):  # fmt: skip
    # One kind at a time: `damages` takes every file below a folder.
    place = run / part
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    place.rename(aside / place.name)
    place.symlink_to(aside / place.name)
    modes = ("sample",) if part == "config.json" else ("report",)
    campaign("damage: other files", aside, part, functools.partial(ran, modes))
    place.unlink()
    (aside / place.name).rename(place)


def _accepted(run: pathlib.Path, modes: tuple[str, ...]) -> dict[str, np.ndarray]:
  for mode in modes:
    outcome = doors.draw([f"--mode={mode}", f"--workdir={run}"])
    if outcome.verdict != "accepted":
      print(outcome.said)
      raise SystemExit(outcome.status)
  return {}
