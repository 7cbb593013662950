"""Layers take the form of the device that is compiled for, which need not be at hand."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from tests.helpers import traced_for
from videodiff_jax.models import layers, target

ROOT = pathlib.Path(target.__file__).parents[1]


@pytest.mark.parametrize(
  ("kind", "platform", "flash"),
  [
    ("TPU v5 lite", "tpu", False),
    ("TPU7x", "tpu", False),
    ("NVIDIA H100 80GB HBM3", "gpu", True),
    ("NVIDIA A100-SXM4-40GB", "gpu", True),
    ("NVIDIA RTX A6000", "gpu", True),
    ("NVIDIA GeForce RTX 3090", "gpu", True),
    ("NVIDIA L4", "gpu", True),
    ("NVIDIA GB200", "gpu", True),
    ("NVIDIA GeForce RTX 2080 Ti", "gpu", False),
    ("NVIDIA GeForce GTX 1660", "gpu", False),
    ("NVIDIA TITAN V", "gpu", False),
    ("NVIDIA V100", "gpu", False),
    ("NVIDIA T1000", "gpu", False),
    ("Tesla V100-SXM2-16GB", "gpu", False),
    ("Quadro RTX 8000", "gpu", False),
    ("AMD Instinct MI300X", "gpu", False),
  ],
)
def test_the_open_mesh_says_what_is_compiled_for(kind: str, platform: str, flash: bool) -> None:
  seen = []

  @jax.checkpoint  # as deep as a network's layers are
  def layer(x: jax.Array) -> jax.Array:
    seen.append((target.device_kind(), target.platform(), target.flash_attention()))
    return x

  with traced_for(kind):
    jax.jit(jax.grad(layer)).trace(1.0)
  assert seen == [(kind, platform, flash)]


def test_without_a_mesh_it_is_this_machine_s_device() -> None:
  assert (target.device_kind(), target.platform()) == ("cpu", "cpu")


@pytest.mark.parametrize("kind", ["TPU v5e", "NVIDIA H100 80GB HBM3"])
def test_layers_take_the_form_of_the_device_traced_for(kind: str) -> None:
  frames, kernel = jnp.zeros((1, 3, 4, 4, 8)), jnp.zeros((3, 3, 3, 8, 8))
  norm = layers.GroupNorm(4)
  params = jax.eval_shape(norm.init, jax.random.key(0), frames)

  def forms() -> tuple[int, int, int]:
    """Convolutions of frames and of a map, and matrix products of a norm."""
    over_frames = str(jax.make_jaxpr(layers.conv_frames)(frames, kernel))
    over_map = str(jax.make_jaxpr(layers.conv3x3)(frames[0], kernel[0]))
    normed = str(jax.make_jaxpr(norm.apply)(params, frames))
    convolution = "conv_general_dilated["
    return over_frames.count(convolution), over_map.count(convolution), normed.count("dot_general[")

  with traced_for(kind):
    assert forms() == (1, 1, 0)
  assert forms() == (0, 0, 2)


def test_nothing_that_is_traced_asks_for_the_default_backend() -> None:
  asking = [
    path.relative_to(ROOT).as_posix()
    for folder in ("models", "diffusion", "glober", "lgcvd", "training")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "target.py" and "jax.default_backend(" in path.read_text()
  ]
  assert asking == []
