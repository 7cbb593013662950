"""Randomly initialised networks of diffusers compute the same with our modules (float32)."""

import types
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.helpers import needs
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.unet import UNet
from videodiff_jax.pretrained.files.state_dict import convert
from videodiff_jax.pretrained.names import diffusers as names


@pytest.fixture(scope="module")
def torch() -> types.ModuleType:
  needs("diffusers")
  return needs("torch")


def randomise(torch: types.ModuleType, module: Any) -> dict[str, np.ndarray]:
  """Moves every parameter, so that no path hides behind a zero or a one; returns them."""
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for parameter in module.parameters():
      parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
  module.eval().requires_grad_(False)
  return {name: value.numpy() for name, value in module.state_dict().items()}


def channels_first(torch: types.ModuleType, x: np.ndarray) -> Any:
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def assert_near(ours: jax.Array, theirs: Any, tolerance: float) -> None:
  theirs = np.moveaxis(theirs.numpy(), 1, -1)
  assert np.std(theirs) > 0.05
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def params_of(module: nn.Module, state: dict, rules: Any, *inputs: Any) -> dict[str, Any]:
  wanted = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
  return {"params": convert(state, rules(state), wanted)}


SD_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
KL_VAES = [
  pytest.param(({"block_out_channels": (8, 16), "layers_per_block": 1}, 8, 3, True), id="f2"),
  pytest.param(
    ({"block_out_channels": (8, 8, 8), "layers_per_block": 1}, 8, 4, False),
    id="f4-without-attention",
  ),
  pytest.param((SD_VAE, 32, 4, True), id="sd-v1", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("case", KL_VAES)
def test_autoencoder_kl(torch, case) -> None:
  import diffusers

  options, side, latent, attends = case
  widths = options["block_out_channels"]
  groups = min(32, widths[0] // 2)
  theirs = diffusers.AutoencoderKL(
    **options, latent_channels=latent, norm_num_groups=groups, mid_block_add_attention=attends,
    down_block_types=("DownEncoderBlock2D",) * len(widths),
    up_block_types=("UpDecoderBlock2D",) * len(widths),
  )  # fmt: skip
  ours = KLVAE(
    channels=widths[0],
    multipliers=tuple(width // widths[0] for width in widths),
    blocks=options["layers_per_block"],
    z_channels=latent,
    embed_dim=latent,
    mid_attention=attends,
    norm_groups=groups,
  )
  rng = np.random.default_rng(0)
  x = rng.uniform(-1, 1, (1, side, side, 3)).astype(np.float32)
  z = rng.standard_normal((1, side // ours.factor, side // ours.factor, latent), np.float32)
  state = randomise(torch, theirs)
  params = params_of(ours, state, names.kl_vae, x, jax.random.key(0))
  with jax.default_matmul_precision("highest"):
    posterior = jax.jit(lambda p, x: ours.apply(p, x, method="encode"))(params, x)
    decoded = jax.jit(lambda p, z: ours.apply(p, z, method="decode"))(params, z)
  with torch.no_grad():
    expected = theirs.encode(channels_first(torch, x)).latent_dist
    assert_near(posterior.mean, expected.mean, 2e-5)
    assert_near(posterior.logvar, expected.logvar, 2e-5)
    assert_near(decoded, theirs.decode(channels_first(torch, z)).sample, 2e-5)


DOWN = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
UP = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
UNETS = [
  pytest.param(((8, 16), 1, (False, True), 2, 6, 1, 2e-5), id="attention-below"),
  pytest.param(((8, 16), 1, (True, False), 4, 10, 2, 2e-5), id="attention-above"),
  pytest.param(
    ((320, 640, 1280, 1280), 2, (True, True, True, False), 8, 768, 1, 1e-4),
    id="sd-v1",
    marks=pytest.mark.slow,
  ),
]


@pytest.mark.parametrize("case", UNETS)
def test_unet_2d_condition_model(torch, case) -> None:
  import diffusers

  widths, blocks, attends, heads, context_dim, depth, tolerance = case
  groups, side = min(32, widths[0] // 2), 2 ** (len(widths) - 1)
  theirs = diffusers.UNet2DConditionModel(
    block_out_channels=widths, layers_per_block=blocks, cross_attention_dim=context_dim,
    attention_head_dim=heads, norm_num_groups=groups, transformer_layers_per_block=depth,
    down_block_types=tuple(DOWN[here] for here in attends),
    up_block_types=tuple(UP[here] for here in reversed(attends)),
  )  # fmt: skip
  ours = UNet(
    channels=widths[0],
    multipliers=tuple(width // widths[0] for width in widths),
    blocks=blocks,
    attention_rates=tuple(2**level for level, here in enumerate(attends) if here),
    num_heads=heads,
    depth=depth,
    context_dim=context_dim,
    norm_groups=groups,
  )
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 2 * side, 2 * side, 4), np.float32)
  t, context = np.array([3, 751]), rng.standard_normal((2, 5, context_dim), np.float32)
  inputs = x, t.astype(np.float32), context
  params = params_of(ours, randomise(torch, theirs), names.unet, *inputs)
  with jax.default_matmul_precision("highest"):
    drawn = jax.jit(ours.apply)(params, *inputs)
  with torch.no_grad():
    expected = theirs(channels_first(torch, x), torch.tensor(t), torch.tensor(context)).sample
  assert_near(drawn, expected, tolerance)
