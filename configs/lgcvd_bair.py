"""LGC-VD on BAIR robot pushing, 64 x 64 (Sec. 4.2, Tables 2 to 4).

  python -m data.prepare --dataset=bair --source=softmotion30_44k --out=PREPARED_STORE
  python -m experiments.main --config=configs/lgcvd_bair.py --workdir=runs/lgcvd_bair \
    --config.data.dir=PREPARED_STORE

Hardware of the paper: 4 V100. Time and score here: not run yet.
Memory: compiles to less than 6 GB for each of 8 GPUs (experiments/results/compiled).
Variants, comma-joined: release (as the authors' code trains and samples), eps (the network
predicts the noise), no_two_stage, no_encoder and baseline, which is both (Table 5), one_update (an
optimiser step an iteration), full, which changes nothing, pod (for a v5e-32, a v5p-32 or 8
H100s), smoke. --mode=ablation compares all but the last two.
"""

from ml_collections import ConfigDict

from configs import lgcvd_common


def get_config(arg: str | None = None) -> ConfigDict:
  config = lgcvd_common.base()
  config.data.name = "bair"
  config.data.image_size = 64
  config.train.lgcvd.batch_size = 192  # Sec. 4.2
  config.evaluate.protocol = "mcvd_bair"  # or "lgcvd_paper_bair"
  return lgcvd_common.finish(config, arg, {"pod": lgcvd_common.pod})
