"""LGC-VD on Doom, 64 x 64: first-person walks, a stand-in for real egocentric video.

  python -m data.prepare --dataset=doom --out=PREPARED_STORE
  python -m experiments.main --config=configs/lgcvd_doom.py --workdir=runs/lgcvd_doom \
    --config.data.dir=PREPARED_STORE

Prepare it with --size=128 for the variant 128px. Neither paper has this data set; the network is
that of BAIR. Time and score here: not run yet.
Variants, comma-joined: 128px, small (what 2 CPU cores train in one sitting), release (as the
authors' code trains and samples), eps (the network predicts the noise), no_two_stage, no_encoder
and baseline, which is both (Table 5), one_update (an optimiser step an iteration), full, which
changes nothing, smoke. --mode=ablation compares them.
"""

from ml_collections import ConfigDict

from configs import lgcvd_common


def get_config(arg: str | None = None) -> ConfigDict:
  config = lgcvd_common.base()
  config.data.name = "doom"
  config.train.lgcvd.batch_size = 192  # ours: BAIR's, of as many pixels (Sec. 4.2)
  return lgcvd_common.finish(config, arg, {"128px": _128px, "small": _small})


def _128px(config: ConfigDict) -> None:
  """`:128px`: ours, with the batch of Cityscapes."""
  config.data.image_size = 128
  config.train.lgcvd.batch_size = 32  # Sec. 4.2


def _small(config: ConfigDict) -> None:
  """`:small`: 64 x 64 on 2 CPU cores."""
  config.precision = "float32"
  config.mesh.cpu_devices = 2
  config.data.threads = 2
  config.model.update(channels=32, multipliers=(1, 2, 2, 3), blocks=1, attention_rates=(8,))
  shares = config.tasks.shares
  shares.update(prediction=0.8, generation=0.1, interpolation=0.05, infilling=0.05)
  config.diffusion.process.timestep_power = 1.5
  train = config.train.lgcvd
  train.update(steps=16_000, batch_size=4, checkpoint_every=500, preview_every=4000)
  train.validate_every = 1000
  train.optimizer.update(learning_rate=1e-3, decay="cosine", warmup_steps=200, clip_norm=0.2)
  train.ema.update(decay=0.999, interval=1, copy_until=100)
  config.evaluate.protocol = "quick"
