"""Every table, filled to its last cell by `:smoke` runs of miniatures of the papers' data sets."""

import pathlib
import re

import pytest

from data import prepare
from experiments import benchmark_table, checks, score_table, train
from experiments.tables import TABLES
from tests.data import published
from tests.experiments.published_sets_test import write_bair, write_cities
from tests.weights import require
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.pretrained import i3d as i3d_weights

WRITE = {
  "sky_timelapse": lambda source: published.write_sky(source, frames=130),
  "taichi_hd": lambda source: published.write_taichi(source, frames=18),
  "ucf101": lambda source: published.write_ucf101(source, frames=130),
  "bair": write_bair,
  "cityscapes": write_cities,
}


class Runs:
  """Trains what is asked for, once."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._trained: dict[str, pathlib.Path] = {}

  def __call__(self, name: str) -> pathlib.Path:
    config = score_table.load(name.replace("class_names", "cond"), smoke=True)
    key = str(sorted(score_table.identity(config).items()))
    if key in self._trained:
      return self._trained[key]
    store = self._store(config.data.name, config.data.image_size)
    config.data.dir = str(store)
    if config.system == "glober":
      config.data.num_classes = len(FrameStore.open(store, "train").classes)
    for stage in config.stages:
      config.train[stage].update(steps=1, checkpoint_every=1, preview_every=1)
    workdir = self._folder / f"run_{len(self._trained)}"
    assert train.train(config, workdir, None)
    self._trained[key] = workdir
    return workdir

  def _store(self, dataset: str, size: int) -> pathlib.Path:
    store = self._folder / dataset
    if not store.is_dir():
      WRITE[dataset](self._folder / f"{dataset}_source")
      with checks.told():
        prepare.ensure(dataset, store, source=str(self._folder / f"{dataset}_source"), size=size)
    return store


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
  return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_runs_to_its_end(name: str, runs: Runs) -> None:
  require(i3d_weights.WEIGHTS)
  configs = {measure.config for row in TABLES[name].rows for measure in row.ours}
  workdirs = list(dict.fromkeys(runs(config) for config in sorted(configs)))
  table = score_table.run(f"{name}:smoke", workdirs)
  print(table)
  assert "not run" not in table and "[" in table
  assert score_table.run(f"{name}:smoke", workdirs) == table  # nothing is drawn again


@pytest.mark.slow
def test_time_and_memory_are_measured() -> None:
  table = benchmark_table.show("glober_2", score_table.load("glober_ucf101:smoke"))
  print(table)
  assert len(re.findall(r"\d\.\d\ds/\d+\.\dG", table)) == 3
