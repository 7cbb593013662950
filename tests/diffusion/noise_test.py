import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodiff_jax.diffusion.noise import SHARINGS, frame_keys, starting_noise

SHAPE = (8, 8, 4)


def clip_keys(clips: list[int]) -> jax.Array:
  """One key a frame, equal for the frames of a clip."""
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.array(clips))


def bits(keys: jax.Array) -> np.ndarray:
  return np.asarray(jax.random.key_data(keys))


def test_a_time_names_a_frame_whatever_the_rate() -> None:
  rounded = np.nextafter(np.float32(5 / 15), np.float32(1))
  same = jnp.array([5 / 15, 10 / 30, rounded], jnp.float32)
  keys = bits(frame_keys(clip_keys([0, 0, 0]), same))
  assert len(np.unique(keys, axis=0)) == 1


def test_frames_and_clips_have_keys_of_their_own() -> None:
  times = jnp.array([0.0, 1 / 3000, 2 / 3000, 1.0, 0.0])
  keys = bits(frame_keys(clip_keys([0, 0, 0, 0, 1]), times))
  assert len(np.unique(keys, axis=0)) == 5


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_frame_s_noise_does_not_depend_on_the_others(sharing: str) -> None:
  times = jnp.array([0.0, 0.25, 0.5, 0.75])
  keys = clip_keys([3, 3, 3, 3])
  together = starting_noise(keys, times, SHAPE, sharing)
  backwards = starting_noise(keys, times[::-1], SHAPE, sharing)[::-1]
  alone = starting_noise(keys[2:3], times[2:3], SHAPE, sharing)
  np.testing.assert_array_equal(together, backwards)
  np.testing.assert_array_equal(together[2:3], alone)


def test_shared_noise_is_one_a_clip() -> None:
  noise = starting_noise(clip_keys([0, 0, 1]), jnp.array([0.0, 1.0, 0.0]), SHAPE, "shared")
  np.testing.assert_array_equal(noise[0], noise[1])
  assert abs(np.corrcoef(noise[0].ravel(), noise[2].ravel())[0, 1]) < 0.2


def test_half_of_mixed_noise_is_the_shared_one() -> None:
  """And the other half is the individual one: switching sharings moves frames no further."""
  keys, times = clip_keys([0, 1]), jnp.array([0.0, 2.0**-20])
  individual, shared, mixed = (starting_noise(keys, times, SHAPE, kind) for kind in SHARINGS)
  np.testing.assert_allclose(mixed, np.sqrt(0.5) * (shared + individual), atol=1e-6)
  assert abs(np.corrcoef(shared.ravel(), individual.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(("sharing", "correlation"), [("individual", 0.0), ("mixed", 0.5)])
def test_variance_and_correlation_of_frames(sharing: str, correlation: float) -> None:
  times = jnp.array([0.0, 1.0])
  noise = np.asarray(starting_noise(clip_keys([0, 0]), times, (20_000,), sharing))
  np.testing.assert_allclose(noise.mean(1), 0.0, atol=0.03)
  np.testing.assert_allclose(np.cov(noise), [[1, correlation], [correlation, 1]], atol=0.04)


def test_unknown_sharing_lists_the_choices() -> None:
  with pytest.raises(ValueError, match=r"'same'.*individual, shared, mixed"):
    starting_noise(clip_keys([0]), jnp.zeros(1), SHAPE, "same")
