"""LGC-VD's two networks as one module: the UNet and, unless ablated, the sequence encoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder


class ContextModel(nn.Module):
  """What denoises a fragment given local and global context (Fig. 2).

  Attributes:
    unet: the denoiser.
    encoder: of the last fragment; None leaves the local context alone (Table 5).
  """

  unet: LGCUNet
  encoder: SequenceEncoder | None

  def encode(self, last_fragment: jax.Array) -> jax.Array | None:
    """(b, h, w, F c), the last fragment or U -> the global context z (b, h', w', C)."""
    return None if self.encoder is None else self.encoder(last_fragment)

  def denoise(
    self, x_t: jax.Array, t: jax.Array, condition: jax.Array, context: jax.Array | None
  ) -> jax.Array:
    """The UNet's prediction for fragments (b, h, w, F c) at timesteps (b,)."""
    return self.unet(x_t, t, condition, context)

  def __call__(
    self, x_t: jax.Array, t: jax.Array, condition: jax.Array, last_fragment: jax.Array
  ) -> jax.Array:
    """Both networks, as training runs them.

    A last fragment (1, h, w, F c) is that of every sample: it is encoded once.
    """
    context = self.encode(last_fragment)
    if context is not None:
      context = jnp.broadcast_to(context, (len(x_t), *context.shape[1:]))
    return self.denoise(x_t, t, condition, context)
