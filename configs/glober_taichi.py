"""GLOBER on TaiChi-HD, 128 x 128, 16 frames (Tables 1b, 3 and 8).

  python -m data.prepare --dataset=taichi_hd --source=taichi-png --out=PREPARED_STORE
  python -m experiments.main --config=configs/glober_taichi.py --workdir=runs/glober_taichi \
    --config.data.dir=PREPARED_STORE

Clips of consecutive training frames, as the release's on Sky; the paper names no stride. Others
take fewer: Latte scores every sixth frame (--config.data.stride=6).

Hardware of the paper: 8 A100. Time and score here: not run yet.
Memory: every stage compiles to less than 55 GB for each of 8 GPUs (experiments/results/compiled).
Variants, comma-joined: no_cra (Table 3), kl_f4 (for config.init.kl_vae=KL-f4, latents of 3
channels), pod (for a v5e-32, a v5p-32 or 8 H100s), smoke.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  config = common.base()
  config.data.name = "taichi_hd"
  config.condition = "text"
  config.text.prompt = "Tai chi"
  config.data.image_size = 128
  config.model.kl_vae.multipliers = (1, 2, 4)  # f_frame = 4 (Table 8)
  config.model.discriminator.multipliers = (1, 2, 3, 4)  # side 16 of 128 is rate 8; ours
  config.model.discriminator.attention_rates = (8,)
  train = config.train
  train.autoencoder.batch_size = 32 * 8  # Table 8, a GPU x 8 (Sec. 4.1: 40)
  train.autoencoder.steps = 40_000  # Sec. 4.1
  train.autoencoder.optimizer.learning_rate = 5e-5  # Table 8
  train.generator.batch_size = 8 * 8  # x 4 draws: 32 a GPU (Sec. 4.1)
  train.generator.steps = 100_000  # Sec. 4.1
  train.generator.optimizer.learning_rate = 5e-5  # May 2023
  variants = {"kl_f4": common.kl_f4, "no_cra": common.no_cra, "pod": common.pod}
  return common.finish(config, arg, variants)
