"""What a clip is conditioned on, in the one array a clip that all of GLOBER hands around.

  none    (b,) int32, ignored
  class   (b,) int32 labels; num_classes is 'no class'
  text    (b, l, d) float32 tokens of a text encoder
  prompt  (b,) float32, 1 with the one prompt whose tokens are learned, 0 without

Sec. 3.1 knows text alone: a caption, a class name, or one sentence for all videos. Without a text
encoder that sentence is learned, as in the release.
"""

from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.glober.networks import Networks


def of_batch(networks: Networks, batch: dict[str, jax.Array]) -> jax.Array:
  """The condition of a batch, which holds 'label' (b,) and, where text is encoded, 'text'."""
  if networks.condition == "text":
    return batch["text"]
  labels = batch["label"]
  return jnp.ones(labels.shape) if networks.condition == "prompt" else labels


def null(networks: Networks, given: dict[str, Any]) -> jax.Array:
  """What training drops a condition to and guidance compares with; broadcasts over clips.

  Args:
    networks: of the system.
    given: frozen networks or sampling parameters: 'null_text' is the empty prompt's tokens (l, d).
  """
  if networks.condition == "text":
    return given["null_text"]
  return jnp.zeros(()) if networks.condition == "prompt" else jnp.asarray(networks.num_classes)


def example(networks: Networks) -> jax.Array:
  """(1, ...) zeros, for making parameters."""
  if networks.condition == "text":
    return jnp.zeros((1, *networks.text_shape))
  return jnp.zeros(1, jnp.float32 if networks.condition == "prompt" else jnp.int32)
