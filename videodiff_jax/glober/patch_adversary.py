"""The KL-VAE's adversary: its losses, and the weight that keeps it beside the reconstruction.

Rombach et al.'s recipe (arXiv 2112.10752, Appendix G; the released code's constants). Their
discriminator has batch norms, ours group norms: no picture's logits depend on the batch it is in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from videodiff_jax.glober.adversarial import hinge
from videodiff_jax.models.layers import Conv3x3

Judge = Callable[[jax.Array], jax.Array]  # frames (n, h, w, c) -> logits, large for real patches


def discriminator_loss(judge: Judge, real: jax.Array, fake: jax.Array) -> jax.Array:
  """Hinge loss of real and drawn frames (n, h, w, c); no gradient goes into `fake`."""
  fake = jax.lax.stop_gradient(fake)
  return 0.5 * (hinge(judge(real), 1.0).mean() + hinge(judge(fake), 0.0).mean())


def generator_loss(judge: Judge, fake: jax.Array) -> jax.Array:
  """What the KL-VAE is to lower: the drawn frames' mean logit, negated."""
  return -judge(fake).mean()


def adaptive_weight(of_reconstruction: jax.Array, of_adversary: jax.Array) -> jax.Array:
  """The weight that makes the adversary's gradient as long as the reconstruction's.

  Esser et al. 2021, Eq. 7: however large the discriminator's gradients grow, they neither swamp
  the reconstruction's nor vanish beside them.

  Args:
    of_reconstruction: gradient of the reconstruction loss, LPIPS and all, by the last kernel.
    of_adversary: gradient of `generator_loss` by the same kernel.

  Returns:
    The ratio of their norms, in [0, 1e4].
  """
  ratio = jnp.linalg.norm(of_reconstruction) / (jnp.linalg.norm(of_adversary) + 1e-4)
  return jnp.clip(ratio, 0.0, 1e4)


def gradient_by_kernel(last: dict[str, Any], features: jax.Array, slope: jax.Array) -> jax.Array:
  """A loss's gradient by the kernel of the decoder's last convolution.

  Args:
    last: that convolution's parameters.
    features: (n, h, w, d) it is applied to.
    slope: (n, h, w, c), the loss's gradient by the frames it draws.
  """
  layer = Conv3x3(slope.shape[-1], dtype=features.dtype)
  drawn, pull_back = jax.vjp(
    lambda kernel: layer.apply({"params": last | {"kernel": kernel}}, features), last["kernel"]
  )
  return pull_back(slope.astype(drawn.dtype))[0]
