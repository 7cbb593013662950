"""The four conditions of clips: none, a class, one learned prompt, or text.

A system has one of the four, and each clip has a value of it. The values of b clips are one array,
which only its condition interprets:

  NoCondition    (b,) int32, ignored
  Label          (b,) int32 classes; num_classes is 'no class'
  LearnedPrompt  (b,) float32, 1 with the prompt whose tokens are learned, 0 without
  Text           (b, l, d) float32 tokens of a text encoder

In Sec. 3.1 every condition is text: a caption, a class name, or one sentence for all videos.
Without a text encoder that sentence is learned, as in the release.

Every condition has these methods:

  of_batch(batch)       reads the values of a batch, which has 'label' (b,) and, with text, 'text'.
  null(given)           returns the value that replaces others in dropout and guidance; it
                        broadcasts over clips. `given` is frozen networks or sampling parameters;
                        their 'null_text' (l, d) is the empty prompt's tokens.
  example()             returns values (1, ...) of zeros, to initialise parameters.
  learned(module, width)          makes, in a module's `setup`, what `tokens` looks up.
  tokens(values, learned, width)  turns values into the UNet's tokens (b, l, width).
  generator_inputs(values, width) turns values into the DiT's arguments beside maps and timesteps.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from videodiff_jax.models.dit import PROMPT_STD

CONDITIONS = ("none", "class", "text")  # values of config.condition


@dataclasses.dataclass(frozen=True)
class NoCondition:
  """Clips are conditioned on nothing; networks see one zero token."""

  name: ClassVar[str] = "none"
  described: ClassVar[str] = "no condition"

  def of_batch(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    return batch["label"]

  def null(self, given: Mapping[str, Any]) -> jax.Array:
    del given
    return jnp.asarray(0)

  def example(self) -> jax.Array:
    return jnp.zeros(1, jnp.int32)

  def learned(self, module: nn.Module, width: int) -> None:
    del module, width

  def tokens(self, values: jax.Array, learned: Any, width: int) -> jax.Array:
    del learned
    return jnp.zeros((len(values), 1, width))

  def generator_inputs(self, values: jax.Array, width: int) -> dict[str, Any]:
    return {"tokens": jnp.zeros((len(values), 1, width))}


@dataclasses.dataclass(frozen=True)
class Label:
  """Clips are conditioned on a class, which has a learned embedding."""

  num_classes: int
  name: ClassVar[str] = "class"
  described: ClassVar[str] = "classes"

  def of_batch(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    return batch["label"]

  def null(self, given: Mapping[str, Any]) -> jax.Array:
    del given
    return jnp.asarray(self.num_classes)

  def example(self) -> jax.Array:
    return jnp.zeros(1, jnp.int32)

  def learned(self, module: nn.Module, width: int) -> nn.Embed:
    del module  # a submodule finds its parent itself
    return nn.Embed(
      self.num_classes + 1,
      width,
      embedding_init=nn.initializers.normal(0.02),
      name="class_embedding",
    )

  def tokens(self, values: jax.Array, learned: Any, width: int) -> jax.Array:
    del width
    return learned(values)[:, None]

  def generator_inputs(self, values: jax.Array, width: int) -> dict[str, Any]:
    return {"tokens": jnp.zeros((len(values), 1, width)), "labels": values}


@dataclasses.dataclass(frozen=True)
class LearnedPrompt:
  """Clips are conditioned on one prompt, whose tokens are learned."""

  num_tokens: int
  name: ClassVar[str] = "prompt"
  described: ClassVar[str] = "one learned prompt"

  def of_batch(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.ones(batch["label"].shape)

  def null(self, given: Mapping[str, Any]) -> jax.Array:
    del given
    return jnp.zeros(())

  def example(self) -> jax.Array:
    return jnp.zeros(1)

  def learned(self, module: nn.Module, width: int) -> jax.Array:
    shape = (self.num_tokens, width)
    return module.param("prompt", nn.initializers.normal(PROMPT_STD), shape, jnp.float32)

  def tokens(self, values: jax.Array, learned: Any, width: int) -> jax.Array:
    del width
    return values[:, None, None] * learned[None]

  def generator_inputs(self, values: jax.Array, width: int) -> dict[str, Any]:
    del width
    return {"tokens": values}  # the DiT has a prompt of its own


@dataclasses.dataclass(frozen=True)
class Text:
  """Clips are conditioned on a text encoder's tokens."""

  length: int
  width: int
  name: ClassVar[str] = "text"

  def of_batch(self, batch: Mapping[str, jax.Array]) -> jax.Array:
    return batch["text"]

  def null(self, given: Mapping[str, Any]) -> jax.Array:
    return given["null_text"]

  def example(self) -> jax.Array:
    return jnp.zeros((1, self.length, self.width))

  def learned(self, module: nn.Module, width: int) -> None:
    del module, width

  def tokens(self, values: jax.Array, learned: Any, width: int) -> jax.Array:
    del learned, width
    return values

  def generator_inputs(self, values: jax.Array, width: int) -> dict[str, Any]:
    del width
    return {"tokens": values}


Condition = NoCondition | Label | LearnedPrompt | Text
Prompts = str | Sequence[str] | np.ndarray  # one for all clips, or one each


def of_config(config: ml_collections.ConfigDict) -> Condition:
  """Returns the condition of a GLOBER configuration."""
  if config.condition == "class":
    return Label(config.data.num_classes)
  if config.condition == "text":
    if config.text.encoder == "none":
      return LearnedPrompt(config.text.length)
    return Text(config.text.length, config.model.unet.context_dim)
  return NoCondition()


def requested(
  condition: Condition,
  labels: np.ndarray,
  prompts: Prompts | None,
  params: Mapping[str, Any],
  encode: Callable[[list[str]], np.ndarray],
) -> np.ndarray:
  """Returns the values, on the host, for n clips that a user asks for.

  Args:
    condition: the system's condition.
    labels: (n,) classes; num_classes is 'no class'.
    prompts: with text, one prompt for all clips or one for each. None is the training's one
      sentence, or the empty prompt; its tokens (l, d) are `params["default_text"]`.
    params: the sampling parameters.
    encode: maps m prompts to tokens (m, l, d).

  Raises:
    ValueError: the system reads no prompts, or their number does not fit.
  """
  if isinstance(condition, Text):
    if prompts is None:
      default = np.asarray(params["default_text"])
      return np.broadcast_to(default, (len(labels), *default.shape))
    given = np.atleast_1d(np.asarray(prompts, str))
    if given.shape not in ((1,), labels.shape):
      raise ValueError(
        f"{given.size} prompts do not fit {len(labels)} videos: give one for all, or one each."
      )
    unique, rows = np.unique(np.broadcast_to(given, labels.shape), return_inverse=True)
    return encode(unique.tolist())[rows]
  if prompts is not None:
    raise ValueError(f"This system reads no prompts: it was trained with {condition.described}.")
  return np.ones(len(labels), np.float32) if isinstance(condition, LearnedPrompt) else labels
