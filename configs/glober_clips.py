"""GLOBER at 64 x 64 on any prepared store of colour video.

  python -m data.prepare --dataset=video_folder --source=VIDEOS --out=STORE --size=64
  python -m experiments.main --config=configs/glober_clips.py --workdir=runs/clips \
    --config.data.dir=STORE

Without --config.data.dir it prepares `demo_clips`, three real videos. Sized for one GPU; time and
score: not run yet. Variants: smoke (32 x 32, a minute on CPU); kl_f8 (a KL-VAE alone, f = 8, by
the paper configurations' recipe and through the start of its adversary, on CPU:
experiments/results/kl_vae_f8).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  config = common.base()
  config.data.name = "demo_clips"
  config.data.image_size = 64
  config.data.num_targets = 4
  config.data.frame_time = "index / (F - 1)"
  model = config.model
  model.kl_vae.update(channels=64, multipliers=(1, 2, 4), blocks=1)
  model.video_encoder.update(channels=128, out_channels=16, num_head_channels=32)
  model.video_encoder.logvar_bias = -4.0
  model.frame_control.index_scale = 30.0
  model.unet.update(channels=128, multipliers=(1, 2, 2), num_heads=4, context_dim=128)
  model.discriminator.update(multipliers=(1, 2, 3, 4), attention_rates=(4,), position_scale=0.02)
  model.dit.update(width=384, depth=12, num_heads=6, context_dim=128)
  for name in ("decoder", "generator"):
    config.diffusion[name].prediction_type = "v_prediction"
  config.diffusion.decoder.timestep_power = 2.0
  config.loss.kl_vae.update(lpips=0.0, adversary=0.0)
  # A predicted v is not amplified, so that all pairs count.
  config.loss.cra.update(start_step=2000, weighting="uniform", real="reconstructions")
  config.train.kl_vae = common.stage(10_000, 64, 1e-3, ema=0.999)
  config.train.autoencoder = common.stage(20_000, 64, 4e-4, ema=0.999)
  config.train.generator = common.stage(20_000, 128, 3e-4, ema=0.999)
  config.train.generator.draws_per_clip = 2
  config.sample.update(guidance_decoder=1.0, guidance_form="single")  # there is no text
  config.sample.noise = "shared"
  config.evaluate.update(num_real=96, num_fake=48)
  return common.finish(config, arg, {"kl_f8": _kl_f8})


def _kl_f8(config: ConfigDict) -> None:
  """The KL-VAE and recipe of the paper's configurations, with another size and fewer steps."""
  paper = common.base()
  config.stages = ("kl_vae",)
  config.after = ()
  config.precision = "float32"
  config.remat = "none"
  config.data.threads = 2
  config.model.kl_vae = paper.model.kl_vae
  config.model.kl_vae.update(channels=16, blocks=1, norm_groups=8)
  config.loss.kl_vae = paper.loss.kl_vae
  config.loss.kl_vae.update(lpips_net="alex", adversary_start=1000)
  train = config.train.kl_vae = paper.train.kl_vae
  train.update(
    steps=2000, batch_size=8, log_every=25, checkpoint_every=200, preview_every=200, keep=10
  )
  train.optimizer.warmup_steps = 50
