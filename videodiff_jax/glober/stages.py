"""GLOBER's training stages: kl_vae, autoencoder, generator."""

from collections.abc import Callable
from typing import Any

import ml_collections

from videodiff_jax.glober import pretrained_init
from videodiff_jax.glober.autoencoder_stage import autoencoder_stage
from videodiff_jax.glober.generator_stage import generator_stage
from videodiff_jax.glober.kl_vae_stage import kl_vae_stage
from videodiff_jax.glober.networks import Networks, build
from videodiff_jax.training import warm_start
from videodiff_jax.training.stage import Stage

_MAKERS: dict[str, Callable[[ml_collections.ConfigDict, Networks], Stage]] = {
  "kl_vae": kl_vae_stage,
  "autoencoder": autoencoder_stage,
  "generator": generator_stage,
}
NAMES = tuple(_MAKERS)


def make_stage(config: ml_collections.ConfigDict, name: str) -> Stage:
  """Builds the stage of a name in `NAMES`; it begins with `config.init`'s weights, if given."""
  networks = build(config)
  if name == "kl_vae" and pretrained_init.path_of(config, name):
    return pretrained_init.given_kl_vae_stage(config, networks)
  stage = pretrained_init.with_pretrained(config, networks, _MAKERS[name](config, networks))
  return warm_start.with_run(config, stage)


def frozen_networks(name: str, ema: dict[str, dict[str, Any]]) -> dict[str, Any]:
  """Returns a stage's `frozen` argument from {'ema_params', 'statistics'} of earlier stages.

  Where text is encoded, `ema['text']['null']` holds the empty prompt's tokens (l, d).
  """
  frozen = {}
  if name != "kl_vae":
    frozen["kl_vae"] = ema["kl_vae"]["ema_params"]
    if "text" in ema:
      frozen["null_text"] = ema["text"]["null"]
  if name == "generator":
    frozen["autoencoder"] = ema["autoencoder"]["ema_params"]
    frozen["latent_statistics"] = ema["autoencoder"]["statistics"]["latents"]
  return frozen


def sampling_params(ema: dict[str, dict[str, Any]]) -> dict[str, Any]:
  """Returns the `params` of a `drawing.Drawing` from {'ema_params', 'statistics'} of all stages."""
  return frozen_networks("generator", ema) | {
    "generator": ema["generator"]["ema_params"],
    "feature_statistics": ema["generator"]["statistics"]["global_features"],
  }
