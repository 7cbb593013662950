"""One key, one use: what a clip's seed gives to the generator and to the decoder."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.glober import tiny
from videodiff_jax.diffusion import noise
from videodiff_jax.glober import drawing
from videodiff_jax.glober.conditions import Label

FEATURE, LATENT = (4, 4, 16), (8, 8, 4)  # as many numbers, in the proportions of the paper's
# Tick 1 and the other purposes' numbers: a frame time so early must not name another use's key.
TIMES = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 2.0**19]) / 2**20
CLIPS, STEPS = 3, 6


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[np.ndarray, jax.Array]]:
  """x_T and the sampler's keys of every call, in place of networks and samplers."""
  calls = []

  def sample(denoise, process, sampler, x_T, keys):
    calls.append((np.asarray(x_T), keys))
    return x_T

  monkeypatch.setattr(drawing, "sample", sample)
  monkeypatch.setattr(drawing, "make_sampler", lambda *_, **__: None)
  monkeypatch.setattr(drawing, "guide", lambda *_: None)
  monkeypatch.setattr(drawing, "decode_frames", lambda *arguments: arguments[-1])
  return calls


def networks() -> types.SimpleNamespace:
  silent = types.SimpleNamespace(apply=lambda *_, **__: jnp.zeros(1))
  return types.SimpleNamespace(
    generator=silent, autoencoder=silent, kl_vae=silent, condition=Label(2),
    generator_process=None, decoder_process=None, feature_shape=FEATURE, latent_shape=LATENT,
  )  # fmt: skip


def steps(keys: jax.Array) -> np.ndarray:
  """Bits of the keys by which a sampler adds noise, as `samplers.sample` makes them."""
  of_steps = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(STEPS)]
  return np.concatenate([jax.random.key_data(k) for k in of_steps])


@pytest.mark.parametrize("sharing", noise.SHARINGS)
def test_no_draw_of_a_clip_is_part_of_another(drawn, sharing) -> None:
  config = tiny.config()
  config.sample.noise = sharing
  params = {name: {} for name in ("generator", "autoencoder", "kl_vae", "latent_statistics")}
  params["feature_statistics"] = {"mean": 0.0, "std": 1.0}
  keys = jax.random.split(jax.random.key(0), CLIPS)
  label = jnp.zeros(CLIPS, jnp.int32)
  frames = np.repeat(np.arange(CLIPS), len(TIMES))
  with jax.disable_jit():
    drawn_by = drawing.make_drawing(config, networks())
    v = drawn_by.draw_features(params, label, keys)
    drawn_by.draw_frames(
      params, v[frames], jnp.tile(TIMES.astype(np.float32), CLIPS),
      label[frames], keys[frames],
    )  # fmt: skip
  (v_T, generator_keys), (x_T, decoder_keys) = drawn
  v_T, x_T = v_T.reshape(CLIPS, -1), x_T.reshape(CLIPS, len(TIMES), -1)
  for of_v in v_T:
    for of_frame in x_T.reshape(-1, x_T.shape[-1]):
      assert not np.isin(of_v[:8], of_frame).all()
      assert abs(np.corrcoef(of_v, of_frame)[0, 1]) < 0.3
  of_steps = np.concatenate([steps(generator_keys), steps(decoder_keys)])
  starting = {
    noise.Purpose.GLOBAL_FEATURE: keys,
    noise.Purpose.SHARED_NOISE: keys,
    noise.Purpose.FRAME_NOISE: keys[frames],
  }
  at = jnp.tile(TIMES.astype(np.float32), CLIPS)
  bits = [of_steps]
  for purpose, clip_keys in starting.items():
    of_purpose = noise.purpose_keys(clip_keys, purpose)
    if purpose == noise.Purpose.FRAME_NOISE:
      of_purpose = noise.frame_keys(of_purpose, at)
    bits.append(np.asarray(jax.random.key_data(of_purpose)))
  bits = np.concatenate(bits)
  assert len(np.unique(bits, axis=0)) == len(bits)


def test_purposes_are_told_apart() -> None:
  assert len({int(purpose) for purpose in noise.Purpose}) == len(noise.Purpose)
