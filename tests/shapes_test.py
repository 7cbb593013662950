"""A wrong array is told at the border of a public function, while it is traced, by its shapes.

Each case would else broadcast, be cut short by `zip` or fail somewhere inside.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.diffusion.guidance import guide
from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler, sample
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.metrics import condition_use, manifolds, prediction, resampling
from videodiff_jax.metrics.protocols import PROTOCOLS
from videodiff_jax.models.attention import attend
from videodiff_jax.models.gaussian import Gaussian
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.lgc_unet import LGCUNet
from videodiff_jax.models.text_encoder import CLIPText

PROCESS = Process(make_schedule("cosine", 10), "v_prediction")
SAMPLER = make_sampler(PROCESS, "ddpm", 2)


def init(module: Any, **options: Any) -> Callable[..., Any]:
  return lambda *inputs: module.init(jax.random.key(0), *inputs, **options)


def drawn(x_T: jax.Array, keys: jax.Array) -> jax.Array:
  return sample(lambda x, t, carry: (x, carry), PROCESS, SAMPLER, x_T, jax.random.split(keys, 3))


def guided(condition: jax.Array, null: jax.Array) -> jax.Array:
  guide(lambda x, t, condition, carry: (x, carry), condition, null, 2.0)
  return condition


def of(*shape: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)


KEY = jax.eval_shape(lambda: jax.random.key(0))


@pytest.mark.parametrize(
  ("function", "arrays", "said"),
  [
    (PROCESS.q_sample, [of(2, 4), of(3), of(2, 4)], r"\(3,\)"),
    (PROCESS.target, [of(2, 4), of(2), of(1, 4)], r"\(2, 4\).*\(1, 4\)"),
    (PROCESS.to_x0, [of(2, 4), of(2), of(2, 1)], r"\(2, 4\).*\(2, 1\)"),
    (PROCESS.loss, [of(2, 4), of(1, 4), of(2), of(2, 4)], r"\(1, 4\).*\(2, 4\)"),
    (drawn, [of(2, 4), KEY], r"shape \(3,\) but expected \(2\)"),
    (guided, [of(2, 3), of(1, 3)], r"\(2, 3\) != \(1, 3\)"),
    (
      attend,
      [of(2, 5, 1, 8), of(1, 7, 1, 8), of(1, 7, 1, 8)],
      r"\(1, 7, 1, 8\) but expected \(2, 7, 1, 8\)",
    ),
    (Gaussian.create, [of(2, 1, 1, 4), of(2, 1, 1, 1)], r"\(2, 1, 1, 1\)"),
    (init(LGCUNet()), [of(2, 8, 8, 3), of(1), of(2, 8, 8, 2)], r"shape \(1,\) but expected \(2\)"),
    (
      init(KLVAE(), method="encode"),
      [of(2, 8, 8, 3, dtype=np.uint8)],
      "type uint8 but expected <class 'float'>",
    ),
    (init(CLIPText()), [of(2, 5)], "type float32 but expected <class 'int'>"),
  ],
)
def test_while_traced(function: Callable[..., Any], arrays: list[Any], said: str) -> None:
  with pytest.raises(AssertionError, match=said):
    jax.eval_shape(function, *arrays)


VIDEOS = np.zeros((2, 1, 4, 16, 16, 1), np.uint8)


@pytest.mark.parametrize(
  "call",
  [
    lambda: prediction.frame_scores(VIDEOS, VIDEOS[:1, 0], PROTOCOLS["smoke"]),
    lambda: prediction.frame_scores(VIDEOS / 255, VIDEOS[:, 0], PROTOCOLS["smoke"]),
    lambda: prediction.square_difference(VIDEOS[:, 0], VIDEOS[:, 0, :1]),
    lambda: prediction.fvd(np.zeros((3, 4)), np.zeros((3, 4)), PROTOCOLS["smoke"]),
    lambda: manifolds.precision(np.zeros((5, 4)), np.zeros((5, 3))),
    lambda: resampling.of_means({"a": np.zeros(3), "b": np.zeros(4)}, 0),
    lambda: condition_use.compare(2 * [jnp.zeros((2, 4))], 2 * [jnp.zeros((2, 4))]),
  ],
)
def test_of_metrics(call: Callable[[], Any]) -> None:
  with pytest.raises(AssertionError, match=r"\[Chex\]"):
    call()
