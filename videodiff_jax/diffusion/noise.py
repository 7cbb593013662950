"""What a clip is drawn from: a key for each use, and the starting noise of its frames.

Starting noise is individual (GLOBER), shared by the clip's frames, or mixed.
"""

import enum

import chex
import jax
import jax.numpy as jnp

SHARINGS = ("individual", "shared", "mixed")

# Frame times are told apart to 2^-20, far finer than any frame rate asks and coarser than the
# rounding of float32, so that 5/15 and 10/30 name the same frame.
_TIME_RESOLUTION = 2**20


class Purpose(enum.IntEnum):
  """What a clip's key is folded with before anything is drawn from it: one key, one use."""

  GLOBAL_FEATURE = 1  # x_T of the generator
  GENERATOR_STEPS = 2  # what the generator's sampler adds
  SHARED_NOISE = 3  # x_T that the clip's frames have in common
  FRAME_NOISE = 4  # x_T of single frames
  DECODER_STEPS = 5  # what the sampler of the frames adds


def purpose_keys(clip_keys: jax.Array, purpose: Purpose) -> jax.Array:
  """(n,) keys of clips -> (n,) keys for this use alone."""
  return jax.vmap(jax.random.fold_in, (0, None))(clip_keys, int(purpose))


def frame_keys(clip_keys: jax.Array, frame_times: jax.Array) -> jax.Array:
  """One PRNG key a frame, a function of its clip's key and its time alone.

  A frame is therefore the same picture whether drawn alone or among others, in any order.

  Args:
    clip_keys: (n,) typed PRNG keys, of one purpose.
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
  """x_T of each frame, standard normal whatever the sharing. Returns (n, *shape), float32.

  Args:
    clip_keys: (n,) typed PRNG keys, equal for the frames of one clip.
    frame_times: (n,) tau.
    shape: of one frame's latent.
    sharing: 'individual' (the paper: independent frames), 'shared' (one x_T a clip, which calms
      the flicker between frames) or 'mixed' (half the variance each).
  """
  if sharing not in SHARINGS:
    raise ValueError(f"Unknown noise sharing {sharing!r}. Choose one of: {', '.join(SHARINGS)}.")
  draw = jax.vmap(lambda key: jax.random.normal(key, shape))
  individual = frame_keys(purpose_keys(clip_keys, Purpose.FRAME_NOISE), frame_times)
  if sharing == "individual":
    return draw(individual)
  shared = draw(purpose_keys(clip_keys, Purpose.SHARED_NOISE))
  if sharing == "shared":
    return shared
  return jnp.sqrt(0.5) * (shared + draw(individual))


def numbered_noise(numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Standard normal (n, *shape) that always is the same: each of its number (n,) alone."""
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), numbers)
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
