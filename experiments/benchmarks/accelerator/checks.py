"""Whether an accelerator computes what the CPU computes: both in one process, on the same numbers.

Everything is small, in float32 with full products unless it says otherwise. A difference is the
largest one over all arrays, as a share of the largest number among them.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.accelerator import inputs as stage_inputs
from experiments.setup import systems
from videodiff_jax.models import attention

# What two correct float32 programs may differ by: a forward pass, and gradients of a whole step,
# whose sums run over more numbers and whose adaptive weight divides two norms.
_FORWARD, _STEP = 1e-4, 2e-3
_HALF = 2e-2  # bfloat16 has 8 bits
_LEVELS = 1  # of 255: what rounding to pixels makes of a small difference


def modules(name: str, variants: str) -> dict[str, Any]:
  """Compares the forward pass of each network of a configuration."""
  settings = stage_inputs.config(name, variants)
  built = systems.of(settings).build(settings)
  rows = {}
  for what, module, shapes, method in _modules(built):
    rows[what] = _row(functools.partial(_forward, module, shapes, method), _FORWARD)
  return _all(rows)


def attentions() -> dict[str, Any]:
  """Compares attention, with gradients, in the shapes that choose between its forms."""
  rows = {}
  for tokens, heads, width in ((64, 4, 32), (1024, 8, 40), (2048, 2, 64)):
    for dtype, tolerance in (("float32", _STEP), ("bfloat16", _HALF)):
      shape = (1, tokens, heads, width)
      name = f"{tokens} tokens, {heads} heads of {width}, {dtype}"
      rows[name] = _row(functools.partial(_attention, shape, dtype), tolerance)
  return _all(rows)


def step(name: str, variants: str, stage: str) -> dict[str, Any]:
  """Compares the metrics and the optimiser's moments after one step of a stage."""
  settings = stage_inputs.config(name, variants)

  def run(mesh: jax.sharding.Mesh) -> Any:
    inputs = stage_inputs.make(settings, stage, stage_inputs.randomly, mesh)
    state, metrics = inputs.compiled()(inputs.state, inputs.frozen, inputs.batch)
    return metrics["loss"], state.opt_state

  return _all({f"loss and moments of {stage}": _row(run, _STEP)})


def sampler(name: str, variants: str, **settings: Any) -> dict[str, Any]:
  """Compares the pixels of a drawn clip."""
  config = stage_inputs.config(name, variants)

  def run(mesh: jax.sharding.Mesh) -> Any:
    pipeline = stage_inputs.pipeline(config, stage_inputs.randomly, mesh)
    return pipeline.with_settings(**settings).generate(1, num_frames=4, seed=0).videos

  return _all({"pixels, levels of 255": _row(run, _LEVELS, relative=False)})


def devices() -> tuple[jax.Device, jax.Device]:
  """Returns the CPU and the accelerator; where there is none, two devices of the CPU."""
  cpus = jax.devices("cpu")
  accelerator = jax.devices()[0]
  return cpus[0], cpus[-1] if accelerator.platform == "cpu" else accelerator


def difference(a: Any, b: Any, relative: bool = True) -> float:
  """Returns the largest difference of two trees, infinite where one has a number that is none."""
  pairs = [
    (np.asarray(x, np.float64), np.asarray(y, np.float64))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  ]
  if not all(np.isfinite(x).all() and np.isfinite(y).all() for x, y in pairs):
    return float("inf")
  largest = max(np.abs(x).max(initial=0) for x, _ in pairs) if relative else 1.0
  return float(max(np.abs(x - y).max(initial=0) for x, y in pairs) / (largest or 1.0))


def _row(
  run: Callable[[jax.sharding.Mesh], Any], tolerance: float, relative: bool = True
) -> dict[str, Any]:
  with jax.default_matmul_precision("highest"):
    on_cpu, on_accelerator = (
      jax.device_get(run(stage_inputs.one_device(device))) for device in devices()
    )
  found = difference(on_cpu, on_accelerator, relative)
  return {"difference": found, "tolerance": tolerance, "passed": found <= tolerance}


def _all(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
  return {"passed": all(row["passed"] for row in rows.values()), "rows": rows}


def _forward(
  module: nn.Module, shapes: tuple, method: str | None, mesh: jax.sharding.Mesh
) -> jax.Array:
  key = jax.eval_shape(lambda: jax.random.key(0))
  abstract = jax.eval_shape(lambda k, *inputs: module.init(k, *inputs, method=method), key, *shapes)
  params = stage_inputs.randomly(abstract, mesh)
  inputs = stage_inputs.randomly(shapes, mesh, seed=1)
  with jax.set_mesh(mesh):
    return jax.jit(lambda p, *x: module.apply(p, *x, method=method))(params, *inputs)


def _attention(shape: tuple[int, ...], dtype: str, mesh: jax.sharding.Mesh) -> Any:
  abstract = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 3
  q, k, v = stage_inputs.randomly(abstract, mesh)

  def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = attention.attend(*(x.astype(dtype) for x in (q, k, v))).astype(jnp.float32)
    return jnp.square(y).sum(), y

  with jax.set_mesh(mesh):
    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(10.0 * q, 10.0 * k, v)


def _modules(built: Any) -> list[tuple[str, nn.Module, tuple, str | None]]:
  """Returns (name, network, shapes of its inputs, method) for a system's networks."""

  def of(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, *shape), jnp.float32)

  if not hasattr(built, "autoencoder"):
    fragment, condition = of(*built.fragment_shape), of(*built.condition_shape)
    return [("UNet and sequence encoder", built.model, (fragment, of(), condition, fragment), None)]
  auto, kl_vae, dit = built.autoencoder, built.kl_vae, built.generator
  latent, feature, judge = built.latent_shape, built.feature_shape, built.discriminator
  side = latent[0] * 2 ** (len(kl_vae.multipliers) - 1)
  pair = of(2, judge.image_size, judge.image_size, judge.in_channels)
  labels = jax.ShapeDtypeStruct((2,), jnp.int32) if dit.num_classes else None
  text = of() if dit.prompt_tokens else of(1, dit.context_dim)
  return [
    ("KL-VAE, encoder", kl_vae, (of(side, side, kl_vae.in_channels),), "encode"),
    ("KL-VAE, decoder", kl_vae, (of(*latent),), "decode"),
    ("video encoder", auto.encoder, (of(4, *latent),), None),
    ("UNet", auto.unet, (of(*latent), of(), of(1, auto.unet.context_dim)), None),
    ("discriminator", judge, (pair,), None),
    ("DiT", dit, (of(*feature), of(), labels, text), None),
  ]
