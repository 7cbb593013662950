"""LGC-VD's two networks as one module: the UNet and the sequence encoder, which is optional."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder


class ContextModel(nn.Module):
  """Denoises a fragment given its local and its global context (Fig. 2).

  Attributes:
    unet: the denoiser.
    encoder: the sequence encoder of the last fragment; None uses local context only (Table 5).
  """

  unet: LGCUNet
  encoder: SequenceEncoder | None

  def encode(self, last_fragment: jax.Array) -> jax.Array | None:
    """Encodes the last fragment, or U, (b, h, w, F c) as the global context z (b, h', w', C)."""
    return None if self.encoder is None else self.encoder(last_fragment)

  def denoise(
    self, x_t: jax.Array, t: jax.Array, condition: jax.Array, context: jax.Array | None
  ) -> jax.Array:
    """Returns the UNet's prediction for fragments (b, h, w, F c) at timesteps (b,)."""
    return self.unet(x_t, t, condition, context)

  def __call__(
    self, x_t: jax.Array, t: jax.Array, condition: jax.Array, last_fragment: jax.Array
  ) -> jax.Array:
    """Runs both networks, as training does.

    A last fragment (1, h, w, F c) stands for all samples and is encoded once.
    """
    context = self.encode(last_fragment)
    if context is not None:
      context = jnp.broadcast_to(context, (len(x_t), *context.shape[1:]))
    return self.denoise(x_t, t, condition, context)
