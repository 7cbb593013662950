"""The tiny GLOBER told by captions: its configuration, batches and weights."""

import functools

import ml_collections
import numpy as np

from tests.glober import tiny
from tests.inputs.tiny_text import tiny_encoder
from videodiff_jax.glober import stages
from videodiff_jax.training.state import TrainState

LENGTH, WIDTH = 5, 8  # of tiny_encoder's tokens


def config(encoder: str = "minilm", **loss: float) -> ml_collections.ConfigDict:
  told = tiny.config(**loss)
  told.condition = "text"
  told.text.update(source="captions", encoder=encoder, length=LENGTH)
  told.data.flip = False
  told.model.unet.context_dim = told.model.dit.context_dim = WIDTH
  return told


@functools.cache
def tokens() -> np.ndarray:
  """(9, l, d): eight captions, and last the empty prompt."""
  return tiny_encoder()([f"caption {i}"[-3:] for i in range(8)] + [""])


def batch() -> dict[str, np.ndarray]:
  return tiny.batch() | {"text": tokens()[:8]}


@functools.cache
def states() -> dict[str, TrainState]:
  return {name: tiny.filled(config(), name) for name in stages.NAMES}


def ema() -> dict:
  weights = {
    name: {"ema_params": state.params, "statistics": state.statistics}
    for name, state in states().items()
  }
  return weights | {"text": {"null": tokens()[-1]}}
