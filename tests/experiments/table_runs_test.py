"""Every table, filled to its last cell by `:smoke` networks and miniatures of the data sets."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from data import prepare
from experiments.setup import checks, systems
from experiments.tables import score_table, speed_table
from experiments.tables.papers import TABLES
from tests.data import published
from tests.helpers import filled_state
from tests.weights import require
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import frame_frechet
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import Checkpoints
from videodiff_jax.training.workdir import write_config

WRITE = {
  "sky_timelapse": lambda source: published.write_sky(source, frames=130),
  "taichi_hd": lambda source: published.write_taichi(source, frames=18),
  "ucf101": lambda source: published.write_ucf101(source, frames=130),
  "bair": published.write_bair,
  "cityscapes": published.write_cities,
}


class Runs:
  """Workdirs of ':smoke' configurations, each made once and shared by the tables.

  Their weights are drawn: published_sets_test.py trains on the same data sets, and training every
  row's networks here would be compiling for half an hour.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._made: dict[str, pathlib.Path] = {}

  def __call__(self, name: str) -> pathlib.Path:
    # A learned class table for CLIP, whose weights no package brings.
    config = score_table.load(name.replace("class_names", "cond"), smoke=True)
    key = str(sorted(score_table.identity(config).items()))
    if key in self._made:
      return self._made[key]
    store = self._store(config.data.name, config.data.image_size)
    config.data.dir = str(store)
    if config.system == "glober":
      config.data.num_classes = len(FrameStore.open(store, "train").classes)
    workdir = self._folder / f"run_{len(self._made)}"
    write_config(workdir, config)
    for stage in config.stages:
      checkpoints = Checkpoints(workdir / stage / "checkpoints")
      checkpoints.save(1, filled_state(systems.of(config).stages.make_stage(config, stage)), {})
      checkpoints.wait()
      checkpoints.close()
    self._made[key] = workdir
    return workdir

  def _store(self, dataset: str, size: int) -> pathlib.Path:
    store = self._folder / dataset
    if not store.is_dir():
      options: dict[str, Any] = {"num_videos": 20}
      if dataset not in prepare.EMBEDDED:
        options = {"source": str(self._folder / f"{dataset}_source")}
        WRITE[dataset](pathlib.Path(options["source"]))
      with checks.as_user_error():
        prepare.ensure(dataset, store, size=size, **options)
    return store


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
  """What is drawn and scored is compiled for one device: eight take far longer to compile for."""
  make_mesh = partitioning.make_mesh
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(partitioning, "make_mesh", lambda *_, **__: make_mesh(devices=jax.devices()[:1]))
    yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
  return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_runs_to_its_end(name: str, runs: Runs) -> None:
  require(i3d_weights.WEIGHTS)
  require(frame_frechet.WEIGHTS)
  configs = {measure.config for row in TABLES[name].rows for measure in row.ours}
  workdirs = list(dict.fromkeys(runs(config) for config in sorted(configs)))
  table = score_table.run(f"{name}:smoke", workdirs)
  print(table)
  assert not re.search(r"(  |: )not run", table) and "[" in table
  assert score_table.run(f"{name}:smoke", workdirs) == table  # nothing is drawn again


@pytest.mark.slow
def test_time_and_memory_are_measured() -> None:
  table = speed_table.show("glober_2", score_table.load("glober_ucf101:smoke"))
  print(table)
  assert len(re.findall(r"\d\.\d\ds/\d+\.\dG", table)) == 4
