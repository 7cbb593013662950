"""--mode=benchmark: our UNet against diffusers' of the same shape on CPU, one thread each.

Both networks run in one pinned process and take turns, so that the ratios hold on a busy machine.
Run as a module it is that process; `show` starts it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np

from experiments import checks

# Stable Diffusion's layout at 81 M parameters: the prototype's shape.
_CHANNELS, _SIDE, _BATCH, _TOKENS, _CONTEXT = 96, 16, 2, 16, 768
_STEPS = 10
_ROUNDS = {"forward": 9, "forward + backward": 7, f"{_STEPS} DDIM steps": 5}
_TARGETS = {"forward": 0.75, "forward + backward": 0.85, f"{_STEPS} DDIM steps": 0.75}


def show() -> str:
  """Measures in a fresh process of one thread and returns its table.

  Raises:
    UserError: torch or diffusers cannot be imported.
    RuntimeError: the process failed (its message is on the screen).
  """
  _their_classes()  # told here, before a process is started
  single = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
  }
  command = [sys.executable, "-m", "experiments.benchmark"]
  child = subprocess.run(command, env=os.environ | single, stdout=subprocess.PIPE, text=True)
  if child.returncode:
    raise RuntimeError(f"The benchmark's process failed with status {child.returncode}.")
  return child.stdout.rstrip()


def measure() -> str:
  """Median seconds of both sides, and the median of the ratios of neighbouring runs."""
  from videodiff_jax.training.writers import format_table

  rows = []
  ours, theirs = _our_functions(), _their_functions()
  for name, rounds in _ROUNDS.items():
    ours[name](), theirs[name]()
    pairs = [(_seconds(ours[name]), _seconds(theirs[name])) for _ in range(rounds)]
    ratio = np.median([a / b for a, b in pairs])
    a, b = np.median(pairs, axis=0)
    rows.append((name, f"{a:.3f}", f"{b:.3f}", f"{ratio:.2f}", f"<= {_TARGETS[name]}"))
  heading = ("UNet, 81 M parameters, batch 2", "JAX s", "PyTorch s", "ratio", "aim")
  return format_table(rows, heading) + "\nCPU, float32, one thread each, taking turns."


def _seconds(function: Callable[[], object]) -> float:
  """Processor seconds, which other programs' load does not enter; wall seconds would."""
  began = time.process_time()
  function()
  return time.process_time() - began


def _our_functions() -> dict[str, Callable[[], object]]:
  import jax
  import jax.numpy as jnp

  from videodiff_jax.diffusion.process import Process
  from videodiff_jax.diffusion.samplers import make_sampler, sample
  from videodiff_jax.diffusion.schedules import make_schedule
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
  backward = jax.jit(jax.grad(lambda p: jnp.square(model.apply(p, x, t, context)).mean()))

  @jax.jit
  def draw(params: dict) -> jax.Array:
    return sample(
      lambda z, t, carry: (model.apply(params, z, t, context), carry), process, sampler, x
    )

  wait = jax.block_until_ready
  functions = (
    lambda: wait(forward(params, x, t, context)),
    lambda: wait(backward(params)),
    lambda: wait(draw(params)),
  )
  return dict(zip(_ROUNDS, functions))


def _their_classes() -> tuple[ModuleType, type, type]:
  """torch, and diffusers' UNet and DDIM scheduler."""
  try:
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel
  except Exception as error:  # beside ImportError: RuntimeError by a torchvision of another torch
    said = " ".join(str(error).split())
    raise checks.UserError(
      "--mode=benchmark compares with diffusers' UNet, which cannot be imported "
      f'({type(error).__name__}: {said}): run pip install -e ".[parity]" or mend what is there.'
    ) from error
  return torch, UNet2DConditionModel, DDIMScheduler


def _their_functions() -> dict[str, Callable[[], object]]:
  torch, make_unet, make_scheduler = _their_classes()
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

  return dict(zip(_ROUNDS, (forward, backward, draw)))


if __name__ == "__main__":
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  print(measure())
