"""GLOBER's networks against arrays recorded from the authors' modules.

Every file of the golden folder is a test. What it is of says config['kind'], or else the file's
stem; its module is built from the file's `config` alone.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.golden import files, glober_names
from tests.golden.files import Arrays, apply, channels_first, channels_last, shapes_of
from videodiff_jax.models.discriminator import PairDiscriminator
from videodiff_jax.models.dit import DiT
from videodiff_jax.models.frame_control import FrameControl
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.layers import PositionEmbedding, sinusoid
from videodiff_jax.models.unet import Block, UNet
from videodiff_jax.models.video_encoder import VideoEncoder
from videodiff_jax.pretrained.names import dit, stable_diffusion

LATER = "the later public revision, wired otherwise than the paper: only March 2023 is built"
NOT_BUILT = {
  kind: LATER for kind in ("video_encoder", "control_branch", "discriminator", "autoencoder_full")
}
ELSEWHERE = ("schedules_losses", "preprocess")  # no networks: in glober_math_test.py
MODULES = ("paper_v7_encoder_control", "paper_v7_discriminator_joint")  # held to 2e-5
END_TO_END = "eps_end_to_end_from_key_latents"


class Golden(NamedTuple):
  path: pathlib.Path
  kind: str
  config: dict[str, Any]
  param: Arrays
  inputs: Arrays
  outputs: Arrays


def load(path: pathlib.Path) -> Golden:
  return Golden(path, kind_of(path), *files.read(path))


def kind_of(path: pathlib.Path) -> str:
  known = [*RUNS, *NOT_BUILT, *ELSEWHERE]
  fits = [k for k in known if path.stem == k or path.stem.startswith(f"{k}_")]
  return files.read_config(path).get("kind") or max(fits, key=len, default=path.stem)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  folder = files.folder_of(metafunc.config)
  paths = [p for p in sorted(folder.glob("glober/**/*.npz")) if kind_of(p) not in ELSEWHERE]
  if not paths:
    raise pytest.UsageError(f"{folder} holds no glober/*.npz of a network; give --golden-dir.")
  if metafunc.function is test_end_to_end:
    paths = [p for p in paths if kind_of(p) == "paper_v7_unet"]
  ids = [p.relative_to(folder).as_posix() for p in paths]
  metafunc.parametrize("path", paths, ids=ids)


def levels(value: int | list[int]) -> int | tuple[int, ...]:
  return value if isinstance(value, int) else tuple(value)


def heads(config: dict[str, Any]) -> dict[str, int | None]:
  """The release's -1 stands for: the other one counts."""
  given = {name: config.get(name, -1) for name in ("num_heads", "num_head_channels")}
  return {name: None if value == -1 else value for name, value in given.items()}


