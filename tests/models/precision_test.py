"""In bfloat16: codes of time tell neighbours apart, and guidance amplifies no rounding."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import fill
from videodiff_jax.models.dit import DiT
from videodiff_jax.models.frame_control import FrameControl
from videodiff_jax.models.lgc_unet import LGCUNet
from videodiff_jax.models.unet import UNet, blocks

LOW = {"dtype": jnp.bfloat16}
UNET = UNet(channels=8, multipliers=(1,), blocks=1, attention_rates=(), context_dim=6, **LOW)
DIT = DiT(4, 3, width=16, depth=1, num_heads=2, context_dim=6, **LOW)
LGC = LGCUNet(channels=8, multipliers=(1,), blocks=1, attention_rates=(), head_channels=8, **LOW)
CONTROL = FrameControl(blocks(64, (1,), 1)[:1], 1, channels=320, **LOW)


def normal(*shape: int) -> np.ndarray:
  return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


TIMES = np.array([3.0, 700.0], np.float32)
INPUTS = {
  UNET: (normal(2, 4, 4, 4), TIMES, normal(2, 1, 6)),
  DIT: (normal(2, 4, 4, 3), TIMES, None, normal(2, 1, 6)),
  LGC: (normal(2, 4, 4, 3), TIMES, normal(2, 4, 4, 8)),
  CONTROL: (normal(2, 4, 4, 5), TIMES),
}
LAST = {UNET: "conv_out", DIT: "final_out", LGC: "conv_out"}


@functools.cache
def variables(module: nn.Module) -> Any:
  return fill(jax.eval_shape(module.init, jax.random.key(0), *INPUTS[module]), scale=0.3)


@pytest.mark.parametrize("module", INPUTS, ids=lambda module: type(module).__name__)
def test_codes_of_time_are_float32_until_they_meet_the_map(module: nn.Module) -> None:
  capture = functools.partial(module.apply, capture_intermediates=True)
  _, state = jax.eval_shape(capture, variables(module), *INPUTS[module])
  codes = {
    jax.tree_util.keystr(path): leaf.dtype
    for path, leaf in jax.tree_util.tree_leaves_with_path(state["intermediates"])
    if any(name in jax.tree_util.keystr(path) for name in ("'time_embed'", "'embed'"))
  }
  assert len(codes) >= 3 and set(codes.values()) == {jnp.dtype("float32")}, codes


def test_neighbours_of_128_frames_are_told_apart() -> None:
  """By what a residual block adds to its map: the steps from a frame to the next point one way."""
  times = np.arange(128, dtype=np.float32) / 128
  feature = np.ones((128, 1, 1, 5), np.float32)
  params = fill(jax.eval_shape(CONTROL.init, jax.random.key(0), feature, times), scale=0.05)

  def steps(module: nn.Module) -> np.ndarray:
    _, state = module.apply(params, feature, times, capture_intermediates=True)
    shift = state["intermediates"]["down_0_res"]["embed"]["__call__"][0]
    return np.diff(np.asarray(shift, np.float64), axis=0)

  low, high = steps(CONTROL), steps(CONTROL.clone(dtype=jnp.float32))
  norms = np.linalg.norm(low, axis=-1) * np.linalg.norm(high, axis=-1)
  assert ((low * high).sum(-1) / norms).min() > 0.99


@pytest.mark.parametrize("module", LAST, ids=lambda module: type(module).__name__)
def test_guidance_does_not_amplify_what_the_last_layer_rounds(module: nn.Module) -> None:
  """The last layer is linear in its weights, so two of them add up, but for its own rounding."""
  x, t, *rest = INPUTS[module]
  last = variables(module)["params"][LAST[module]]

  @jax.jit
  def guided(kernel: np.ndarray) -> jax.Array:
    params = dict(variables(module)["params"])
    params[LAST[module]] = {"kernel": kernel, "bias": 0 * last["bias"]}
    prediction = module.apply({"params": params}, x, t, *rest)
    conditional, unconditional = prediction
    return unconditional + 9.0 * (conditional - unconditional)

  kernel = last["kernel"]
  one, other = 0.7 * kernel, np.flip(kernel, axis=-1) / 3
  both = guided(one + other)
  assert np.abs(both - (guided(one) + guided(other))).max() < 1e-4 * np.abs(both).max()
