"""GLOBER as a `System`: its checks, needs and figures (see systems.py)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from configs.common import base
from experiments.setup import range_table, texts
from experiments.setup.errors import UserError
from experiments.setup.needs import Need, check_installed
from experiments.setup.systems import System
from videodiff_jax.diffusion import samplers
from videodiff_jax.glober import conditions, drawing, precision, pretrained_init, stages
from videodiff_jax.glober.networks import Networks, build
from videodiff_jax.inputs.clips import Content
from videodiff_jax.metrics import frame_frechet, i3d
from videodiff_jax.models import attention
from videodiff_jax.pretrained import i3d as i3d_weights
from videodiff_jax.pretrained import lpips
from videodiff_jax.pretrained.files import restricted_pickle
from videodiff_jax.training import flops, warm_start

CONTENTS: dict[str, tuple[Content, dict[str, int]]] = {
  # The frame auto-encoder takes one frame a video, so that more videos share a batch.
  "kl_vae": ("frames", {"num_targets": 1}),
  "autoencoder": ("pairs", {}),
  "generator": ("keys", {}),
}

# The released UNet's published FLOPs are for this many condition tokens (here there is one).
_TOKENS = 64


# Keys that another run must share with this one if its weights initialise this one.
_ALIKE = (
  "condition", "data.frame_time", "diffusion.decoder.prediction_type",
  "diffusion.generator.prediction_type", "diffusion.schedule", "model.dit", "model.frame_control",
  "model.kl_vae", "model.latent_scale", "model.unet", "model.video_encoder", "text.encoder",
)  # fmt: skip


def clip_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  data = config.data
  return {
    "num_keyframes": data.num_keyframes,
    "num_targets": data.num_targets,
    "frame_time_divisor": drawing.frame_time_divisor(config),
  }


def store_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Videos get the data set's default length (20 frames or more), or a clip's if it is longer."""
  longer = config.data.num_frames > 20
  return {"num_frames": config.data.num_frames} if longer else {}


def check(config: ml_collections.ConfigDict) -> None:
  data, loss = config.data, config.loss
  texts.check(config)
  if (
    config.condition == "none"
    and config.sample.guidance_form == "text"
    and config.sample.guidance_decoder != 1.0
  ):
    raise UserError(
      "config.sample.guidance_form = 'text' guides by the condition, but config.condition is "
      "'none'. Choose 'single', or config.sample.guidance_decoder = 1.0 (unguided)."
    )
  if config.condition == "class" and data.num_classes < 1:
    raise UserError("config.condition is 'class', but config.data.num_classes is 0.")
  for key in ("num_keyframes", "num_targets"):
    if data[key] > data.num_frames:
      raise UserError(
        f"config.data.{key} is {data[key]}; it must be between 1 and the {data.num_frames} "
        "frames of a clip (config.data.num_frames)."
      )
  if loss.lambda_cra and data.num_targets % 2:
    raise UserError(
      f"The CRA loss judges pairs of frames: config.data.num_targets ({data.num_targets}) must "
      "be even, or config.loss.lambda_cra 0."
    )
  _check_sizes(config)
  _check_heads(config)
  try:
    built = build(config)
  except ValueError as error:
    raise UserError(f"config.model and config.diffusion: {error}") from error
  processes = {"decoder": built.decoder_process, "generator": built.generator_process}
  for name, process in processes.items():
    try:
      samplers.make_sampler(process, **config.sample[name])
    except ValueError as error:
      raise UserError(f"config.sample.{name}: {error}") from error


def needs(config: ml_collections.ConfigDict, after: Sequence[str]) -> list[Need]:
  """Lists the clips that the modes after training take.

  Raises:
    UserError: this configuration does not support one of the modes.
  """
  data, counts = config.data, config.evaluate
  if "evaluate" in after:
    if data.num_frames < i3d.MIN_FRAMES:
      raise UserError(
        f"config.after has 'evaluate', whose FVD takes clips of {i3d.MIN_FRAMES} frames or more, "
        f"but config.data.num_frames is {data.num_frames}: raise it, or remove 'evaluate'."
      )
    if counts.directions and not texts.given_by_videos(config):
      raise UserError(
        "config.evaluate.directions measures whether clips move as their prompts say, but this run "
        "has no prompts: set it to False, or config.text.source to 'captions'."
      )
  # 'evaluate' and 'sweep' score with these weights.
  wanted = [i3d_weights.WEIGHTS] if {"evaluate", "sweep"} & {*after} else []
  check_installed(*wanted, *([frame_frechet.WEIGHTS] if "sweep" in after else []))
  return [
    Need(f"config.after's {mode!r}", split, data.num_frames, data.stride,
         "config.data.num_frames or config.data.stride", counts[key], f"config.evaluate.{key}")
    for mode in after if mode in ("evaluate", "sweep")
    for split, key in (("train", "num_real"), ("test", "num_fake"))
  ]  # fmt: skip


