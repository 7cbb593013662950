"""LGC-VD on moving digits, 32 x 32: prediction, interpolation and generation on a laptop.

  python -m experiments.main --config=configs/lgcvd_digits.py --workdir=runs/lgcvd_digits

The data prepares itself: 30 frames a video, so that 28 can be predicted from 2. Time and score on
2 CPU cores: not run yet.
Variants, comma-joined: release (as the authors' code trains and samples), eps (the network
predicts the noise), no_two_stage, no_encoder and baseline, which is both (Table 5), one_update (an
optimiser step an iteration), full, which changes nothing, smoke. --mode=ablation compares them.
"""

from ml_collections import ConfigDict

from configs import lgcvd_common


def get_config(arg: str | None = None) -> ConfigDict:
  config = lgcvd_common.base()
  config.precision = "float32"
  data, model, train = config.data, config.model, config.train.lgcvd
  data.name = "moving_digits"
  data.image_size = 32
  data.channels = 1
  data.flip = False
  data.threads = 2
  model.update(channels=32, multipliers=(1, 2, 3), attention_rates=(4,))
  shares = config.tasks.shares
  shares.update(prediction=0.5, live_photo=0.05, generation=0.15, interpolation=0.1, infilling=0.2)
  train.update(steps=600, batch_size=16, checkpoint_every=200, preview_every=300)
  train.optimizer.update(learning_rate=1e-3, decay="cosine", warmup_steps=50, clip_norm=1.0)
  train.ema.update(decay=0.98, interval=1, copy_until=100)
  config.sample.sampler.num_steps = 20
  config.evaluate.update(protocol="quick", motion=True)
  return lgcvd_common.finish(config, arg)
