"""Every tensor of the published networks finds its place, by names and shapes alone."""

import functools
import pathlib
import types

import numpy as np
import pytest

from tests.helpers import needs
from tests.pretrained import sd_names
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.pretrained import architectures, sources
from videodiff_jax.pretrained.files.tensor_files import Source, Tensor, held

PATH = pathlib.Path("abstract")


def abstract(shapes: sd_names.Shapes, prefix: str = "") -> dict[str, Tensor]:
  """Tensors that may not be read."""

  def load() -> np.ndarray:
    raise AssertionError("a tensor was read")

  return {
    prefix + name: Tensor(shape, np.dtype(np.float16), load) for name, shape in shapes.items()
  }


@functools.cache
def published(kind: str, name: str) -> dict[str, tuple[int, ...]]:
  return architectures.shapes(architectures.PUBLISHED[kind][name])


def fit(name: str, tensors: dict[str, Tensor], wanted: sources.Wanted, **options) -> sources.Fit:
  return sources.fit(sources.find_in(name, Source(tensors, ()), PATH), wanted, **options)


def everything_fits(
  kind: str, name: str, tensors: dict[str, Tensor], count: int, parameters: int
) -> None:
  found = fit(name, tensors, published(kind, name))
  assert not found.reinitialised and not found.allowed
  assert {one.name for one in found.placed.values()} == set(sources.names_of(name, tensors))
  assert (len(found.placed), found.size) == (count, parameters)


def test_compvis_full_checkpoint() -> None:
  tensors = {
    **abstract(sd_names.unet(), "model.diffusion_model."),
    **abstract(sd_names.kl_vae(), "first_stage_model."),
    **abstract({name: value.shape for name, value in sd_names.schedule().items()}),
    **abstract(sd_names.clip_text(), "cond_stage_model.transformer.text_model."),
  }
  everything_fits("sd-v1", "unet", tensors, 686, 859_520_964)
  everything_fits("sd-v1", "kl_vae", tensors, 248, 83_653_863)


def test_compvis_networks_alone() -> None:
  everything_fits("sd-v1", "unet", abstract(sd_names.unet()), 686, 859_520_964)
  everything_fits("sd-v1", "kl_vae", abstract(sd_names.kl_vae()), 248, 83_653_863)
  f4 = abstract(sd_names.kl_vae(multipliers=(1, 2, 4), latent=3))
  trainer = abstract({"loss.logvar": (), "loss.discriminator.main.0.bias": (64,)})
  everything_fits("kl-f4", "kl_vae", f4 | trainer, 204, 55_312_063)


def test_clip_in_stable_diffusion() -> None:
  prefix = "cond_stage_model.transformer."
  tensors = abstract(sd_names.clip_text(), f"{prefix}text_model.")
  tensors |= abstract({f"{prefix}text_model.embeddings.position_ids": (1, 77)})
  tensors |= abstract({"model.diffusion_model.out.0.bias": (320,)})
  everything_fits("clip", "text_encoder", tensors, 196, 123_060_480)


def abstract_dit(**sizes: int) -> dict[str, Tensor]:
  """Its table of positions is compared with ours: the one thing that is read."""
  shapes = sd_names.dit(**sizes)
  positions = sd_names.filled({"pos_embed": shapes["pos_embed"]})
  return abstract(shapes) | {name: held(value) for name, value in positions.items()}


def test_other_positions_are_told() -> None:
  tensors = abstract_dit(width=16, depth=1, side=4)
  tensors["pos_embed"] = held(tensors["pos_embed"].load() + 0.1)
  with pytest.raises(ValueError, match="not the fixed sinusoid"):
    fit("generator", tensors, {})


def test_facebook_s_dit() -> None:
  everything_fits("dit", "generator", abstract_dit(), 291, 674_834_720)


@pytest.fixture(scope="module")
def diffusers() -> types.ModuleType:
  needs("torch")
  return needs("diffusers")


VAE_BLOCKS = {
  "block_out_channels": (128, 256, 512, 512),
  "down_block_types": ("DownEncoderBlock2D",) * 4,
  "up_block_types": ("UpDecoderBlock2D",) * 4,
  "layers_per_block": 2,
}
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@functools.cache
def of_module(make: type, **options: object) -> sd_names.Shapes:
  import torch

  with torch.device("meta"):
    module = make(**options)
  return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_diffusers(diffusers) -> None:
  """Its own defaults are the UNet of Stable Diffusion v1, but for the text's width."""
  unet = of_module(diffusers.UNet2DConditionModel, cross_attention_dim=768)
  vae = of_module(diffusers.AutoencoderKL, **VAE_BLOCKS)
  for prefixes in (("", ""), ("unet/", "vae/")):
    tensors = abstract(unet, prefixes[0])
    everything_fits("sd-v1", "unet", tensors, 686, 859_520_964)
    tensors = abstract(vae, prefixes[1])
    everything_fits("sd-v1", "kl_vae", tensors, 248, 83_653_863)


