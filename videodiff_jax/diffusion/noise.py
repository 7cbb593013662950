"""A clip's random numbers: a key for each purpose, and the starting noise of its frames.

Starting noise is individual (GLOBER), shared by the clip's frames, or mixed.
"""

import enum

import chex
import jax
import jax.numpy as jnp

from videodiff_jax.choices import check_choice

SHARINGS = ("individual", "shared", "mixed")

# Frame times are rounded to 2^-20. That is far finer than any frame rate needs and coarser than
# float32's rounding, so that 5/15 and 10/30 name the same frame.
_TIME_RESOLUTION = 2**20


class Purpose(enum.IntEnum):
  """The number folded into a clip's key for each purpose, so that no key is used twice."""

  GLOBAL_FEATURE = 1  # x_T of the generator
  GENERATOR_STEPS = 2  # noise that the generator's sampler adds
  SHARED_NOISE = 3  # x_T shared by the clip's frames
  FRAME_NOISE = 4  # x_T of single frames
  DECODER_STEPS = 5  # noise that the decoder's sampler adds


def purpose_keys(clip_keys: jax.Array, purpose: Purpose) -> jax.Array:
  """Derives from clips' keys (n,) the keys (n,) for one purpose."""
  return jax.vmap(jax.random.fold_in, (0, None))(clip_keys, int(purpose))


def frame_keys(clip_keys: jax.Array, frame_times: jax.Array) -> jax.Array:
  """Derives one PRNG key per frame (n,) from its clip's key and its time only.

  So a frame is the same picture whether it is drawn alone or with others, in any order.

  Args:
    clip_keys: (n,) typed PRNG keys, for one purpose.
    frame_times: (n,) tau in [0, 1].
  """
  chex.assert_rank(frame_times, 1)
  chex.assert_equal_shape([clip_keys, frame_times])
  tick = jnp.round(frame_times * _TIME_RESOLUTION).astype(jnp.uint32)
  return jax.vmap(jax.random.fold_in)(clip_keys, tick)


def starting_noise(
  clip_keys: jax.Array,
  frame_times: jax.Array,
  shape: tuple[int, ...],
  sharing: str = "individual",
) -> jax.Array:
  """Draws x_T of each frame, standard normal for any sharing.

  Args:
    clip_keys: (n,) typed PRNG keys, equal for the frames of one clip.
    frame_times: (n,) tau in [0, 1].
    shape: the shape of one frame's latent.
    sharing: 'individual' (the paper: independent frames), 'shared' (one x_T per clip, which reduces
      flicker) or 'mixed' (half the variance from each).

  Returns:
    (n, *shape), float32.

  Raises:
    ValueError: `sharing` is unknown.
  """
  check_choice("noise sharing", sharing, SHARINGS)
  draw = jax.vmap(lambda key: jax.random.normal(key, shape))
  individual = frame_keys(purpose_keys(clip_keys, Purpose.FRAME_NOISE), frame_times)
  if sharing == "individual":
    return draw(individual)
  shared = draw(purpose_keys(clip_keys, Purpose.SHARED_NOISE))
  if sharing == "shared":
    return shared
  return jnp.sqrt(0.5) * (shared + draw(individual))


def numbered_noise(numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws reproducible standard normal noise (n, *shape), each row from its number (n,) only."""
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), numbers)
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
