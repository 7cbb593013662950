"""Text as a condition: what is dropped, what is learned, what guidance compares with."""

from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from tests.glober import tiny
from tests.glober.tiny_text import LENGTH, WIDTH, batch, config, ema, states, tokens
from tests.helpers import assert_same_pixels
from tests.inputs.tiny_text import tiny_encoder
from videodiff_jax.glober import conditions, stages
from videodiff_jax.glober.networks import build
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.text import embeddings
from videodiff_jax.training import partitioning

pytestmark = pytest.mark.heavy


def test_the_empty_prompt_is_frozen_with_the_networks_above_the_vae() -> None:
  given = [name for name in stages.NAMES if "null_text" in stages.frozen_networks(name, ema())]
  assert given == ["autoencoder", "generator"]
  networks = build(config())
  assert networks.condition == conditions.Text(LENGTH, WIDTH)


@pytest.mark.parametrize("name", ["autoencoder", "generator"])
def test_every_stage_reads_captions_and_for_those_dropped_the_empty_prompt(name: str) -> None:
  stage = stages.make_stage(config(lambda_cra=0.0, drop_condition=0.5), name)
  given = stages.frozen_networks(name, ema())

  @jax.jit
  def loss(null: jax.Array, captions: jax.Array) -> jax.Array:
    step = stage.train_steps[0][1]
    told = batch() | {"text": captions}
    return step(states()[name], given | {"null_text": null}, told)[1]["loss"]

  captions, null = tokens()[:8], tokens()[-1]
  assert abs(loss(null, captions) - loss(2 * null, captions)) > 1e-6
  assert abs(loss(null, captions) - loss(null, captions[::-1])) > 1e-6


def test_one_sentence_without_an_encoder_is_learned() -> None:
  told = config(encoder="none", lambda_cra=0.0)
  networks = build(told)
  assert networks.condition == conditions.LearnedPrompt(LENGTH)
  for name in ("autoencoder", "generator"):
    assert tiny.filled(told, name).params["params"]["prompt"].shape == (LENGTH, WIDTH)
  # With the prompt its tokens are read; without, zeros are, whatever was learned.
  params = tiny.filled(told, "generator").params
  features, times = np.ones((2, *tiny.FEATURE), np.float32), np.zeros(2, np.float32)
  predict = jax.jit(
    lambda params, given: networks.generator.apply(params, features, times, tokens=given)
  )
  given = np.array([1.0, 0.0], np.float32)
  first = predict(params, given)
  other = jax.tree.map(np.array, params)
  other["params"]["prompt"] *= 3
  second = predict(other, given)
  assert np.abs(first[0] - second[0]).max() > 1e-4
  np.testing.assert_allclose(first[1], second[1], atol=1e-6)
  ones = networks.condition.of_batch({"label": np.array([3, 4])})
  np.testing.assert_array_equal(ones, [1.0, 1.0])
  assert networks.condition.null({}) == 0


def pipeline(told: ml_collections.ConfigDict) -> Pipeline:
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  return Pipeline(told, stages.sampling_params(ema()) | {"default_text": tokens()[-1]}, mesh)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
  """Guided by text and by video, each with a scale of its own."""
  told = config()
  told.sample.update(guidance_form="ddim_v2", guidance_video=3.0, guidance_text=2.0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(embeddings, "load_encoder", lambda *_: tiny_encoder())
    yield pipeline(told)


def test_clips_follow_their_prompts(pipe) -> None:
  drawn = pipe.generate(2, seed=1, prompts=["a", "b"])
  assert drawn.prompts.tolist() == ["a", "b"]
  other = pipe.generate(2, seed=1, prompts=["a", "c"])
  assert_same_pixels(drawn.videos[0], other.videos[0])
  assert np.abs(drawn.global_features[1] - other.global_features[1]).max() > 1e-3
  again = pipe.redraw(drawn.global_features, prompts=drawn.prompts, seed=1)
  assert_same_pixels(again.videos, drawn.videos)
  # The decoder reads the text, too, not the global feature alone.
  told_otherwise = pipe.redraw(drawn.global_features, prompts=["a", "c"], seed=1).videos
  assert_same_pixels(told_otherwise[0], drawn.videos[0])
  assert np.abs(told_otherwise[1].astype(int) - drawn.videos[1]).max() > 1
  told_nothing = pipe.generate(2, seed=1)
  assert told_nothing.prompts.tolist() == ["", ""]
  empty = pipe.generate(2, seed=1, prompts=[""])
  np.testing.assert_allclose(told_nothing.global_features, empty.global_features, atol=1e-5)


def test_the_scale_of_text_guides_from_no_text_and_no_video(pipe, monkeypatch) -> None:
  features = pipe.generate(1, seed=1, prompts=["a"]).global_features
  # So far from all prompts that even networks that learned nothing tell it from them.
  far = pipe.params | {"null_text": pipe.params["null_text"] + 100.0}
  told = pipe.encode_prompts(["a"])
  monkeypatch.setattr(Pipeline, "encode_prompts", lambda *_: told)

  def drawn(**settings: Any) -> np.ndarray:
    guided = Pipeline(pipe.with_settings(**settings).config, far, pipe.mesh)
    return guided.redraw(features, frame_times=[0.0], prompts="a", seed=1).videos.astype(int)

  # e_ud + s (e_c - e_ud): with the null video's scale at 0 the two forms are the same.
  alone = drawn(guidance_video=0.0, guidance_text=2.0)
  single = drawn(guidance_form="single", guidance_decoder=2.0)
  assert np.abs(alone - single).max() <= 1
  assert np.abs(alone - drawn(guidance_video=2.0, guidance_text=0.0)).max() > 1


def test_another_encoder_than_the_training_s_is_refused(pipe, monkeypatch) -> None:
  monkeypatch.setattr(embeddings, "load_encoder", lambda *_: tiny_encoder(seed=1))
  with pytest.raises(ValueError, match="trained with another text encoder"):
    pipe.with_settings().encode_prompts(["a"])


def test_a_system_without_text_refuses_prompts() -> None:
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(ValueError, match="reads no prompts: it was trained with classes"):
    Pipeline(tiny.config(), {}, mesh).generate(1, prompts=["a"])
