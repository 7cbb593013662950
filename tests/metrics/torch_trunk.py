"""The classifiers inside LPIPS in torch, with our parameters."""

from collections.abc import Callable

import numpy as np

from tests.helpers import needs


def build(net: str, params: dict) -> Callable:
  """(n, 3, h, w) in [-1, 1] -> the activations at five depths, of 'alex' or 'vgg'."""
  torch = needs("torch")
  levels = _layers(net)
  convs = [x for level in levels for x in level if isinstance(x, torch.nn.Conv2d)]
  for i, conv in enumerate(convs):
    kernel = np.transpose(params[f"conv_{i}"]["kernel"], (3, 2, 0, 1))
    conv.weight.data = torch.tensor(kernel.copy())
    conv.bias.data = torch.tensor(params[f"conv_{i}"]["bias"])
  shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
  scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

  def activations(x: torch.Tensor) -> list[torch.Tensor]:
    x, found = (x - shift) / scale, []
    for level in levels:
      x = level(x)
      found.append(x)
    return found

  return activations


def _layers(net: str) -> list:
  """torchvision's layers, cut after each activation that LPIPS compares."""
  nn = needs("torch").nn
  if net == "alex":
    return [
      nn.Sequential(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU()),
      nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
      nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
      nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
      nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
  levels, previous = [], 3
  for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
    layers = [nn.MaxPool2d(2, 2)] if levels else []
    for width in widths:
      layers += [nn.Conv2d(previous, width, 3, padding=1), nn.ReLU()]
      previous = width
    levels.append(nn.Sequential(*layers))
  return levels