def test_diffusers_old_names_of_attention(diffusers) -> None:
  old = {}
  for name, shape in of_module(diffusers.AutoencoderKL, **VAE_BLOCKS).items():
    for new, before in OLD_ATTENTION.items():
      name = name.replace(f".{new}.", f".{before}.")
    old[name] = shape
  assert "encoder.mid_block.attentions.0.proj_attn.bias" in old
  everything_fits("sd-v1", "kl_vae", abstract(old), 248, 83_653_863)


# ---- what does not fit

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1}


def small(**changes: object) -> dict[str, Tensor]:
  """A small KL-VAE's; `changes` replace tensors' shapes, None removes one."""
  shapes = sd_names.kl_vae(**SMALL) | changes
  return abstract({name: shape for name, shape in shapes.items() if shape is not None})


@functools.cache
def wanted_small() -> dict[str, tuple[int, ...]]:
  return architectures.shapes(KLVAE(**SMALL))


def fit_small(tensors: dict[str, Tensor], **options: object) -> sources.Fit:
  return fit("kl_vae", tensors, wanted_small(), **options)


@pytest.mark.parametrize(
  ("changes", "message", "allow"),
  [
    ({"quant_conv.bias": None}, r"to_moments\.bias is missing", "to_moments.bias"),
    ({"extra.weight": (3,)}, r"extra\.weight has no place", "extra.*"),
    ({"quant_conv.bias": (3,)}, r"gives \(3,\), but to_moments\.bias is \(8,\)", "quant_conv.*"),
  ],
)
def test_what_is_missing_left_over_or_of_another_shape(changes, message, allow) -> None:
  for adapt in (False, True):
    with pytest.raises(ValueError, match=message):
      fit_small(small(**changes), adapt=adapt)
  with pytest.raises(ValueError, match=message):
    fit_small(small(**changes), allow=["quant"])
  found = fit_small(small(**changes), allow=["nothing", allow])
  assert len(found.allowed) == 1 and not found.reinitialised
  assert fit_small(small()).allowed == ()


def test_another_network_is_told() -> None:
  with pytest.raises(ValueError, match=r"abstract holds no UNet in a known naming.*decoder\."):
    fit("unet", small(), {})


def test_a_dit_for_another_use_loads_what_fits() -> None:
  """The DiT has another patch size and other channels, text instead of classes."""
  tensors = abstract_dit(width=16, depth=2, side=4, classes=3)
  wanted = architectures.shapes(
    architectures.PUBLISHED["dit"]["generator"].clone(
      width=16, depth=2, num_heads=2, patch_size=1, in_channels=6, num_classes=0, context_dim=5,
      learn_sigma=False, scan_blocks=True,
    )
  )  # fmt: skip
  with pytest.raises(ValueError, match=r"token_embed\.kernel is missing"):
    fit("generator", tensors, wanted)
  found = fit("generator", tensors, wanted, adapt=True)
  assert {s.split()[0] for s in found.reinitialised} == {
    "x_embedder.proj.weight", "y_embedder.embedding_table.weight", "final_layer.linear.weight",
    "final_layer.linear.bias", "token_embed.kernel", "token_embed.bias",
  }  # fmt: skip
  assert len(found.placed) == 2 * 10 + 1 + 4 + 2  # blocks, the patch's bias, time, last modulation


def test_a_unet_of_other_latents_loads_what_fits() -> None:
  tiny = {"channels": 8, "multipliers": (1, 2), "blocks": 1}
  tensors = abstract(sd_names.unet(**tiny, rates=(2,), context=6))
  unet = architectures.PUBLISHED["sd-v1"]["unet"]
  wanted = architectures.shapes(
    unet.clone(**tiny, attention_rates=(2,), context_dim=6, in_channels=3, out_channels=3)
  )
  found = fit("unet", tensors, wanted, adapt=True)
  assert {s.split()[0] for s in found.reinitialised} == {
    "input_blocks.0.0.weight", "out.2.weight", "out.2.bias"
  }  # fmt: skip
  assert len(found.placed) == len(tensors) - 3
