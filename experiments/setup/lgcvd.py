"""LGC-VD as a `System`: its checks, needs and figures (see systems.py)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from configs.lgcvd_common import base
from experiments.setup import range_table
from experiments.setup.errors import UserError
from experiments.setup.needs import Need, check_installed
from experiments.setup.systems import System
from videodiff_jax.inputs.clips import Content
from videodiff_jax.lgcvd import gaps, networks, stages
from videodiff_jax.lgcvd.conditioning import given_positions
from videodiff_jax.lgcvd.networks import Networks, build
from videodiff_jax.metrics import frame_frechet
from videodiff_jax.metrics.protocols import PROTOCOLS
from videodiff_jax.pretrained import i3d, lpips
from videodiff_jax.pretrained.files.restricted_pickle import WeightFile
from videodiff_jax.training import flops, warm_start

CONTENTS: dict[str, tuple[Content, dict[str, int]]] = {"lgcvd": ("clip", {})}


# Keys that another run must share with this one if its weights initialise this one.
_ALIKE = ("model", "fragment", "diffusion.schedule", "diffusion.process.prediction_type")


def clip_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return {"stride_multiples": networks.strides(config)}


def store_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Makes videos long enough to predict; those of GLOBER's demo are shorter."""
  return {"num_frames": config.data.video_frames}


def needs(config: ml_collections.ConfigDict, after: Sequence[str]) -> list[Need]:
  """Lists the clips that the modes after training take.

  Raises:
    UserError: this configuration does not support one of the modes.
  """
  sample, fragment, stride = config.sample, config.fragment, config.data.stride
  built, found = build(config), []
  for mode in after:
    what = f"config.after's {mode!r}"
    try:
      if mode in ("sample", "predict"):
        past = sample.past if mode == "predict" else 0
        networks.make_rollout(config, built).windows(past + sample.num_frames)
      if mode == "predict":
        keys = "config.sample.past or config.sample.num_frames"
        found.append(Need(what, "test", sample.past + sample.num_frames, stride, keys))
      if mode == "interpolate":
        p, q = given_around_gap(sample, fragment.slots)
        total = p + sample.gap + q
        if p and q and total > fragment.num_frames:
          gaps.plan(sample.gap, fragment.num_frames, networks.strides(config))
        else:
          given_positions(p, q, fragment.num_frames, fragment.slots, sample.gap)
        found.append(Need(what, "test", total, stride, "config.sample.gap"))
      if mode in ("evaluate", "sweep"):
        found += _of_protocol(config, what)
        check_installed(*_weights(config, mode))
    except ValueError as error:
      raise UserError(f"{what}: {error}") from error
  return found


def given_around_gap(sample: ml_collections.ConfigDict, slots: int) -> tuple[int, int]:
  """Returns the numbers of frames given before and after an interpolated gap.

  Both share the k slots; at least one of these is kept for the frames before the gap.
  """
  future = min(sample.future, slots - 1)
  return min(sample.past, slots - future), future


def _of_protocol(config: ml_collections.ConfigDict, what: str) -> list[Need]:
  protocol, key = PROTOCOLS[config.evaluate.protocol], "config.evaluate.protocol"
  scored = config.copy_and_resolve_references()
  scored.sample.update(protocol.settings())
  try:
    check(scored)
    if "interpolation" in protocol.tasks and protocol.gap + 2 > config.fragment.num_frames:
      gaps.plan(protocol.gap, config.fragment.num_frames, networks.strides(config))
  except ValueError as error:
    raise UserError(f"{key} is {protocol.name!r}: {error}") from error
  split, count = protocol.split, protocol.num_videos
  return [
    Need(what, split, 1, 1, key, count, key, videos=True),
    Need(what, split, protocol.video_frames, config.data.stride, key, count, key,
         videos=protocol.choice == "spaced"),
  ]  # fmt: skip


def _weights(config: ml_collections.ConfigDict, mode: str) -> list[WeightFile]:
  """Lists the weights that 'evaluate' or 'sweep' scores with."""
  if mode == "sweep":
    return [i3d.WEIGHTS, frame_frechet.WEIGHTS]
  protocol = PROTOCOLS[config.evaluate.protocol]
  predicts = [i3d.WEIGHTS] if "prediction" in protocol.tasks else []
  return predicts + ([lpips.WEIGHTS[protocol.lpips_net]] if protocol.lpips_required else [])


