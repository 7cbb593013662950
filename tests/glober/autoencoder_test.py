"""The auto-encoder learns: one clip by heart, and where its object is between trained indices."""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from tests.glober import tiny
from videodiff_jax.glober import stages
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.metrics import baselines, images, motion
from videodiff_jax.training import partitioning

pytestmark = pytest.mark.heavy

SIDE = 16
KEYS = np.linspace(0, tiny.FRAMES - 1, tiny.KEYS).round().astype(int)


def moving_clip() -> np.ndarray:
  """A square that crosses the picture in a straight line at even speed, (f, h, w, 1) uint8."""
  y, x = np.mgrid[:SIDE, :SIDE]
  clip = np.zeros((tiny.FRAMES, SIDE, SIDE, 1), np.uint8)
  for f in range(tiny.FRAMES):
    centre = 3.5 + (SIDE - 8) * f / (tiny.FRAMES - 1)
    light = np.clip(2.5 - np.abs(y - centre), 0, 1) * np.clip(2.5 - np.abs(x - centre), 0, 1)
    clip[f, ..., 0] = np.rint(255 * light)
  return clip


def batches(clip: np.ndarray, targets: int) -> Iterator[dict[str, np.ndarray]]:
  rng = np.random.default_rng(0)
  while True:
    chosen = np.sort(np.stack([rng.permutation(len(clip))[:targets] for _ in range(4)]))
    yield {
      "frames": clip[chosen[:, :1]],
      "key_frames": np.stack([clip[KEYS]] * 4),
      "target_frames": clip[chosen],
      "target_times": (chosen / (len(clip) - 1)).astype(np.float32),
      "label": np.zeros(4, np.int32),
    }


def fit(config: ml_collections.ConfigDict, name: str, frozen: Any, clip: np.ndarray, steps: int):
  stage = stages.make_stage(config, name)
  state = tiny.filled(config, name)
  stream = batches(clip, config.data.num_targets)
  if stage.measure is not None:
    latents = stage.measure(frozen, next(stream), jax.random.key(1))["latents"]
    axes = tuple(range(latents.ndim - 1))
    statistics = {"mean": latents.mean(axes), "std": latents.std(axes)}
    state = state.replace(statistics={"latents": statistics})
  step = jax.jit(stage.train_steps[0][1], donate_argnums=0)
  for _ in range(steps):
    state, metrics = step(state, frozen, next(stream))
  return state, metrics


@pytest.fixture(scope="module")
def learned() -> Pipeline:
  """A tiny KL-VAE and auto-encoder after some seconds on one clip."""
  config = tiny.config(lambda_cra=0.0, drop_video=0.0, drop_condition=0.0, lambda_kl=1e-6)
  config.data.update(image_size=SIDE, num_targets=4)
  model = config.model
  model.latent_scale = 0.0
  model.kl_vae.update(channels=16, multipliers=(1, 1), embed_dim=2, z_channels=2)
  model.video_encoder.update(logvar_bias=-4.0)
  model.unet.update(channels=16)
  config.loss.kl_vae.reconstruction = "l2"
  config.diffusion.decoder.update(prediction_type="v_prediction", timestep_power=2.0)
  config.sample.decoder.num_steps = 8
  config.sample.noise = "shared"
  for name in ("kl_vae", "autoencoder"):
    config.train[name].optimizer.learning_rate = 4e-3
    config.train[name].ema.decay = 0.9
  clip = moving_clip()
  kl_vae, _ = fit(config, "kl_vae", {}, clip, 200)
  frozen = {"kl_vae": kl_vae.ema_params}
  autoencoder, _ = fit(config, "autoencoder", frozen, clip, 250)
  params = frozen | {
    "autoencoder": autoencoder.ema_params,
    "latent_statistics": autoencoder.statistics["latents"],
  }
  return Pipeline(config, params, partitioning.make_mesh(devices=jax.devices()[:1]))


def test_learns_one_clip_by_heart(learned) -> None:
  clip = moving_clip()[None]
  drawn = learned.reconstruct(clip, labels=[0]).videos
  psnr = images.psnr(drawn, clip).mean()
  assert psnr > images.psnr(baselines.mean_frame(clip), clip).mean() + 4
  assert motion.position_error(drawn, clip) < 1.0


def test_position_follows_tau_between_trained_indices(learned) -> None:
  clip = moving_clip()[None]
  features = learned.encode(clip)
  times = learned.frame_times
  between = (times[:-1] + times[1:]) / 2
  # In one call: chunks of one size, one compiled program.
  drawn = learned.redraw(features, frame_times=np.sort([*times, *between]), labels=[0]).videos
  # Even motion gives the slope no spread of its own: measure the path at all times instead.
  path = motion.centroid(drawn)[0]
  true = np.linspace(*motion.centroid(clip)[0][[0, -1]], len(path))
  assert np.linalg.norm(path - true, axis=1)[1::2].mean() < 1.0
  assert np.corrcoef(path[:, 0], true[:, 0])[0, 1] > 0.95
