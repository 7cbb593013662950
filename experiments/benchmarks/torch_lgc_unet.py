"""LGC-VD's two networks in PyTorch, with the names of the authors' checkpoints.

--mode=benchmark --config=configs/lgcvd_*.py compares with these networks. They are written from the
description of the release: the same arithmetic on the same weights, with the whole matrix of
attention weights in memory as there.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videodiff_jax.models.lgc_unet import norm_groups

_EPSILON = 1e-6


class Sinusoid(nn.Module):
  """(n,) -> (n, channels): sines, then cosines."""

  def __init__(self, channels: int):
    super().__init__()
    self.half = channels // 2

  def forward(self, t: Tensor) -> Tensor:
    frequencies = torch.exp(torch.arange(self.half) * -(math.log(1e4) / (self.half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ResBlock(nn.Module):
  def __init__(self, inside: int, outside: int, embedding: int | None):
    super().__init__()
    self.GroupNorm_0 = nn.GroupNorm(norm_groups(inside), inside, _EPSILON)
    self.Conv_0 = nn.Conv2d(inside, outside, 3, padding=1)
    if embedding is not None:
      self.Dense_0 = nn.Linear(embedding, outside)
    self.GroupNorm_1 = nn.GroupNorm(norm_groups(outside, inside), outside, _EPSILON)
    self.Conv_1 = nn.Conv2d(outside, outside, 3, padding=1)
    self.Conv_2 = nn.Identity()
    if inside != outside:
      self.Conv_2 = nn.Conv2d(inside, outside, 3, padding=1)

  def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
    h = self.Conv_0(nn.functional.silu(self.GroupNorm_0(x)))
    if embedding is not None:
      h = h + self.Dense_0(nn.functional.silu(embedding))[:, :, None, None]
    h = self.Conv_1(nn.functional.silu(self.GroupNorm_1(h)))
    return (self.Conv_2(x) + h) / math.sqrt(2.0)


class Nin(nn.Module):
  """A linear layer over channels, its weight (in, out); (n, c, h, w) -> (n, c, h w)."""

  def __init__(self, channels: int):
    super().__init__()
    self.W = nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels))
    self.b = nn.Parameter(torch.zeros(channels))

  def forward(self, x: Tensor) -> Tensor:
    return self.W.t() @ x.flatten(2) + self.b[:, None]


class Attention(nn.Module):
  """Attention of a map's pixels to their own or a context's, which passes the same norm."""

  def __init__(self, channels: int, head_channels: int | None):
    super().__init__()
    self.heads = 1
    if head_channels is not None and channels >= head_channels:
      self.heads = channels // head_channels
    self.GroupNorm_0 = nn.GroupNorm(norm_groups(channels), channels, _EPSILON)
    for i in range(4):
      self.add_module(f"NIN_{i}", Nin(channels))

  def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
    y = self.GroupNorm_0(x)
    source = y if context is None else self.GroupNorm_0(context)
    q, k, v = (
      nin(z).unflatten(1, (self.heads, -1))  # (n, heads, d, pixels)
      for nin, z in ((self.NIN_0, y), (self.NIN_1, source), (self.NIN_2, source))
    )
    weights = (q.transpose(-1, -2) @ k * q.shape[2] ** -0.5).softmax(dim=-1)
    y = (v @ weights.transpose(-1, -2)).flatten(1, 2)
    return (x + self.NIN_3(y).view_as(x)) / math.sqrt(2.0)


class SequenceEncoder(nn.Module):
  """The way down and the middle; `embedding` is the width of a timestep's code, if it has one."""

  def __init__(
    self,
    inside: int,
    channels: int,
    multipliers: Sequence[int],
    attention_rates: Sequence[int],
    head_channels: int | None,
    embedding: int | None = None,
  ):
    super().__init__()
    self.widths = [channels * multiplier for multiplier in multipliers]
    self.rates, self.head_channels = attention_rates, head_channels
    self.init_conv = nn.Conv2d(inside, channels, 3, padding=1)
    self.downs = nn.ModuleList()
    for level, (before, width) in enumerate(itertools.pairwise([channels, *self.widths])):
      halve: nn.Module = nn.Identity()
      if level + 1 < len(self.widths):
        halve = nn.Conv2d(width, width, 3, stride=2, padding=1)
      blocks = self._blocks([before, width], width, 2**level, embedding)
      self.downs.append(nn.ModuleList([*blocks, self._attention(width, 2**level), halve]))
    self.midblock1 = ResBlock(width, width, embedding)
    self.midblock2 = Attention(width, head_channels)
    self.midblock3 = ResBlock(width, width, embedding)

  def _attention(self, width: int, rate: int) -> nn.Module:
    return Attention(width, self.head_channels) if rate in self.rates else nn.Identity()

  def _blocks(
    self, insides: Sequence[int], width: int, rate: int, embedding: int | None
  ) -> list[nn.Module]:
    """Residual blocks with attention between them."""
    blocks: list[nn.Module] = []
    for inside in insides:
      blocks += [ResBlock(inside, width, embedding), self._attention(width, rate)]
    return blocks[:-1]

  def way_down(self, x: Tensor, embedding: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    h, skips = self.init_conv(x), []
    for res_0, attention_0, res_1, attention_1, halve in self.downs:
      h = attention_1(res_1(attention_0(res_0(h, embedding)), embedding))
      skips.append(h)
      h = halve(h)
    return self.midblock3(self.midblock2(self.midblock1(h, embedding)), embedding), skips

  def forward(self, fragment: Tensor) -> Tensor:
    """(n, F c, h, w) -> (n, C, h', w')."""
    return self.way_down(fragment, None)[0]


class UNet(SequenceEncoder):
  """Predicts v of every frame, (n, F c, h, w), from noisy frames, condition and context."""

  def __init__(
    self,
    fragment: int,
    condition: int,
    channels: int,
    multipliers: Sequence[int],
    attention_rates: Sequence[int],
    head_channels: int | None,
    mirrored: bool,
    cross_attention: bool = True,
  ):
    embedding = 4 * channels
    super().__init__(
      condition + fragment, channels, multipliers, attention_rates, head_channels, embedding
    )
    self.time_mlp = nn.Sequential(
      Sinusoid(channels), nn.Linear(channels, embedding), nn.GELU(), nn.Linear(embedding, embedding)
    )
    if cross_attention:
      self.midblock4 = Attention(self.widths[-1], head_channels)
    self.ups = nn.ModuleList()
    for step, level in enumerate(reversed(range(len(self.widths)))):
      width = (channels, *self.widths)[level]
      double: nn.Module = nn.Identity()
      if level:
        double = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
      rate = 2 ** (step if mirrored else level)
      blocks = self._blocks([2 * self.widths[level], width, width], width, rate, embedding)
      self.ups.append(nn.ModuleList([*blocks, double]))
    self.finial_conv = nn.Conv2d(channels, fragment, 3, padding=1)

  def forward(  # type: ignore[override]  # it shares modules with the encoder, not arguments
    self, x: Tensor, t: Tensor, condition: Tensor, context: Tensor | None = None
  ) -> Tensor:
    embedding = self.time_mlp(t)
    h, skips = self.way_down(torch.cat([condition, x], dim=1), embedding)
    if context is not None:
      h = self.midblock4(h, context)
    for res_0, attention_0, res_1, attention_1, res_2, double in self.ups:
      h = res_0(torch.cat([h, skips.pop()], dim=1), embedding)
      h = attention_1(res_1(attention_0(h), embedding))
      h = double(res_2(h, embedding))
    return self.finial_conv(nn.functional.silu(h))
