"""The benchmark's PyTorch networks are the authors': their weights fit, their outputs come out."""

import pathlib

import numpy as np
import pytest

from tests.golden import recording
from tests.helpers import needs

torch = needs("torch")
from experiments.benchmarks import torch_lgc_unet  # noqa: E402  needs torch


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  if "path" in metafunc.fixturenames:
    recording.parametrize(metafunc, "unet", "sequence_encoder")


def network(config: dict) -> torch.nn.Module:
  """Translates the release's constructor arguments."""
  settings, c = recording.settings(config), config["channels"]
  if "cond_frames" not in config:
    return torch_lgc_unet.SequenceEncoder(c * config["num_frames"], **settings)
  fragment = c * (config["cond_frames"] + config["new_frames"])
  condition = (c + 1) * config["cond_frames"]
  return torch_lgc_unet.UNet(fragment, condition, **settings, mirrored=True)


@torch.no_grad()
def test_network(path: pathlib.Path) -> None:
  golden = recording.load(path)
  peer = network(golden.config["kwargs"])
  peer.load_state_dict({name: torch.tensor(value) for name, value in golden.param.items()})
  names = [name for name in ("x", "t", "cond", "cond_feature") if name in golden.inputs]
  out = peer(*(torch.tensor(golden.inputs[name]) for name in names))
  np.testing.assert_allclose(out.numpy(), golden.outputs["y"], rtol=1e-5, atol=1e-4)


def test_published_sizes() -> None:
  """lgcvd_release.md, section 9; without allocating anything."""
  config = {
    "dim": 128, "dim_mults": [1, 2, 3, 4], "channels": 3, "img_size": 64,
    "attn_resolutions": [16], "n_head_channels": 128,
  }  # fmt: skip
  with torch.device("meta"):
    unet = network(config | {"cond_frames": 2, "new_frames": 6})
    encoder = network(config | {"num_frames": 8})
  counts = [sum(p.numel() for p in peer.parameters()) for peer in (unet, encoder)]
  assert counts == [63_403_032, 33_104_640]