def check_pretrained(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
  """Raises an error if the stages' initial weights or those of LPIPS are missing or do not fit."""
  if "kl_vae" in names and config.loss.kl_vae.lpips:
    restricted_pickle.locate(lpips.WEIGHTS[config.loss.kl_vae.lpips_net])
  warm_start.check(config, names, stages.make_stage, _ALIKE)
  pretrained_init.check(config, build(config), names)


def _check_sizes(config: ml_collections.ConfigDict) -> None:
  model, size = config.model, config.data.image_size
  on_pixels = model.discriminator.on == "pixels"
  chains: list[tuple[str, ...]] = [("kl_vae", "video_encoder"), ("kl_vae", "unet")]
  chains.append(("discriminator",) if on_pixels else ("kl_vae", "discriminator"))
  for names in chains:
    rate = math.prod(2 ** (len(model[name].multipliers) - 1) for name in names)
    if size % rate:
      keys = " and ".join(f"config.model.{name}.multipliers" for name in names)
      raise UserError(
        f"config.data.image_size ({size}) must be a multiple of {rate}: a factor 2 for each "
        f"multiplier after the first in {keys}."
      )


def _check_heads(config: ml_collections.ConfigDict) -> None:
  model = config.model
  for name in ("unet", "video_encoder", "discriminator"):
    network = model[name]
    heads = network.get("num_heads"), network.get("num_head_channels")
    middle = len(network.multipliers) - 1 if name == "unet" else None  # it always attends
    for level, multiplier in enumerate(network.multipliers):
      if 2**level in network.attention_rates or level == middle:
        try:
          attention.count_heads(network.channels * multiplier, *heads)
        except ValueError as error:
          raise UserError(f"config.model.{name}: {error}") from error
  dit, side = model.dit, config.data.image_size
  side //= math.prod(2 ** (len(model[of].multipliers) - 1) for of in ("kl_vae", "video_encoder"))
  for key, what, size in (
    ("num_heads", "config.model.dit.width", dit.width),
    ("patch_size", "the side of a global feature", side),
  ):
    if size % dit[key]:
      raise UserError(f"config.model.dit.{key} ({dit[key]}) does not divide {what} ({size}).")
  if dit.width % 4:
    raise UserError(f"config.model.dit.width ({dit.width}) must be a multiple of 4.")


def countable(config: ml_collections.ConfigDict) -> None:
  config.model.dit.scan_blocks = True
  config.loss.kl_vae.lpips = 0.0
  for name in stages.NAMES:
    config.train[name].accumulate = 1


def abstract_batch(config: ml_collections.ConfigDict, name: str) -> dict[str, jax.ShapeDtypeStruct]:
  data, b = config.data, config.train[name].batch_size
  label = jax.ShapeDtypeStruct((b,), jnp.int32)

  def frames(count: int) -> jax.ShapeDtypeStruct:
    shape = (b, count, data.image_size, data.image_size, data.channels)
    return jax.ShapeDtypeStruct(shape, jnp.uint8)

  if name == "kl_vae":
    return {"frames": frames(1)}
  batch = {"key_frames": frames(data.num_keyframes), "label": label}
  if name == "generator" and data.cache in ("make", "required"):
    h, w, c = build(config).feature_shape
    dtype = jnp.float32 if config.precision == "float32" else jnp.float16  # as the cache is stored
    batch = {"global_features": jax.ShapeDtypeStruct((b, h, w, 2 * c), dtype), "label": label}
  if isinstance(conditions.of_config(config), conditions.Text):
    shape = (b, config.text.length, config.model.unet.context_dim)
    batch["text"] = jax.ShapeDtypeStruct(shape, jnp.float32)
  if name == "autoencoder":
    batch["target_frames"] = frames(data.num_targets)
    batch["target_times"] = jax.ShapeDtypeStruct((b, data.num_targets), jnp.float32)
  return batch


def given(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the text encoder's entry of a stage's frozen networks: the empty prompt's tokens."""
  if not isinstance(conditions.of_config(config), conditions.Text):
    return {}
  shape = (config.text.length, config.model.unet.context_dim)
  return {"text": {"null": jax.ShapeDtypeStruct(shape, jnp.float32)}}


def abstract_weights(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the shapes of a `Pipeline`'s weights, as sampling rounds them."""
  ema = {}
  for name in stages.NAMES:
    stage = stages.make_stage(config, name)
    state = jax.eval_shape(stage.init, jax.random.key(0))
    params = precision.rounded(stage, state.ema_params, config.precision)
    ema[name] = {"ema_params": params, "statistics": state.statistics}
  weights = stages.sampling_params(ema | given(config))
  if "null_text" in weights:
    weights["default_text"] = weights["null_text"]
  return weights


def network_figures(networks: Networks) -> list[tuple[str, int, int, str]]:
  auto, kl_vae, dit = networks.autoencoder, networks.kl_vae, networks.generator
  judge, latent, feature = networks.discriminator, networks.latent_shape, networks.feature_shape
  side = latent[0] * 2 ** (len(kl_vae.multipliers) - 1)
  abstract_input, forward = flops.abstract_input, flops.forward
  t, tokens = abstract_input(), abstract_input(_TOKENS, auto.unet.context_dim)
  pair = abstract_input(2, judge.image_size, judge.image_size, judge.in_channels)
  labels = jax.ShapeDtypeStruct((1,), jnp.int32) if dit.num_classes else None
  text = abstract_input() if dit.prompt_tokens else abstract_input(1, dit.context_dim)

  encoder, encoding = forward(
    kl_vae, abstract_input(side, side, kl_vae.in_channels), method="encode"
  )
  decoder, decoding = forward(kl_vae, abstract_input(*latent), method="decode")
  unet = forward(auto.unet, abstract_input(*latent), t, tokens)
  return [
    ("KL-VAE encoder", encoder + decoder, encoding, "frame"),
    ("KL-VAE decoder", encoder + decoder, decoding, "frame"),
    ("video encoder", *forward(auto.encoder, abstract_input(4, *latent)), "clip of 4 keyframes"),
    ("frame control", *forward(auto.control, abstract_input(*feature), t), "frame"),
    ("UNet", *unet, f"frame, {_TOKENS} condition tokens"),
    ("discriminator", *forward(judge, pair), "pair"),
    ("DiT", *forward(dit, abstract_input(*feature), t, labels, text), "global feature"),
  ]


_SAMPLES, _LADDER = "experiments.sampling.glober_samples", "experiments.scoring.glober_ladder"
SYSTEM = System(
  name="glober",
  base=base,
  ranges=range_table.GLOBER,
  networks=Networks,
  build=build,
  stages=stages,
  contents=CONTENTS,
  abstract_batch=abstract_batch,
  modes={
    "sample": f"{_SAMPLES}:sample",
    "redraw": f"{_SAMPLES}:redraw",
    "reconstruct": f"{_SAMPLES}:reconstruct",
    "cache": "experiments.train.make_cache:make",
    "evaluate": f"{_LADDER}:mode",
  },
  hooks={
    "clip_protocols": "experiments.scoring.glober_protocols:evaluate",
    "drift": "experiments.scoring.drift:generate_glober",
    "samplers": "experiments.compiled.samplers_glober",
    "sweep": "experiments.claims.sweep_sets:glober_bench",
    "table_identity": "experiments.tables.score_table:glober_identity",
    "speed_table": "experiments.tables.speed_table:GLOBER",
    "unet_benchmark": "experiments.benchmarks.glober_unet",
  },
  flags=("frame_times", "start", "end", "guidance_scale", "class_label", "prompts", "cache"),
  identity=(
    "data.name",
    "data.image_size",
    "data.num_frames",
    "model.video_encoder.multipliers",
    "model.video_encoder.out_channels",
  ),
  clip_settings=clip_settings,
  store_options=store_options,
  needs=needs,
  check=check,
  check_pretrained=check_pretrained,
  countable=countable,
  given=given,
  network_figures=network_figures,
)
