"""LGC-VD's networks against arrays recorded from the authors' modules.

What a file is of says config['kind'], or else its stem; its module is built from `config` alone.
"""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.golden import recording
from tests.golden.files import Arrays, apply, channels_last, shapes_of
from tests.golden.recording import Recording
from videodiff_jax.models.lgc_unet import (
  LGCUNet,
  SequenceEncoder,
  StackedAttention,
  StackedResBlock,
)
from videodiff_jax.pretrained.names import lgcvd


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  recording.parametrize(metafunc, *RUNS)


def unet_inputs(inputs: Arrays, feature: Any) -> tuple[Any, ...]:
  return channels_last(inputs["x"]), inputs["t"], channels_last(inputs["cond"]), feature


def run_blocks(golden: Recording) -> tuple[Arrays, float]:
  config, inputs = golden.config, golden.inputs
  x, temb = channels_last(inputs["x"]), inputs["temb"]
  feature = channels_last(inputs["cond_feature"])

  def params(prefix: str, shapes: dict) -> dict:
    chosen = {
      k.removeprefix(f"{prefix}."): v for k, v in golden.param.items() if k.startswith(prefix)
    }
    return lgcvd.block_params(chosen, shapes)

  width = config["n_head_channels"]
  residual = StackedResBlock(config["out_ch"])
  attention = StackedAttention(None if width == -1 else width)
  weights = params("resblock", shapes_of(residual, x, temb))
  y = apply(residual, weights, x, temb)
  shapes = shapes_of(attention, y)
  return {
    "resblock": y,
    "resblock_notemb": apply(residual, weights, x),
    "selfattn_of_resblock": apply(attention, params("selfattn", shapes), y),
    "crossattn_of_resblock": apply(attention, params("crossattn", shapes), y, feature),
  }, 2e-5


def our_name(theirs: str, rates: tuple[int, ...]) -> str | None:
  """The module of ours whose output the release's submodule `downs.0.3` puts out, if there is one.

  An attention that a level lacks is theirs an identity, and puts out the residual block's map.
  """
  first, *rest = theirs.split(".")
  if not rest:
    names = {"time_mlp": "time_embed", "init_conv": "conv_in", "midblock1": "middle_res_0",
             "midblock2": "middle_attention", "midblock3": "middle_res_1",
             "midblock4": "middle_cross", "finial_conv": "conv_out"}  # fmt: skip
    return names.get(first)
  way, level, index = {"downs": "down", "ups": "up"}[first], *map(int, rest)
  if index == {"down": 4, "up": 5}[way]:
    return f"{way}_{level}_conv"
  attends = index % 2 and 2**level in rates
  return f"{way}_{level}_{'attention' if attends else 'res'}_{index // 2}"


def run_unet(golden: Recording) -> tuple[Arrays, float]:
  model = LGCUNet(**recording.settings(golden.config["kwargs"]), decoder_attention="mirrored")
  values = unet_inputs(golden.inputs, channels_last(golden.inputs["cond_feature"]))
  params = lgcvd.network_params(golden.param, shapes_of(model, *values))
  y, seen = apply(model, params, *values, capture_intermediates=True, mutable=["intermediates"])
  outputs = {"y": y}
  for name in golden.outputs:
    if name.startswith("mid."):
      ours = our_name(name.removeprefix("mid."), model.attention_rates)
      captured = seen["intermediates"].get(ours)
      # The last level's conv is an identity, theirs.
      last = f"up_{len(model.multipliers) - 1}_res_2", f"down_{len(model.multipliers) - 1}_res_1"
      if captured is None:
        captured = seen["intermediates"][last[0] if ours.startswith("up") else last[1]]
      outputs[name] = captured["__call__"][0]
  return outputs, 1e-4


def run_encoder(golden: Recording) -> tuple[Arrays, float]:
  model = SequenceEncoder(**recording.settings(golden.config["kwargs"]))
  x = channels_last(golden.inputs["x"])
  params = lgcvd.network_params(golden.param, shapes_of(model, x))
  return {"y": apply(model, params, x)}, 1e-4


def run_checkpoint(golden: Recording) -> tuple[Arrays, float]:
  config, inputs = golden.config, golden.inputs
  with recording.published(golden) as file:
    checkpoint = lgcvd.read_checkpoint(file)
  assert checkpoint.step == config["step"]
  settings = recording.settings(config["unet"])
  unet: nn.Module = LGCUNet(**settings, decoder_attention="mirrored")
  encoder = SequenceEncoder(**settings)
  fragment = channels_last(inputs["last_clip"])
  feature = jax.eval_shape(encoder.init_with_output, jax.random.key(0), fragment)[0]
  shapes = {
    "unet": shapes_of(unet, *unet_inputs(inputs, np.zeros(feature.shape, np.float32))),
    "encoder": shapes_of(encoder, fragment),
  }
  raw, ema = (lgcvd.lgcvd_params(copy, shapes) for copy in (checkpoint.raw, checkpoint.ema))
  features = [apply(encoder, copy["encoder"], fragment) for copy in (raw, ema)]
  values = unet_inputs(inputs, features[0])
  return {
    "feature_raw": features[0],
    "feature_ema": features[1],
    "v_release": apply(unet, ema["unet"], *values),
    "v_raw": apply(unet, raw["unet"], *values),
  }, 1e-4


RUNS = {
  "blocks": run_blocks,
  "unet": run_unet,
  "sequence_encoder": run_encoder,
  "checkpoint": run_checkpoint,
}


@jax.default_matmul_precision("highest")
def test_module(path: pathlib.Path) -> None:
  golden = recording.load(path)
  ours, atol = RUNS[recording.kind_of(path)](golden)
  assert golden.outputs and set(golden.outputs) <= set(ours)
  for name, truth in golden.outputs.items():
    recording.close(ours[name], truth, atol, name)
