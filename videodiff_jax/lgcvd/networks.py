"""LGC-VD's networks and diffusion process, built from a configuration."""

import dataclasses

import jax.numpy as jnp
import ml_collections

from videodiff_jax.diffusion.process import Process
from videodiff_jax.diffusion.samplers import make_sampler
from videodiff_jax.diffusion.schedules import make_schedule
from videodiff_jax.lgcvd.conditioning import TASKS, TaskMix
from videodiff_jax.lgcvd.model import ContextModel
from videodiff_jax.lgcvd.objective import Objective
from videodiff_jax.lgcvd.rollout import Rollout
from videodiff_jax.models.lgc_unet import LGCUNet, SequenceEncoder


@dataclasses.dataclass(frozen=True)
class Networks:
  """The networks and the shapes that they share.

  Attributes:
    model: the UNet and, unless ablated, the sequence encoder.
    process: the diffusion process of fragments.
    frame_shape: (h, w, c).
    num_frames: F, the frames of a fragment.
    slots: k, the conditioning frames of a fragment.
  """

  model: ContextModel
  process: Process
  frame_shape: tuple[int, int, int]
  num_frames: int
  slots: int

  @property
  def fragment_shape(self) -> tuple[int, int, int]:
    """(h, w, F c), the shape of one fragment as the networks see it."""
    h, w, c = self.frame_shape
    return h, w, self.num_frames * c

  @property
  def condition_shape(self) -> tuple[int, int, int]:
    """(h, w, k (c + 1)), the shape of one local context."""
    h, w, c = self.frame_shape
    return h, w, self.slots * (c + 1)


def build(config: ml_collections.ConfigDict) -> Networks:
  """Builds the networks of a configuration; no parameters are initialised."""
  data, model = config.data, config.model
  common = {
    "channels": model.channels,
    "multipliers": tuple(model.multipliers),
    "blocks": model.blocks,
    "attention_rates": tuple(model.attention_rates),
    "head_channels": model.head_channels,
    "dtype": jnp.dtype(config.precision),
    "remat": config.remat,
  }
  unet = LGCUNet(decoder_attention=model.decoder_attention, **common)
  return Networks(
    model=ContextModel(unet, SequenceEncoder(**common) if model.sequence_encoder else None),
    process=Process(make_schedule(**config.diffusion.schedule), **config.diffusion.process),
    frame_shape=(data.image_size, data.image_size, data.channels),
    num_frames=config.fragment.num_frames,
    slots=config.fragment.slots,
  )


def strides(config: ml_collections.ConfigDict) -> tuple[int, ...]:
  """Returns the training strides, as multiples of `data.stride`; (1,) for old workdirs."""
  return tuple(config.data.get("stride_multiples", (1,)))


def make_objective(config: ml_collections.ConfigDict, networks: Networks) -> Objective:
  """Builds the training objective of a configuration.

  Raises:
    ValueError: a setting is not one of its choices.
  """
  shares = config.tasks.shares
  # A fixed order: a configuration that was read from JSON may list the tasks in another.
  mix = TaskMix(
    {task: shares[task] for task in TASKS if shares[task]},
    networks.num_frames,
    networks.slots,
    config.tasks.per,
  )
  return Objective(networks.model, networks.process, mix, **config.objective)


def make_rollout(config: ml_collections.ConfigDict, networks: Networks) -> Rollout:
  """Builds the rollout, which samples, of a configuration.

  Raises:
    ValueError: a setting is not one of its choices.
  """
  settings = config.sample
  return Rollout(
    networks.model,
    networks.process,
    make_sampler(networks.process, **settings.sampler),
    networks.num_frames,
    networks.slots,
    last_fragment=settings.last_fragment,
    given_frames=settings.given_frames,
    average_features=settings.average_features,
  )
