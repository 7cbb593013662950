"""Initialises stages with the pretrained weights of `config.init`.

The KL-VAE is used as it is, and its stage trains nothing. Training of the autoencoder and of the
generator begins with the given UNet (Sec. 3.1) and DiT. Their layers that depend on the latents'
channels, the patch size or the condition are reinitialised where they do not fit.
"""

import dataclasses
import functools
import operator
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from flax import traverse_util

from videodiff_jax import copies, typed
from videodiff_jax.choices import summarise
from videodiff_jax.glober.networks import Networks
from videodiff_jax.pretrained import architectures, sources
from videodiff_jax.pretrained.names import dit
from videodiff_jax.training.stage import Batch, Stage
from videodiff_jax.training.state import TrainState

# Network of config.init -> its stage, and its place in that stage's parameters.
_PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
  "kl_vae": ("kl_vae", ()),
  "unet": ("autoencoder", ("unet",)),
  "generator": ("generator", ()),
}


def path_of(config: ml_collections.ConfigDict, name: str) -> str:
  """Returns config.init.`name`; '' where no weights are given."""
  return config.get("init", {}).get(name, "")  # runs of earlier versions have no such group


def modules(networks: Networks) -> dict[str, nn.Module]:
  """Returns the networks that weights can be given for."""
  unet = networks.autoencoder.unet
  return {"kl_vae": networks.kl_vae, "unet": unet, "generator": networks.generator}


def check(config: ml_collections.ConfigDict, networks: Networks, stages: Collection[str]) -> None:
  """Checks that the weights given for these stages fit their networks, by names and shapes only.

  Raises:
    FileNotFoundError: a path is wrong.
    ImportError: a package that reads the file is missing.
    ValueError: the file or its networks are wrong, or the latents' scale is another KL-VAE's.
  """
  if "autoencoder" in stages:
    _check_latent_scale(config, networks)
  for name, (stage, _) in _PLACES.items():
    if path_of(config, name) and stage in stages:
      try:
        _fit(config, networks, name)
      except FileNotFoundError as error:
        raise FileNotFoundError(f"config.init.{name}: {error}") from error
      except ValueError as error:
        raise ValueError(
          f"config.init.{name}: {error} Names that config.init.allow lists may be missing or left."
        ) from error


def _check_latent_scale(config: ml_collections.ConfigDict, networks: Networks) -> None:
  scale = config.model.latent_scale
  if scale and not path_of(config, "kl_vae") and not path_of(config, "run"):
    raise ValueError(
      f"config.model.latent_scale is {scale}, but the latents of a KL-VAE that the run trains "
      "itself have a scale of their own: set the key to 0 (in config.json, where the workdir has "
      "one), and it is measured, or give the KL-VAE that it belongs to as config.init.kl_vae."
    )
  of_sd = scale == architectures.SD_LATENT_SCALE
  modules = (networks.kl_vae, architectures.PUBLISHED["sd-v1"]["kl_vae"])
  if of_sd and operator.ne(*map(architectures.shapes, modules)):
    raise ValueError(
      f"config.model.latent_scale is {scale}, that of Stable Diffusion's KL-VAE, but "
      "config.model.kl_vae describes another: set the key to 0, and the scale is measured."
    )


def with_pretrained(config: ml_collections.ConfigDict, networks: Networks, stage: Stage) -> Stage:
  """Makes a stage begin with the weights that `config.init` gives for it."""
  for name, (stage_name, at) in _PLACES.items():
    if stage_name == stage.name and path_of(config, name):
      pretrained = functools.partial(_put, config, networks, name, at)
      return dataclasses.replace(stage, pretrained=pretrained)
  return stage


def given_kl_vae_stage(config: ml_collections.ConfigDict, networks: Networks) -> Stage:
  """Builds the kl_vae stage for given weights, which trains and draws nothing."""

  def init(key: jax.Array) -> TrainState:
    empty = {
      path: jnp.zeros(shape) for path, shape in architectures.shapes(networks.kl_vae).items()
    }
    ema_params = {"params": traverse_util.unflatten_dict(empty, sep=".")}
    return TrainState(jnp.zeros((), jnp.int32), {}, ema_params, (), key, {})

  def preview(train: TrainState, frozen: Any, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    raise NotImplementedError("A stage that trains nothing draws no previews.")

  return with_pretrained(config, networks, Stage("kl_vae", init, (), preview))


def _fit(config: ml_collections.ConfigDict, networks: Networks, name: str) -> sources.Fit:
  allow = [pattern for pattern in config.init.allow.split(",") if pattern]
  wanted = architectures.shapes(modules(networks)[name])
  path = copies.local(typed.path(path_of(config, name), f"config.init.{name}"))
  fit = sources.fit(sources.find(name, path), wanted, allow, adapt=True)
  if name == "kl_vae" and (missing := sorted(wanted.keys() - fit.placed.keys())):
    raise ValueError(f"{path} lacks {summarise(missing)}, which nothing trains.")
  return fit


def _put(
  config: ml_collections.ConfigDict,
  networks: Networks,
  name: str,
  at: tuple[str, ...],
  state: TrainState,
) -> TrainState:
  """Puts the given weights into both copies of a new state, whose arrays are consumed.

  Tensors are read one at a time, and each replaces the initial array on the same devices.
  """
  fit = _fit(config, networks, name)
  tensors = {path: one.tensor for path, one in fit.placed.items()}
  if name == "generator" and networks.generator.scan_blocks:
    tensors = dit.stack_blocks(tensors)
  copies = [traverse_util.flatten_dict(tree) for tree in (state.params, state.ema_params)]
  for path, tensor in tensors.items():
    key = ("params", *at, *path.split("."))
    places = [(copy, copy[key].sharding) for copy in copies if key in copy]
    for copy, _ in places:
      copy[key].delete()
    array = np.asarray(tensor.load(), np.float32)
    for copy, sharding in places:
      copy[key] = jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
  _tell(config, name, fit)
  if name == "kl_vae":
    scale = config.model.latent_scale or "1 / std, measured (Stable Diffusion's own is 0.18215)"
    logging.info("config.model.latent_scale: latents are multiplied by %s", scale)
  params, ema_params = (traverse_util.unflatten_dict(copy) for copy in copies)
  return dataclasses.replace(state, params=params, ema_params=ema_params)


def _tell(config: ml_collections.ConfigDict, name: str, fit: sources.Fit) -> None:
  others = {"reinitialised": fit.reinitialised, "allowed": fit.allowed}
  logging.info(
    "config.init.%s: %d tensors, %s parameters of %s%s",
    name, len(fit.placed), f"{fit.size:,}", path_of(config, name),
    "".join(f"\n  {what}: {summarise(names)}" for what, names in others.items() if names),
  )  # fmt: skip
