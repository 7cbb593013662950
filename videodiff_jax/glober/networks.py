"""GLOBER's networks and diffusion processes, built from a configuration."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import ml_collections

from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.glober import conditions
from videodiff_jax.glober.autoencoder import Autoencoder
from videodiff_jax.glober.conditions import Condition, Label, LearnedPrompt
from videodiff_jax.models import frame_control, unet
from videodiff_jax.models.discriminator import PairDiscriminator
from videodiff_jax.models.dit import DiT
from videodiff_jax.models.kl_vae import KLVAE
from videodiff_jax.models.video_encoder import VideoEncoder


@dataclasses.dataclass(frozen=True)
class Networks:
  """The system's networks and processes, and the shapes that they share.

  Attributes:
    kl_vae: the auto-encoder of frames.
    autoencoder: video encoder, frame control, UNet and condition table.
    discriminator: the discriminator of the CRA loss.
    generator: the DiT.
    decoder_process: the diffusion process of frame latents.
    generator_process: the diffusion process of global features.
    latent_shape: (H', W', C') of one frame.
    feature_shape: (H'', W'', C'') of one global feature.
    condition: what clips are conditioned on.
  """

  kl_vae: KLVAE
  autoencoder: Autoencoder
  discriminator: PairDiscriminator
  generator: DiT
  decoder_process: Process
  generator_process: Process
  latent_shape: tuple[int, int, int]
  feature_shape: tuple[int, int, int]
  condition: Condition

  @property
  def num_classes(self) -> int:
    """Number of classes; 0 unless the system is class-conditional."""
    return self.condition.num_classes if isinstance(self.condition, Label) else 0


def build(config: ml_collections.ConfigDict) -> Networks:
  """Builds the networks of a configuration; no parameters are initialised."""
  model, data = config.model, config.data
  dtype = jnp.dtype(config.precision)
  frame_rate = 2 ** (len(model.kl_vae.multipliers) - 1)
  feature_rate = 2 ** (len(model.video_encoder.multipliers) - 1)
  latent = data.image_size // frame_rate
  feature = latent // feature_rate
  common: dict[str, Any] = {"dtype": dtype, "remat": config.remat}
  condition = conditions.of_config(config)

  blocks = unet.blocks(model.unet.channels, model.unet.multipliers, model.unet.blocks)
  control = model.frame_control
  autoencoder = Autoencoder(
    encoder=VideoEncoder(
      latent_size=latent,
      latent_channels=model.kl_vae.embed_dim,
      **model.video_encoder,
      **common,
    ),
    control=frame_control.FrameControl(
      unet_blocks=frame_control.select(blocks, control.which),
      feature_rate=feature_rate,
      channels=model.video_encoder.channels,
      index_scale=control.index_scale,
      zero_init_res=control.zero_init_res,
      scale_shift=control.scale_shift,
      norm_groups=control.norm_groups,
      **common,
    ),
    unet=unet.UNet(
      in_channels=model.kl_vae.embed_dim,
      out_channels=model.kl_vae.embed_dim,
      **model.unet,
      **common,
    ),
    condition=condition,
  )
  on_pixels = model.discriminator.on == "pixels"
  discriminator = {k: v for k, v in model.discriminator.items() if k != "on"}
  schedule = make_schedule(**config.diffusion.schedule)
  return Networks(
    kl_vae=KLVAE(in_channels=data.channels, **model.kl_vae, **common),
    autoencoder=autoencoder,
    discriminator=PairDiscriminator(
      image_size=data.image_size if on_pixels else latent,
      in_channels=data.channels if on_pixels else model.kl_vae.embed_dim,
      **discriminator,
      **common,
    ),
    generator=DiT(
      input_size=feature,
      in_channels=model.video_encoder.out_channels,
      num_classes=condition.num_classes if isinstance(condition, Label) else 0,
      prompt_tokens=condition.num_tokens if isinstance(condition, LearnedPrompt) else 0,
      **model.dit,
      **common,
    ),
    decoder_process=Process(schedule, **config.diffusion.decoder),
    generator_process=Process(schedule, **config.diffusion.generator),
    latent_shape=(latent, latent, model.kl_vae.embed_dim),
    feature_shape=(feature, feature, model.video_encoder.out_channels),
    condition=condition,
  )
