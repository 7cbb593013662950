"""Starting noise of a clip's frames: individual (GLOBER), shared by the clip, or mixed."""

import jax
import jax.numpy as jnp

SHARINGS = ("individual", "shared", "mixed")

# Frame times are told apart to 2^-20, far finer than any frame rate asks and coarser than the
# rounding of float32, so that 5/15 and 10/30 name the same frame.
_TIME_RESOLUTION = 2**20


def frame_keys(clip_keys: jax.Array, frame_times: jax.Array) -> jax.Array:
  """One PRNG key a frame, a function of its clip's key and its time alone.

  A frame is therefore the same picture whether drawn alone or among others, in any order.

  Args:
    clip_keys: (n,) typed PRNG keys.
    frame_times: (n,) tau in [0, 1].
  """
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
  if sharing == "individual":
    return draw(frame_keys(clip_keys, frame_times))
  shared = draw(clip_keys)
  if sharing == "shared":
    return shared
  return jnp.sqrt(0.5) * (shared + draw(frame_keys(clip_keys, frame_times)))