def run_kl_vae(golden: Golden) -> Arrays:
  options = golden.config["ddconfig"]
  vae = KLVAE(
    in_channels=options["in_channels"],
    channels=options["ch"],
    multipliers=tuple(options["ch_mult"]),
    blocks=options["num_res_blocks"],
    z_channels=options["z_channels"],
    embed_dim=golden.config["embed_dim"],
    attention_rates=tuple(options["resolution"] // r for r in options["attn_resolutions"]),
  )
  image, z = channels_last(golden.inputs["image"]), channels_last(golden.inputs["z"])
  scale = golden.config["scale_factor"]
  shapes = shapes_of(vae, image, jax.random.key(0))
  params = stable_diffusion.kl_vae_params(golden.param, shapes)
  posterior = apply(vae, params, image, method="encode")
  # Unlike the posterior, the moments are not clamped.
  moments = apply(vae, params, image, method=lambda m, x: m.to_moments(m.encoder(x)))
  return {
    "moments": moments,
    "mean": posterior.mean,
    "logvar": posterior.logvar,
    "std": posterior.std,
    "decoded": apply(vae, params, z, method="decode"),
    "mode_scaled": posterior.mean * scale,
    "decoded_from_scaled": apply(vae, params, z / scale, method="decode"),
  }


def build_unet(config: dict[str, Any]) -> UNet:
  return UNet(
    in_channels=config["in_channels"],
    out_channels=config["out_channels"],
    channels=config["model_channels"],
    multipliers=tuple(config["channel_mult"]),
    blocks=levels(config["num_res_blocks"]),
    attention_rates=tuple(config["attention_resolutions"]),
    depth=config.get("transformer_depth", 1),
    context_dim=config["context_dim"],
    **heads(config),
  )


def unet_and_params(golden: Golden) -> tuple[UNet, Any, tuple[np.ndarray, ...]]:
  unet, inputs = build_unet(golden.config), golden.inputs
  values = (channels_last(inputs["x"]), inputs["t"], inputs["context"])
  return unet, stable_diffusion.unet_params(golden.param, shapes_of(unet, *values)), values


def run_unet(golden: Golden) -> Arrays:
  unet, params, values = unet_and_params(golden)
  control = {
    f"down_{name.removeprefix('vc_feats_')}": channels_last(value)
    for name, value in golden.inputs.items()
    if name.startswith("vc_feats_")
  }
  time_embed = PositionEmbedding(unet.channels, 4 * unet.channels)
  return {
    "eps": apply(unet, params, *values, control),
    "eps_without_control": apply(unet, params, *values),
    "t_sinusoid": sinusoid(golden.inputs["t"], unet.channels),
    "t_emb": apply(time_embed, params["time_embed"], golden.inputs["t"]),
  }


def run_dit(golden: Golden) -> Arrays:
  config, inputs = golden.config, golden.inputs
  model = DiT(
    input_size=config["input_size"],
    in_channels=config["in_channels"],
    patch_size=config["patch_size"],
    width=config["hidden_size"],
    depth=config["depth"],
    num_heads=config["num_heads"],
    mlp_ratio=config["mlp_ratio"],
    num_classes=config.get("num_classes", 0),
    context_dim=config.get("context_dim", 0),
    learn_sigma=config["learn_sigma"],
  )
  x, t = channels_last(inputs["x"]), inputs["t"]
  labels, tokens = inputs.get("y"), inputs.get("context")
  params = dit.dit_params(golden.param, shapes_of(model, x, t, labels, tokens))
  outputs = {"eps": apply(model, params, x, t, labels, tokens)}
  if tokens is not None:
    outputs["eps_zero_context"] = apply(model, params, x, t, labels, np.zeros_like(tokens))
  return outputs


def build_encoder(golden: Golden) -> tuple[VideoEncoder, Any]:
  config = golden.config
  encoder = VideoEncoder(
    latent_size=config["image_size"],
    latent_channels=config["in_channels"],
    out_channels=config["out_channels"],
    channels=config["model_channels"],
    multipliers=tuple(config["channel_mult"]),
    blocks=levels(config["num_res_blocks"]),
    attention_rates=tuple(config["attention_resolutions"]),
    **heads(config),
  )
  shapes = shapes_of(encoder, channels_last(golden.inputs["key_latents"]))
  return encoder, glober_names.encoder_params(golden.param, shapes)


def build_control(golden: Golden) -> tuple[FrameControl, Any]:
  config = golden.config
  outline = zip(config["sdinput_block_ds"], config["sdinput_block_chans"])
  control = FrameControl(
    unet_blocks=tuple(Block(f"down_{i}", *block) for i, block in enumerate(outline)),
    feature_rate=2 ** (len(config["channel_mult"]) - 1),
    channels=config["model_channels"],
  )
  shapes = shapes_of(control, channels_last(golden.inputs["global_feat"])[:1], np.zeros(1))
  return control, glober_names.control_params(golden.param, shapes)


def maps_of_frames(golden: Golden, global_feature: np.ndarray) -> dict[str, jax.Array]:
  """Control maps of (b t) frames from (b, h, w, c) features and the file's indexes (b, t)."""
  index = golden.inputs["frame_index"]
  control, params = build_control(golden)
  return apply(control, params, np.repeat(global_feature, index.shape[1], 0), index.ravel())


def run_encoder_control(golden: Golden) -> Arrays:
  encoder, params = build_encoder(golden)
  keys, feature = golden.inputs["key_latents"], channels_last(golden.inputs["global_feat"])
  posterior = apply(encoder, params, channels_last(keys))
  maps = maps_of_frames(golden, feature)
  return {
    "mean": posterior.mean,
    "logvar": posterior.logvar,
    "kl": posterior.kl(),
    "moments": np.concatenate([posterior.mean, posterior.logvar], axis=-1),
    **{f"vc_feats_{name.removeprefix('down_')}": value for name, value in maps.items()},
  }


def run_discriminator(golden: Golden) -> Arrays:
  config, pair = golden.config, channels_last(golden.inputs["pair"])
  model = PairDiscriminator(
    image_size=config["image_size"],
    in_channels=config["in_channels"],
    channels=config["model_channels"],
    multipliers=tuple(config["channel_mult"]),
    blocks=levels(config["num_res_blocks"]),
    attention_rates=tuple(config["attention_resolutions"]),
    **heads(config),
  )
  param = dict(golden.param)
  if not config.get("temporal_embeddings", False):  # ours always adds them
    side, channels = config["image_size"], config["in_channels"]
    param["frame_embed"] = np.zeros((1, channels, 2, side, side), np.float32)
  params = glober_names.discriminator_params(param, shapes_of(model, pair))
  trunk = []

  def spy(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
    if context.module.name == "head_conv":
      trunk.append(args[0])
    return method(*args, **kwargs)

  @jax.jit
  def spied(pair: jax.Array) -> tuple[jax.Array, jax.Array]:
    with nn.intercept_methods(spy):
      return model.apply({"params": params}, pair), trunk.pop()

  logit, features = spied(pair)
  return {
    "logit": logit,
    "logit_swapped": apply(model, params, pair[:, ::-1]),
    "trunk_features": features,
  }


RUNS: dict[str, Callable[[Golden], Arrays]] = {
  "kl_vae": run_kl_vae,
  "unet": run_unet,
  "paper_v7_unet": run_unet,
  "dit_crossattn": run_dit,
  "dit_classcond": run_dit,
  "paper_v7_encoder_control": run_encoder_control,
  "paper_v7_discriminator_joint": run_discriminator,
}


def check(golden: Golden, name: str, ours: Any) -> None:
  ours = np.asarray(ours) if ours.ndim < 4 else channels_first(ours)
  atol = 2e-5 if golden.kind in MODULES else 1e-4
  truth = golden.outputs[name]
  np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=atol, err_msg=name)


@jax.default_matmul_precision("highest")
def test_module(path: pathlib.Path) -> None:
  golden = load(path)
  if golden.kind in NOT_BUILT:
    pytest.skip(f"{golden.kind}: {NOT_BUILT[golden.kind]}")
  if golden.kind not in RUNS:
    pytest.skip(f"no module of kind {golden.kind!r} is built here")
  ours = RUNS[golden.kind](golden)
  recorded = set(golden.outputs) - {END_TO_END}
  assert recorded and recorded <= set(ours), f"not compared: {sorted(recorded - set(ours))}"
  for name in recorded:
    check(golden, name, ours[name])


@jax.default_matmul_precision("highest")
def test_end_to_end(path: pathlib.Path) -> None:
  """Key latents -> mean global feature -> control maps -> noise of each frame."""
  golden = load(path)
  partner = path.with_name(path.name.replace("paper_v7_unet", "paper_v7_encoder_control"))
  if END_TO_END not in golden.outputs or not partner.exists():
    pytest.skip(f"no {END_TO_END}, or no {partner.name} beside it")
  first = load(partner)
  encoder, params = build_encoder(first)
  feature = apply(encoder, params, channels_last(first.inputs["key_latents"])).mean
  control = maps_of_frames(first, feature)
  unet, params, values = unet_and_params(golden)
  check(golden, END_TO_END, apply(unet, params, *values, control))
