"""Compares GLOBER's UNet with diffusers' UNet of the same shape; see unets.py."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from experiments.setup.errors import UserError

# Stable Diffusion's layout at 81 M parameters: the prototype's shape.
_CHANNELS, _SIDE, _BATCH, _TOKENS, _CONTEXT = 96, 16, 2, 16, 768
_STEPS = 10
ROWS = (("forward", 9, 0.75), ("forward + backward", 7, 0.85), (f"{_STEPS} DDIM steps", 5, 0.75))

Functions = tuple[Callable[[], object], ...]


def functions(config: Any) -> tuple[str, Functions, Functions, str]:
  """Returns the functions to compare; the shape does not depend on the configuration."""
  del config
  return "UNet, 81 M parameters, batch 2", _ours(), _theirs(), ""


def _ours() -> Functions:
  import jax
  import jax.numpy as jnp

  from videodiff_jax.diffusion.process import Process
  from videodiff_jax.diffusion.samplers import make_sampler, sample
  from videodiff_jax.diffusion.schedules import make_schedule
  from videodiff_jax.models.outputs import output
  from videodiff_jax.models.unet import UNet

  model = UNet(channels=_CHANNELS, multipliers=(1, 2, 4, 4), blocks=2, context_dim=_CONTEXT)
  x, context = jnp.ones((_BATCH, _SIDE, _SIDE, 4)), jnp.ones((_BATCH, _TOKENS, _CONTEXT))
  t = jnp.full(_BATCH, 500.0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, context)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.02, s.shape), s.dtype), shapes)
  process = Process(make_schedule())
  sampler = make_sampler(process, "ddim", _STEPS)
  forward = jax.jit(model.apply)
  backward = jax.jit(jax.grad(lambda p: jnp.square(output(model, p, x, t, context)).mean()))

  @jax.jit
  def draw(params: dict) -> jax.Array:
    return sample(
      lambda z, t, carry: (output(model, params, z, t, context), carry), process, sampler, x
    )

  wait = jax.block_until_ready
  return (
    lambda: wait(forward(params, x, t, context)),
    lambda: wait(backward(params)),
    lambda: wait(draw(params)),
  )


def require() -> tuple[ModuleType, type, type]:
  """Imports torch, and diffusers' UNet and DDIM scheduler."""
  try:
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel
  except Exception as error:  # also RuntimeError, from a torchvision of another torch
    said = " ".join(str(error).split())
    raise UserError(
      "--mode=benchmark compares with diffusers' UNet, which cannot be imported "
      f'({type(error).__name__}: {said}): run pip install -e ".[parity]" or mend what is there.'
    ) from error
  return torch, UNet2DConditionModel, DDIMScheduler


def _theirs() -> Functions:
  torch, make_unet, make_scheduler = require()
  torch.set_num_threads(1)
  widths = tuple(_CHANNELS * multiplier for multiplier in (1, 2, 4, 4))
  model = make_unet(
    sample_size=_SIDE, block_out_channels=widths, layers_per_block=2,
    cross_attention_dim=_CONTEXT, attention_head_dim=8,
  )  # fmt: skip
  scheduler = make_scheduler(1000, 8.5e-4, 1.2e-2, "scaled_linear", clip_sample=False)
  scheduler.set_timesteps(_STEPS)
  x, context = torch.ones(_BATCH, 4, _SIDE, _SIDE), torch.ones(_BATCH, _TOKENS, _CONTEXT)

  @torch.no_grad()
  def forward() -> None:
    model(x, 500, context)

  def backward() -> None:
    model.zero_grad()
    model(x, 500, context).sample.square().mean().backward()

  @torch.no_grad()
  def draw() -> None:
    z = x
    for t in scheduler.timesteps:
      z = scheduler.step(model(z, t, context).sample, t, z).prev_sample

  return forward, backward, draw
