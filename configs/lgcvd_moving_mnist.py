"""LGC-VD on Moving MNIST, 64 x 64: 10 frames from 10, or by variant 10 from 5 and 28 from 2.

  python -m experiments.main --config=configs/lgcvd_moving_mnist.py --workdir=runs/moving_mnist
  python -m experiments.main --mode=evaluate --table=moving_mnist --workdir=runs/moving_mnist

The data prepares itself, of 5,000 of MNIST's 70,000 digits; neither paper has this data set. The
network is that of BAIR. Time and score here: not run yet.
Variants, comma-joined: p5 (SM-MNIST, 10 frames from 5, as MCVD), p2 (28 frames from 2), small (what
2 CPU cores train in one sitting), release (as the authors' code trains and samples), eps (the
network predicts the noise), no_two_stage, no_encoder and baseline, which is both (Table 5),
one_update (an optimiser step an iteration), full, which changes nothing, smoke. --mode=ablation
compares them.
"""

from ml_collections import ConfigDict

from configs import lgcvd_common


def get_config(arg: str | None = None) -> ConfigDict:
  config = lgcvd_common.base()
  data = config.data
  data.name = "moving_mnist"
  data.channels = 1
  data.flip = False  # a mirrored digit is not a digit
  config.fragment.update(num_frames=15, slots=10)  # ours: 5 new frames, as MCVD's
  data.update(num_frames=20, video_frames=20)  # two windows: the whole of a published video
  config.sample.update(past=10, num_frames=10)
  config.train.lgcvd.batch_size = 192  # ours: BAIR's, of as many pixels (Sec. 4.2)
  config.after = ("predict", "evaluate")
  config.evaluate.protocol = "moving_mnist"
  config = lgcvd_common.finish(config, arg, {"p5": _p5, "p2": _p2, "small": _small})
  data.image_size = 64  # the only size, for smoke, too
  return config


def _p5(config: ConfigDict) -> None:
  """`:p5`: SM-MNIST, 10 frames from 5, 5 at a time: the setting of MCVD and SVG."""
  config.data.update(name="stochastic_mnist", num_frames=15)
  config.fragment.update(num_frames=10, slots=5)
  config.sample.update(past=5, num_frames=10)
  config.evaluate.protocol = "mcvd_smmnist"


def _p2(config: ConfigDict) -> None:
  """`:p2`: 28 frames from 2 by the paper's fragments of 8."""
  config.fragment.update(num_frames=8, slots=2)  # Sec. 4.2
  config.data.update(num_frames=14, video_frames=30)
  config.sample.update(past=2, num_frames=28)
  config.evaluate.protocol = "moving_mnist_p2"


def _small(config: ConfigDict) -> None:
  """`:small`: the recipe of lgcvd_digits:long at twice the side, for 2 CPU cores."""
  config.precision = "float32"
  config.mesh.cpu_devices = 2
  config.data.threads = 2
  config.model.update(channels=32, multipliers=(1, 1, 2, 2), blocks=1, attention_rates=(8,))
  shares = config.tasks.shares
  shares.update(prediction=0.8, generation=0.1, interpolation=0.05, infilling=0.05)
  config.diffusion.process.timestep_power = 1.5
  config.objective.saturate = True
  train = config.train.lgcvd
  train.update(steps=16_000, batch_size=4, checkpoint_every=500, preview_every=4000)
  train.validate_every = 1000
  train.optimizer.update(learning_rate=1.5e-3, decay="cosine", warmup_steps=200, clip_norm=0.2)
  train.ema.update(decay=0.999, interval=1, copy_until=100)
