"""The KL-VAE's adversary: its losses, and the weight that balances it with the reconstruction.

This is Rombach et al.'s recipe (arXiv 2112.10752, Appendix G; constants of the released code).
Their discriminator has batch norms, ours group norms, so that a picture's logits do not depend on
its batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.models.layers import Conv3x3
from videodiff_jax.models.outputs import output

Judge = Callable[[jax.Array], jax.Array]  # frames (n, h, w, c) -> logits, large for real patches


def discriminator_loss(judge: Judge, real: jax.Array, fake: jax.Array) -> jax.Array:
  """Computes the hinge loss of real and drawn frames (n, h, w, c); no gradient flows to `fake`."""
  fake = jax.lax.stop_gradient(fake)
  # Not by adversarial.hinge, whose labels compile to another order of sums.
  return 0.5 * (jax.nn.relu(1.0 - judge(real)).mean() + jax.nn.relu(1.0 + judge(fake)).mean())


def generator_loss(judge: Judge, fake: jax.Array) -> jax.Array:
  """Computes the KL-VAE's adversarial loss, the negated mean logit of drawn frames."""
  return -judge(fake).mean()


def adaptive_weight(reconstruction: jax.Array, adversary: jax.Array) -> jax.Array:
  """Returns the weight that gives the adversary's gradient the norm of the reconstruction's.

  Esser et al. 2021, Eq. 7: the adversary then neither overwhelms the reconstruction nor becomes
  negligible, whatever the size of the discriminator's gradients.

  Args:
    reconstruction: gradient of the reconstruction loss, with LPIPS, by the last kernel.
    adversary: gradient of `generator_loss` by the same kernel.

  Returns:
    The ratio of their norms, in [0, 1e4].
  """
  ratio = jnp.linalg.norm(reconstruction) / (jnp.linalg.norm(adversary) + 1e-4)
  return jnp.clip(ratio, 0.0, 1e4)


def gradient_by_kernel(last: dict[str, Any], features: jax.Array, slope: jax.Array) -> jax.Array:
  """Returns a loss's gradient by the kernel of the decoder's last convolution.

  Args:
    last: that convolution's parameters.
    features: (n, h, w, d) its input.
    slope: (n, h, w, c) the loss's gradient by its output, the drawn frames.
  """
  layer = Conv3x3(slope.shape[-1], dtype=features.dtype)
  drawn, pull_back = jax.vjp(
    lambda kernel: output(layer, {"params": last | {"kernel": kernel}}, features), last["kernel"]
  )
  return pull_back(slope.astype(drawn.dtype))[0]
