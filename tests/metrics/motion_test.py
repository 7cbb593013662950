import numpy as np
import pytest

from videodiff_jax.metrics import motion

START, VELOCITY = np.array([11.3, 14.0]), np.array([0.7, -0.45])


def blob(positions: np.ndarray, sigma: float | np.ndarray = 2.0, channels: int = 1) -> np.ndarray:
  """(f, 32, 32, c) uint8: a round spot at each (y, x)."""
  y, x = np.mgrid[:32, :32]
  at = np.asarray(positions)[:, :, None, None]
  square = (y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2
  light = 255 * np.exp(-square / (2 * np.broadcast_to(sigma, len(at))[:, None, None] ** 2))
  return np.repeat(np.rint(light).astype(np.uint8)[..., None], channels, axis=-1)


def line(times: np.ndarray, velocity: np.ndarray = VELOCITY) -> np.ndarray:
  return START + times[:, None] * velocity


@pytest.mark.parametrize("channels", [1, 3])
def test_centroid_is_the_blobs_position(channels: int):
  times = np.arange(10.0)
  videos = np.stack(
    [blob(line(times), channels=channels), blob(line(times + 2), channels=channels)]
  )
  found = motion.centroid(videos)
  assert found.shape == (2, 10, 2)
  np.testing.assert_allclose(found, [line(times), line(times + 2)], atol=0.02)


def test_centroid_of_a_black_frame_is_its_middle():
  np.testing.assert_array_equal(motion.centroid(np.zeros((1, 6, 9, 1), np.uint8)), [[2.5, 4.0]])


def test_centroid_refuses_floats():
  with pytest.raises(ValueError, match="float32"):
    motion.centroid(np.zeros((1, 6, 9, 1), np.float32))


def test_position_error_is_the_distance():
  times = np.arange(8.0)
  moved = blob(line(times) + np.array([3.0, 4.0]))
  assert motion.position_error(moved, blob(line(times))) == pytest.approx(5.0, abs=0.03)


def test_jitter_is_zero_on_a_line_and_known_on_a_zigzag():
  times = np.arange(9.0)
  assert motion.jitter(blob(line(times))) < 0.02
  zigzag = line(times) + np.array([0.0, 0.5]) * (-1.0) ** np.arange(9)[:, None]
  # +a, -a, +a has the second difference 4 a.
  assert motion.jitter(blob(zigzag)) == pytest.approx(2.0, abs=0.03)
  with pytest.raises(ValueError, match="3 frames"):
    motion.jitter(blob(line(np.arange(2.0))))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_slope_is_the_share_of_the_half_step_taken(share: float):
  times = np.arange(8.0)
  velocities = np.array([[0.7, -0.45], [-0.3, 0.8], [0.5, 0.5]])
  true = np.stack([blob(line(times, v)) for v in velocities])
  # An offset that all drawn frames share is no motion, and must not count.
  drawn = np.stack([blob(line(times, v) + 1.0) for v in velocities])
  half = np.stack([blob(line(times[:-1] + share / 2, v) + 1.3) for v in velocities])
  slope = motion.half_index_slope(*map(motion.centroid, (drawn, half, true)))
  assert slope == pytest.approx(share, abs=0.03)


def test_slope_needs_fitting_shapes_and_motion():
  path = line(np.arange(5.0))
  with pytest.raises(ValueError, match="f - 1 at halves"):
    motion.half_index_slope(path, path, path)
  still = line(np.full(5, 2.0))
  with pytest.raises(ValueError, match="do not move"):
    motion.half_index_slope(still, still[1:], still)


def test_flicker_sees_changing_looks_and_not_motion():
  times = np.arange(12.0)
  still = np.repeat(blob(line(times[:1])), 12, axis=0)
  assert motion.identity_flicker(still) == pytest.approx(0.0, abs=1e-12)
  moving = motion.identity_flicker(blob(line(times)))
  breathing = motion.identity_flicker(blob(line(times), sigma=2.0 + 0.5 * (-1.0) ** np.arange(12)))
  assert moving < 0.005 < 0.03 < breathing


def test_flicker_of_a_blinking_spot_is_the_std_of_its_brightness():
  bright = np.zeros((4, 32, 32, 1), np.uint8)
  bright[:, 10, 20] = [[255], [51], [255], [51]]
  # One pixel of the 16 x 16 crop, shifted by (1/2, 1/2): four pixels of a quarter each.
  assert motion.identity_flicker(bright) == pytest.approx(0.4 / 16**2)


def test_flicker_at_the_border_crops_black():
  corner = blob(np.array([[0.0, 0.0], [31.0, 31.0]]))
  assert np.isfinite(motion.identity_flicker(corner))


def test_crop_is_centred_between_pixels_too():
  frame = np.zeros((12, 12, 1), np.uint8)
  frame[5, 6] = 200
  crop = motion.crop(frame, np.array([5.0, 6.0]), 5)[..., 0]
  assert crop[2, 2] == 200 and crop.sum() == 200
  crop = motion.crop(frame, np.array([5.25, 6.0]), 5)[..., 0]
  np.testing.assert_allclose(crop[1:4, 2], [50, 150, 0])
