"""The four conditions: what their values are, and what networks are given for them."""

from typing import Any

import numpy as np
import pytest

from tests.glober import tiny
from videodiff_jax.glober.conditions import (
  Condition,
  Label,
  LearnedPrompt,
  NoCondition,
  Text,
  of_config,
  requested,
)

WIDTH = 8
TEXTS = np.arange(2 * 5 * WIDTH, dtype=np.float32).reshape(2, 5, WIDTH)
BATCH = {"label": np.array([1, 0], np.int32), "text": TEXTS}
GIVEN = {"null_text": -np.ones((5, WIDTH), np.float32), "default_text": TEXTS[0]}
TABLE = np.arange(3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)  # of two classes and of none
PROMPT = TEXTS[1]

NOTHING = np.zeros((2, 1, WIDTH))
# Condition, what it learned, its values of BATCH, its null, and their tokens in the UNet.
CASES = [
  (NoCondition(), None, BATCH["label"], 0, NOTHING),
  (Label(2), TABLE.__getitem__, BATCH["label"], 2, TABLE[[1, 0]][:, None]),
  (LearnedPrompt(5), PROMPT, np.ones(2), 0.0, np.stack([PROMPT, PROMPT])),
  (Text(5, WIDTH), None, TEXTS, GIVEN["null_text"], TEXTS),
]


@pytest.mark.parametrize(("condition", "learned", "values", "null", "tokens"), CASES)
def test_values_and_tokens(
  condition: Condition, learned: Any, values: np.ndarray, null: Any, tokens: np.ndarray
) -> None:
  found = condition.of_batch(BATCH)
  np.testing.assert_array_equal(found, values)
  np.testing.assert_array_equal(condition.null(GIVEN), null)
  np.testing.assert_array_equal(condition.tokens(np.asarray(found), learned, WIDTH), tokens)
  example = condition.example()
  assert (example.shape[1:], example.dtype) == (found.shape[1:], found.dtype)
  inputs = condition.generator_inputs(found, WIDTH)
  assert ("labels" in inputs) == isinstance(condition, Label)
  # The DiT has tables of its own: it gets the class, and the prompt's presence, as they are.
  of_generator = NOTHING if isinstance(condition, Label) else tokens
  expected = values if isinstance(condition, LearnedPrompt) else of_generator
  np.testing.assert_array_equal(inputs["tokens"], expected)


def test_the_condition_of_a_configuration() -> None:
  config = tiny.config()
  assert of_config(config) == Label(2)
  config.condition = "none"
  assert of_config(config) == NoCondition()
  config.condition = "text"
  assert of_config(config) == LearnedPrompt(config.text.length)
  config.text.encoder = "minilm"
  assert of_config(config) == Text(config.text.length, config.model.unet.context_dim)


def test_what_a_user_asks_for() -> None:
  """Each different prompt is encoded once; without any, the training's sentence is taken."""
  calls = []

  def encode(prompts: list[str]) -> np.ndarray:
    calls.append(prompts)
    return np.stack([np.full((5, WIDTH), float(len(prompt))) for prompt in prompts])

  labels, text = np.array([1, 0, 1], np.int32), Text(5, WIDTH)
  found = requested(text, labels, ["bb", "a", "bb"], GIVEN, encode)
  assert found[:, 0, 0].tolist() == [2, 1, 2] and calls == [["a", "bb"]]
  np.testing.assert_array_equal(requested(text, labels, "a", GIVEN, encode), np.ones((3, 5, WIDTH)))
  default = requested(text, labels, None, GIVEN, encode)
  np.testing.assert_array_equal(default, TEXTS[[0, 0, 0]])
  with pytest.raises(ValueError, match="2 prompts do not fit 3 videos"):
    requested(text, labels, ["a", "b"], GIVEN, encode)
  for condition in (NoCondition(), Label(2)):
    np.testing.assert_array_equal(requested(condition, labels, None, {}, encode), labels)
  assert requested(LearnedPrompt(5), labels, None, {}, encode).tolist() == [1, 1, 1]
  with pytest.raises(ValueError, match="reads no prompts: it was trained with one learned prompt"):
    requested(LearnedPrompt(5), labels, ["a"], {}, encode)
