"""The configurations by name, as the tests go through them."""

import importlib
import pathlib

from ml_collections import ConfigDict

from configs import common

FILES = sorted(
  path.stem
  for path in pathlib.Path(common.__file__).parent.glob("*.py")
  if path.stem != "__init__" and not path.stem.endswith("common")
)
LGCVD_VARIANTS = (
  "baseline", "eps", "full", "no_encoder", "no_two_stage", "one_update", "release", "smoke"
)  # fmt: skip
VARIANTS = {
  "glober_clips": ("kl_f8", "smoke"),
  "glober_digits": ("64", "cra", "frames64", "long", "smoke", "text"),
  "glober_sky": ("frames128", "no_cra", "pod", "smoke"),
  "glober_taichi": ("kl_f4", "no_cra", "pod", "smoke"),
  "glober_ucf101": (
    "128px", "class_names", "cond", "frames128", "kl_f4", "no_cra", "pod", "smoke", "v16x16x32",
    "v8x8x64",
  ),
  "lgcvd_bair": tuple(sorted((*LGCVD_VARIANTS, "pod"))),
  "lgcvd_cityscapes": tuple(sorted((*LGCVD_VARIANTS, "pod"))),
  "lgcvd_digits": tuple(sorted((*LGCVD_VARIANTS, "gpu", "long", "mean", "occluded"))),
  "lgcvd_doom": tuple(sorted((*LGCVD_VARIANTS, "128px", "small"))),
  "lgcvd_moving_mnist": tuple(sorted((*LGCVD_VARIANTS, "p2", "p5", "small"))),
}  # fmt: skip
PAPER = ("glober_ucf101", "glober_ucf101:128px", "glober_sky", "glober_taichi")


def load(name: str) -> ConfigDict:
  """'file:variant,variant' -> its configuration."""
  file, _, variants = name.partition(":")
  return importlib.import_module(f"configs.{file}").get_config(variants)
