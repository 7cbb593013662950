"""Weights in bfloat16: half the memory, the same samples to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import glober_sky
from tests.glober import tiny
from videodiff_jax.glober import precision, stages
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.training import partitioning

pytestmark = pytest.mark.heavy


def test_rounded_weights_draw_the_same_bits() -> None:
  config = tiny.config()
  config.precision = "bfloat16"
  config.model.dit.scan_blocks = True  # as the paper's configurations: parameters are stacked
  ema = {}
  for name in stages.NAMES:
    state = tiny.filled(config, name)
    ema[name] = {"ema_params": state.params, "statistics": state.statistics}
  held = {
    name: {
      **of_stage,
      "ema_params": precision.rounded(
        stages.make_stage(config, name), of_stage["ema_params"], config.precision
      ),
    }
    for name, of_stage in ema.items()
  }
  kinds = {leaf.dtype.name for leaf in jax.tree.leaves(held)}
  assert kinds == {"bfloat16", "float32"}
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  before, after = (Pipeline(config, stages.sampling_params(x), mesh) for x in (ema, held))
  clips, labels = tiny.clips(1), np.array([1])
  for draw in (
    lambda pipe: pipe.generate(1, frame_times=[0.0, 0.5], labels=labels).videos,
    lambda pipe: pipe.reconstruct(clips, frame_times=[0.0, 0.5], labels=labels).videos,
    lambda pipe: pipe.reconstruct_frames(clips),
  ):
    np.testing.assert_array_equal(draw(after), draw(before))


def test_what_computes_in_float32_stays_so() -> None:
  """At the paper's size nearly all numbers are rounded; norms, codes and last layers are not."""
  config = glober_sky.get_config()
  leaves = []
  for name in stages.NAMES:
    stage = stages.make_stage(config, name)
    params = jax.eval_shape(stage.init, jax.random.key(0)).params
    held = precision.rounded(stage, params, config.precision)
    leaves += jax.tree_util.tree_leaves_with_path(held)
  size = {"bfloat16": 0, "float32": 0}
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path)
    exact = ("norm", "time_embed", "'embed'", "final_out", "['unet']['conv_out']", "prompt")
    assert leaf.dtype == jnp.float32 or not any(part in name for part in exact), name
    size[leaf.dtype.name] += leaf.size
  assert size["bfloat16"] > 0.9 * sum(size.values())
