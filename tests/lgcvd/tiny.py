"""LGC-VD's configuration in small, and its stage and pipeline on networks that compile at once."""

import ml_collections
import numpy as np

from configs import lgcvd_common
from tests.lgcvd import toy
from videodiff_jax.lgcvd import networks

SIDE, FRAMES, SLOTS = 8, 8, 2


def config() -> ml_collections.ConfigDict:
  """8-pixel grey clips, networks of one level, two sampling steps."""
  tiny = lgcvd_common.base()
  lgcvd_common.smoke(tiny)
  tiny.data.update(image_size=SIDE, channels=1)
  tiny.model.update(channels=4, multipliers=(1,), attention_rates=())
  tiny.train.lgcvd.optimizer.learning_rate = 1e-3
  tiny.sample.videos_per_chunk = 4
  return tiny


def build(config: ml_collections.ConfigDict) -> networks.Networks:
  """What a configuration describes, its networks replaced by `toy.Linear`."""
  real = networks.build(config)
  return networks.Networks(
    toy.Linear(), real.process, real.frame_shape, real.num_frames, real.slots
  )


def weights() -> dict[str, dict]:
  """What a pipeline of `build` is made of; the average is not the parameters."""
  raw, ema = (toy.linear_params(seed) for seed in (1, 2))
  ema["params"]["encoder"] = np.float32(0.3)
  return {"raw": raw, "ema": ema}


def clips(count: int, frames: int = 14, seed: int = 0) -> np.ndarray:
  """Noise, uint8 (n, f, h, w, 1): every frame is unlike the others."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, frames, SIDE, SIDE, 1), np.uint8)
