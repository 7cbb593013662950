"""Compares LGC-VD's UNet with the same network in PyTorch, on the same weights; see unets.py."""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from experiments.setup.errors import UserError

_BATCH, _STEPS = 2, 10
_MAX_ABS_DIFF = 1e-4  # allowed difference between JAX's and PyTorch's outputs

ROWS = (("forward", 9, 0.85), ("forward + backward", 5, 1.25), (f"{_STEPS} DDPM steps", 3, 0.85))

Functions = tuple[Callable[[], Any], ...]


def require() -> None:
  """Raises UserError if torch cannot be imported."""
  try:
    import torch  # noqa: F401
  except Exception as error:
    said = " ".join(str(error).split())
    raise UserError(
      "--mode=benchmark compares with PyTorch, which cannot be imported "
      f'({type(error).__name__}: {said}): run pip install -e ".[parity]" or mend what is there.'
    ) from error


def functions(config: ml_collections.ConfigDict) -> tuple[str, Functions, Functions, str]:
  """Returns functions of the configuration's UNet in float32; outputs are (b, h, w, F c) or None.

  Raises:
    AssertionError: the two networks differ in what they compute.
  """
  import jax
  import jax.numpy as jnp
  import torch

  from experiments.benchmarks import torch_lgc_unet
  from videodiff_jax.diffusion.samplers import make_sampler, sample
  from videodiff_jax.lgcvd.networks import build
  from videodiff_jax.models.outputs import output
  from videodiff_jax.pretrained.names.lgcvd import network_params

  torch.set_num_threads(1)
  torch.manual_seed(0)
  config = config.copy_and_resolve_references()
  config.precision, config.remat = "float32", "none"
  config.model.blocks = 2  # the only number that the authors' network has
  config.diffusion.process.prediction_type = "v_prediction"  # does not change the time
  networks, model = build(config), config.model
  encoded = model.sequence_encoder
  fragment, condition = networks.fragment_shape, networks.condition_shape
  shared = (model.channels, model.multipliers, model.attention_rates, model.head_channels)
  theirs = torch_lgc_unet.UNet(
    fragment[-1], condition[-1], *shared, model.decoder_attention == "mirrored", encoded
  )

  rng = np.random.default_rng(0)
  arrays = [rng.standard_normal((_BATCH, *shape), np.float32) for shape in (fragment, condition)]
  if encoded:
    side = -(-fragment[0] // 2 ** (len(model.multipliers) - 1))
    width = model.channels * model.multipliers[-1]
    arrays.append(rng.standard_normal((_BATCH, side, side, width), np.float32))
  noise = rng.standard_normal((_STEPS, _BATCH, *fragment), np.float32)
  x, *given = map(jnp.asarray, arrays)
  our_noise = jnp.asarray(noise)

  def channels_first(a: np.ndarray) -> torch.Tensor:
    # Copied, since PyTorch is slower on views and crashes in their backward pass (2.13, CPU).
    return torch.tensor(np.ascontiguousarray(np.moveaxis(a, -1, -3)))

  x_torch, *given_torch = map(channels_first, arrays)
  noise_torch = channels_first(noise)

  process = networks.process
  sampler = make_sampler(process, "ddpm", _STEPS, grid="spaced", clip=True)
  unet, t = networks.model.unet, jnp.full(_BATCH, 500.0)
  shapes = jax.eval_shape(unet.init, jax.random.key(0), x, t, *given)["params"]
  state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
  params = {"params": jax.tree.map(jnp.asarray, network_params(state, shapes))}

  forward = jax.jit(unet.apply)
  backward = jax.jit(jax.grad(lambda p: jnp.square(output(unet, p, x, t, *given)).mean()))

  @jax.jit
  def draw(params: Any, noise: jax.Array) -> jax.Array:
    def denoise(z: jax.Array, t: jax.Array, carry: Any) -> tuple[jax.Array, Any]:
      return output(unet, params, z, t, *given), carry

    return sample(denoise, process, sampler, x, noise=noise)

  @torch.no_grad()
  def their_forward() -> np.ndarray:
    return np.moveaxis(theirs(x_torch, torch.full((_BATCH,), 500.0), *given_torch).numpy(), 1, -1)

  def their_backward() -> None:
    theirs.zero_grad()
    theirs(x_torch, torch.full((_BATCH,), 500.0), *given_torch).square().mean().backward()

  @torch.no_grad()
  def their_draw() -> np.ndarray:
    z, tables = x_torch, sampler.tables
    for i, time in enumerate(sampler.timesteps):
      row = {name: float(table[i]) for name, table in tables.items()}
      v = theirs(z, torch.full((_BATCH,), float(time)), *given_torch)
      x_0 = (row["alpha"] * z - row["sigma"] * v).clamp(-1, 1)
      z = row["clipped_x"] * z + row["clipped_x0"] * x_0 + row["noise"] * noise_torch[i]
    return np.moveaxis(z.numpy(), 1, -1)

  wait = jax.block_until_ready
  ours = (
    lambda: wait(forward(params, x, t, *given)),
    lambda: wait(backward(params)),
    lambda: wait(draw(params, our_noise)),
  )
  difference = float(np.abs(np.asarray(ours[0]()) - their_forward()).max())
  assert difference < _MAX_ABS_DIFF, f"Not the same network: outputs differ by {difference:.1e}."
  count = sum(value.size for value in jax.tree.leaves(params))
  heading = f"UNet, {count:,} parameters, side {fragment[0]}, batch {_BATCH}"
  remark = f"On the same weights the outputs differ by {difference:.0e} at most."
  return heading, ours, (their_forward, their_backward, their_draw), remark
