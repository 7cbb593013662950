"""The published networks whose weights can be read, and the shapes of a network's parameters."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.dit import DiT
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.text_encoder import CLIPText
from videodiff_jax.models.unet import UNet
from videodiff_jax.pretrained.files.state_dict import flat_shapes

# Kind of source -> its networks by the names of `sources.NETWORKS`.
PUBLISHED: dict[str, dict[str, nn.Module]] = {
  # Rombach et al. 2022: Stable Diffusion v1.1 to v1.5.
  "sd-v1": {"unet": UNet(), "kl_vae": KLVAE()},
  # Their first stage with latents whose sides are 4 times shorter and that have 3 channels.
  "kl-f4": {"kl_vae": KLVAE(multipliers=(1, 2, 4), z_channels=3, embed_dim=3)},
  # Radford et al. 2021: the text tower of ViT-L/14; a source may have any size.
  "clip": {"text_encoder": CLIPText()},
  # Peebles and Xie 2023: DiT-XL/2 on ImageNet.
  "dit": {
    "generator": DiT(input_size=32, in_channels=4, patch_size=2, num_classes=1000, learn_sigma=True)
  },
}

# 1 / std of sd-v1's latents; its authors multiply latents by it.
SD_LATENT_SCALE = 0.18215


def _kl_vae_inputs(module: KLVAE) -> tuple[Any, ...]:
  side = module.factor
  return jnp.zeros((1, side, side, module.in_channels)), jax.random.key(0)


def _unet_inputs(module: UNet) -> tuple[Any, ...]:
  side = 2 ** (len(module.multipliers) - 1)
  latents = jnp.zeros((1, side, side, module.in_channels))
  return latents, jnp.zeros(1), jnp.zeros((1, 1, module.context_dim))


def _dit_inputs(module: DiT) -> tuple[Any, ...]:
  x = jnp.zeros((1, module.input_size, module.input_size, module.in_channels))
  labels = jnp.zeros(1, jnp.int32) if module.num_classes else None
  tokens = jnp.zeros((1, 1, module.context_dim)) if module.context_dim else None
  if module.prompt_tokens:
    tokens = jnp.zeros(1)
  return x, jnp.zeros(1), labels, tokens


_INPUTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
  KLVAE: _kl_vae_inputs,
  UNet: _unet_inputs,
  DiT: _dit_inputs,
  CLIPText: lambda module: (jnp.zeros((1, 1), jnp.int32),),
}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
  """Returns path -> shape of a network's parameters as in files, with a DiT's blocks unrolled."""
  if isinstance(module, DiT):
    module = module.clone(scan_blocks=False)
  inputs = _INPUTS[type(module)](module)
  return flat_shapes(jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"])