def check_pretrained(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
  """Raises ValueError if config.init.run has other networks.

  Published weights are converted into a workdir instead; see tools/convert.py.
  """
  warm_start.check(config, names, stages.make_stage, _ALIKE)


def check(config: ml_collections.ConfigDict) -> None:
  data, fragment, sample = config.data, config.fragment, config.sample
  _check_heads(config)
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


def _check_heads(config: ml_collections.ConfigDict) -> None:
  model = config.model
  last = len(model.multipliers) - 1  # the middle's attention sees maps of this level, too
  for level, multiplier in enumerate(model.multipliers):
    width = model.channels * multiplier
    attends = 2**level in model.attention_rates or level == last
    if attends and width > model.head_channels and width % model.head_channels:
      raise UserError(
        f"config.model.head_channels ({model.head_channels}) does not divide the {width} channels "
        "of a level that attends: choose one that does."
      )


def abstract_batch(config: ml_collections.ConfigDict, name: str) -> dict[str, jax.ShapeDtypeStruct]:
  data, b = config.data, config.train[name].batch_size
  shape = (b, data.num_frames, data.image_size, data.image_size, data.channels)
  return {"frames": jax.ShapeDtypeStruct(shape, jnp.uint8)}


def updates(config: ml_collections.ConfigDict) -> int:
  """Counts the optimiser steps of all stages; a two-stage iteration makes two (Sec. 3.3)."""
  steps = sum(config.train[name].steps for name in config.stages)
  return steps * networks.make_objective(config, build(config)).num_updates


def abstract_weights(config: ml_collections.ConfigDict) -> Any:
  """Returns the shapes of a `Pipeline`'s weights."""
  stage = stages.make_stage(config, *stages.NAMES)
  return jax.eval_shape(stage.init, jax.random.key(0)).params


def network_figures(networks: Networks) -> list[tuple[str, int, int, str]]:
  model, abstract_input = networks.model, flops.abstract_input
  of = f"fragment of {networks.num_frames} frames"
  fragment, condition = (
    abstract_input(*networks.fragment_shape),
    abstract_input(*networks.condition_shape),
  )
  rows, context = [], None
  if model.encoder is not None:
    rows.append(("sequence encoder", *flops.forward(model.encoder, fragment), of))
    params = jax.eval_shape(model.encoder.init, jax.eval_shape(lambda: jax.random.key(0)), fragment)
    context = jax.eval_shape(model.encoder.apply, params, fragment)
  return [
    ("UNet", *flops.forward(model.unet, fragment, abstract_input(), condition, context), of),
    *rows,
  ]


_SAMPLES = "experiments.sampling.lgcvd_samples"
SYSTEM = System(
  name="lgcvd",
  base=base,
  ranges=range_table.LGCVD,
  networks=Networks,
  build=build,
  stages=stages,
  contents=CONTENTS,
  abstract_batch=abstract_batch,
  modes={
    "sample": f"{_SAMPLES}:sample",
    "predict": f"{_SAMPLES}:predict",
    "interpolate": f"{_SAMPLES}:interpolate",
    "evaluate": "experiments.scoring.lgcvd_prediction:mode",
  },
  hooks={
    "clip_protocols": "experiments.scoring.lgcvd_generation:evaluate",
    "drift": "experiments.scoring.drift:generate_lgcvd",
    "samplers": "experiments.compiled.samplers_lgcvd",
    "sweep": "experiments.claims.sweep_sets:lgcvd_bench",
    "speed_table": "experiments.tables.speed_table:LGCVD",
    "unet_benchmark": "experiments.benchmarks.lgcvd_unet",
  },
  flags=("trajectories", "past", "future", "gap"),
  identity=(
    "data.name",
    "data.image_size",
    "fragment.num_frames",
    "fragment.slots",
    "model.sequence_encoder",
    "objective.two_stage",
    "diffusion.process.prediction_type",
  ),
  clip_settings=clip_settings,
  store_options=store_options,
  needs=needs,
  check=check,
  check_pretrained=check_pretrained,
  updates=updates,
  network_figures=network_figures,
)
