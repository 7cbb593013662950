"""A GLOBER small enough to compile in seconds, with parameters in which nothing is zero."""

import functools
from typing import Any

import ml_collections
import numpy as np

from configs import common
from tests.helpers import filled_state
from videodiff_jax.glober import stages
from videodiff_jax.glober.networks import Networks, build
from videodiff_jax.training.state import TrainState

SIDE, FRAMES, KEYS = 8, 8, 3
FEATURE = (2, 2, 4)  # shape of a global feature


def config(**loss: Any) -> ml_collections.ConfigDict:
  """8-pixel grey clips of 8 frames, latents 4x4x4, global features 2x2x4, two classes.

  As few blocks as have every kind in them: compiling them is most of what the tests take.
  """
  tiny = common.base()
  common.smoke(tiny)
  tiny.condition = "class"
  data, model = tiny.data, tiny.model
  data.update(image_size=SIDE, channels=1, num_classes=2, num_frames=FRAMES, num_keyframes=KEYS)
  data.frame_time = "index / (F - 1)"
  model.kl_vae.update(channels=4, multipliers=(1, 1))
  model.video_encoder.update(channels=8, out_channels=FEATURE[-1], attention_rates=(2,))
  model.unet.update(multipliers=(1,), attention_rates=())  # the middle attends
  # 10 / 7 radians from frame to frame; the demo's 30 would alias with 8 frames.
  model.frame_control.index_scale = 10.0
  model.discriminator.update(channels=8, multipliers=(1, 1), attention_rates=(2,))
  model.latent_scale = 1.0
  tiny.loss.update(loss)
  tiny.loss.cra.start_step = 0
  tiny.sample.guidance_form = "single"  # compares with the null video, too
  tiny.sample.guidance_decoder = tiny.sample.guidance_generator = 1.0
  tiny.sample.frames_per_chunk = FRAMES
  for name in stages.NAMES:
    tiny.train[name].optimizer.update(learning_rate=1e-3, warmup_steps=0)
  return tiny


@functools.cache
def networks() -> Networks:
  return build(config())


@functools.cache
def state(name: str) -> TrainState:
  """The filled state of a stage of `config()`."""
  return filled(config(), name)


def filled(config: ml_collections.ConfigDict, name: str) -> TrainState:
  """A stage's state with filled parameters and a real key."""
  return filled_state(stages.make_stage(config, name), scale=0.2)


def frozen(name: str) -> dict[str, Any]:
  """The frozen networks of a stage."""
  ema = {
    other: {"ema_params": state(other).params, "statistics": state(other).statistics}
    for other in stages.NAMES
  }
  return stages.frozen_networks(name, ema)


def sampling_params() -> dict[str, Any]:
  """What glober.drawing and the pipeline draw with."""
  ema = {
    name: {"ema_params": state(name).params, "statistics": state(name).statistics}
    for name in stages.NAMES
  }
  return stages.sampling_params(ema)


def clips(count: int, seed: int = 0) -> np.ndarray:
  """Moving bright squares, uint8 (n, f, h, w, 1)."""
  rng = np.random.default_rng(seed)
  videos = np.zeros((count, FRAMES, SIDE, SIDE, 1), np.uint8)
  for video in videos:
    start, end = rng.integers(0, SIDE - 4, (2, 2))
    for f, frame in enumerate(video):
      y, x = np.rint(start + (end - start) * f / (FRAMES - 1)).astype(int)
      frame[y : y + 4, x : x + 4] = 255
  return videos


def batch(size: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
  """What the autoencoder's stage reads; the other stages find theirs in it too."""
  rng = np.random.default_rng(seed)
  videos = clips(size, seed)
  targets = np.sort(np.stack([rng.permutation(FRAMES)[:2] for _ in range(size)]))
  keys = np.linspace(0, FRAMES - 1, KEYS).round().astype(int)
  return {
    "frames": videos[:, :1],
    "key_frames": videos[:, keys],
    "target_frames": np.take_along_axis(videos, targets[:, :, None, None, None], axis=1),
    "target_times": (targets / (FRAMES - 1)).astype(np.float32),
    "label": rng.integers(0, 2, size).astype(np.int32),
    "video": np.arange(size, dtype=np.int32),
  }
