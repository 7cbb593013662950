"""Both systems with networks that are linear, so that a command spends no time on tracing.

What a fault may lose is in the loop, the files and the readers, which are the real ones.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from tests.lgcvd.toy import Linear
from videodiff_jax.glober import networks as glober
from videodiff_jax.lgcvd import networks as lgcvd
from videodiff_jax.models.gaussian import Gaussian


def _pooled(x: jax.Array, rate: int) -> jax.Array:
  return nn.avg_pool(x, (rate, rate), (rate, rate))


class _Decoder(nn.Module):
  channels: int
  rate: int

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    self.sow("intermediates", "features", z)
    x = nn.Dense(self.channels, name="conv_out")(z)
    return x.repeat(self.rate, axis=1).repeat(self.rate, axis=2)


class FrameVAE(nn.Module):
  """Means of squares and a matrix, there and back."""

  channels: int
  latent: int
  rate: int

  def setup(self) -> None:
    self.moments = nn.Dense(2 * self.latent)
    self.decoder = _Decoder(self.channels, self.rate)

  def encode(self, frames: jax.Array) -> Gaussian:
    return Gaussian.create(*jnp.split(self.moments(_pooled(frames, self.rate)), 2, axis=-1))

  def decode(self, z: jax.Array) -> jax.Array:
    return self.decoder(z)

  def __call__(self, frames: jax.Array, key: jax.Array) -> jax.Array:
    return self.decode(self.encode(frames).sample(key))


class VideoEncoder(nn.Module):
  channels: int
  rate: int

  @nn.compact
  def __call__(self, keys: jax.Array) -> Gaussian:
    stacked = jnp.concatenate(jnp.unstack(keys, axis=1), axis=-1)
    moments = nn.Dense(2 * self.channels)(_pooled(stacked, self.rate))
    return Gaussian.create(*jnp.split(moments, 2, axis=-1))


class Control(nn.Module):
  @nn.compact
  def __call__(self, feature: jax.Array, times: jax.Array) -> dict[str, jax.Array]:
    return {"bias": nn.Dense(1)(feature).mean((1, 2)) + times[:, None]}


class Denoiser(nn.Module):
  """The UNet, the DiT and the discriminator: of all that they see, a matrix."""

  out_channels: int = 1
  context_dim: int = 8
  in_channels: int = 1
  num_classes: int = 0
  prompt_tokens: int = 0
  image_size: int = 0  # above 0: a pair of frames to a logit

  @nn.compact
  def __call__(self, x, t=None, tokens=None, control=None, labels=None) -> jax.Array:
    if self.image_size:
      return nn.Dense(1)(x.reshape(len(x), -1))[:, 0]
    bias = (t / 1000.0)[:, None] + nn.Dense(1)(tokens).mean(1)
    if control:
      bias += control["bias"]
    if labels is not None:
      bias += nn.Embed(self.num_classes + 1, 1)(labels)
    return nn.Dense(self.out_channels)(x + bias[:, None, None])


@contextlib.contextmanager
def slow_disk(seconds: float) -> Iterator[None]:
  """Every rename, every new folder and every flush of a file takes so long."""

  def slow(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
      time.sleep(seconds)
      return function(*args, **kwargs)

    return call

  names = ("fsync", "mkdir", "rename", "replace")
  with mock.patch.multiple(os, **{name: slow(getattr(os, name)) for name in names}):
    yield


def _rate(multipliers: tuple[int, ...]) -> int:
  return 2 ** (len(multipliers) - 1)


@contextlib.contextmanager
def installed() -> Iterator[None]:
  """Every network that is built inside it is one of these."""
  parts = {
    "KLVAE": lambda in_channels, embed_dim, multipliers, **_: FrameVAE(
      in_channels, embed_dim, _rate(multipliers)
    ),
    "VideoEncoder": lambda out_channels, multipliers, **_: VideoEncoder(
      out_channels, _rate(multipliers)
    ),
    "PairDiscriminator": lambda image_size, in_channels, **_: Denoiser(
      image_size=image_size, in_channels=in_channels
    ),
    "DiT": lambda in_channels, num_classes, context_dim, **_: Denoiser(
      in_channels, context_dim, in_channels, num_classes
    ),
  }
  with (
    mock.patch.multiple(glober, **parts),
    mock.patch.object(glober.frame_control, "FrameControl", lambda **_: Control()),
    mock.patch.object(
      glober.unet, "UNet",
      lambda out_channels, context_dim, **_: Denoiser(out_channels, context_dim),
    ),
    mock.patch.object(lgcvd, "ContextModel", lambda *_: Linear()),
  ):  # fmt: skip
    yield
