"""What the experiments ask of LGC-VD: see systems.py."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from configs.lgcvd_common import base
from experiments.errors import UserError, choice, positive
from videodiff_jax.lgcvd import gaps, networks, rollout, stages
from videodiff_jax.lgcvd.conditioning import given_positions
from videodiff_jax.lgcvd.networks import Networks, build
from videodiff_jax.metrics.protocols import PROTOCOLS
from videodiff_jax.models.lgc_unet import DECODER_ATTENTION
from videodiff_jax.training import flops, warm_start

__all__ = ["Networks", "base", "build", "stages"]

CONTENTS: dict[str, tuple[str, dict[str, int]]] = {"lgcvd": ("clip", {})}


# What weights of another run must be trained with, to begin with them.
_ALIKE = ("model", "fragment", "diffusion.schedule", "diffusion.process.prediction_type")


def clip_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return {"stride_multiples": networks.strides(config)}


def store_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Videos long enough to predict: GLOBER's demo has shorter ones."""
  return {"num_frames": config.data.video_frames}


def check_pretrained(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
  """Raises ValueError for a config.init.run of other networks.

  Published weights become a workdir instead, see pretrained/convert.py.
  """
  warm_start.check(config, names, stages.make_stage, _ALIKE)


def given(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Every frozen network is a stage's."""
  del config
  return {}


def check(config: ml_collections.ConfigDict) -> None:
  data, fragment, sample = config.data, config.fragment, config.sample
  choice("model.decoder_attention", config.model.decoder_attention, DECODER_ATTENTION)
  choice("sample.encoder_weights", sample.encoder_weights, rollout.ENCODER_WEIGHTS)
  choice("sample.precision", sample.precision, ("", "float32", "bfloat16"))
  for key in ("num_videos", "trajectories", "past", "future", "num_frames", "gap"):
    positive(f"sample.{key}", sample[key])
  positive("sample.videos_per_chunk", sample.videos_per_chunk)
  choice("evaluate.protocol", config.evaluate.protocol, tuple(PROTOCOLS))
  try:
    gaps.longest_gap(fragment.num_frames, networks.strides(config))
  except ValueError as error:
    raise UserError(f"config.data.stride_multiples: {error}") from error
  needed = 2 * fragment.num_frames - fragment.slots
  if data.num_frames < needed:
    raise UserError(
      f"config.data.num_frames is {data.num_frames}; two fragments of {fragment.num_frames} that "
      f"share {fragment.slots} frames take {needed}."
    )
  try:
    built = build(config)
  except ValueError as error:
    raise UserError(f"config.model and config.diffusion: {error}") from error
  try:
    networks.make_objective(config, built)
  except ValueError as error:
    raise UserError(f"config.tasks and config.objective: {error}") from error
  try:
    networks.make_rollout(config, built)
    given_positions(sample.past, 0, fragment.num_frames, fragment.slots)
  except ValueError as error:
    raise UserError(f"config.sample: {error}") from error


def countable(config: ml_collections.ConfigDict) -> None:
  """Nothing beside what every system leaves out."""
  del config


def abstract_batch(config: ml_collections.ConfigDict, name: str) -> dict[str, jax.ShapeDtypeStruct]:
  data, b = config.data, config.train[name].batch_size
  shape = (b, data.num_frames, data.image_size, data.image_size, data.channels)
  return {"frames": jax.ShapeDtypeStruct(shape, jnp.uint8)}


def network_figures(networks: Networks) -> list[tuple[str, int, int, str]]:
  model, one = networks.model, flops.one
  of = f"fragment of {networks.num_frames} frames"
  fragment, condition = one(*networks.fragment_shape), one(*networks.condition_shape)
  rows, context = [], None
  if model.encoder is not None:
    rows.append(("sequence encoder", *flops.forward(model.encoder, fragment), of))
    params = jax.eval_shape(model.encoder.init, jax.eval_shape(lambda: jax.random.key(0)), fragment)
    context = jax.eval_shape(model.encoder.apply, params, fragment)
  return [("UNet", *flops.forward(model.unet, fragment, one(), condition, context), of), *rows]
