"""The toy system on digits that march, small enough to train in a second."""

from ml_collections import ConfigDict

from tests.experiments.toy.system import base


def get_config(arg: str | None = None) -> ConfigDict:
  del arg
  config = base()
  config.data.update(name="marching_digits", image_size=16, channels=1, num_frames=4, flip=False)
  config.data.threads = 1
  config.train.mean.update(log_every=2, checkpoint_every=2, preview_every=4, validate_every=2)
  config.train.mean.optimizer.warmup_steps = 0
  return config
