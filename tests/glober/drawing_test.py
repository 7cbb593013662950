"""Frames before they are rounded: alone or among others, in any batch, chunk or device count."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from tests.glober import tiny
from videodiff_jax.glober import drawing
from videodiff_jax.glober import pipeline as pipeline_module
from videodiff_jax.glober.drawing import Drawing, make_drawing
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.training import partitioning

pytestmark = pytest.mark.heavy

LABELS = np.array([0, 1, 0])
TIMES = np.array([0.0, 0.31, 0.5, 1.0])
GUIDED = 3.0


@pytest.fixture(scope="module", autouse=True)
def unrounded() -> Iterator[None]:
  """The pipeline leaves out its last step, to uint8; big arrays start at 256 elements."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pipeline_module, "to_uint8", lambda frames: frames)
    patch.setattr(partitioning, "_MIN_SHARDED_SIZE", 256)
    yield


def pipeline(scale: float, data: int = 1, fsdp: int = 1) -> Pipeline:
  mesh = partitioning.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
  params = jax.tree_util.tree_map_with_path(into_range, tiny.sampling_params())
  params = jax.device_put(params, partitioning.shardings(params, mesh))
  config = tiny.config()
  # As in the demo. At random weights, x_0 by way of epsilon would be 30 times too large.
  for process in ("decoder", "generator"):
    config.diffusion[process].prediction_type = "v_prediction"
  drawing = Pipeline(config, params, mesh)
  return drawing.with_settings(guidance_decoder=scale, guidance_generator=scale)


def into_range(path: tuple, x: np.ndarray) -> np.ndarray:
  """A quarter of the KL-VAE's last layer: frames in about [-1, 1] as real ones, not [-4, 4]."""
  name = jax.tree_util.keystr(path)
  return x / 4 if "decoder" in name and "conv_out" in name else x


@pytest.fixture(scope="module", params=[1.0, GUIDED], ids=["unguided", "guided"])
def scale(request) -> float:
  return request.param


@pytest.fixture(scope="module")
def pipe(scale) -> Pipeline:
  return pipeline(scale)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
  return np.random.default_rng(0).normal(size=(3, *tiny.FEATURE)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(pipe, features) -> np.ndarray:
  """(3, 4, h, w, c): 12 frames in chunks of 8."""
  return pipe.redraw(features, frame_times=TIMES, labels=LABELS).videos


@pytest.fixture
def assert_same(scale):
  def check(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype == np.float32
    limit = 1e-5 if scale == 1.0 else 1e-4 * np.abs(b).max()
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= limit

  return check


def test_frame_alone_equals_the_same_frame_among_others(pipe, features, whole, assert_same) -> None:
  alone = pipe.redraw(features[:1], frame_times=TIMES[2:3], labels=LABELS[:1]).videos
  assert_same(alone, whole[:1, 2:3])
  assert_same(pipe.redraw(features, frame_times=TIMES[::-1], labels=LABELS).videos, whole[:, ::-1])


def test_chunks_do_not_show(pipe, features, whole, assert_same) -> None:
  chunked = pipe.with_settings(frames_per_chunk=5)  # the last one is padded
  assert_same(chunked.redraw(features, frame_times=TIMES, labels=LABELS).videos, whole)


@pytest.mark.parametrize(
  ("rows", "frames_a_row", "calls"), [(100, 1, [40] * 3), (100, 2, [16] * 7), (3, 1, [8])]
)
def test_a_chunk_is_of_each_device(rows, frames_a_row, calls) -> None:
  """Five frames a device, however many devices; a few rows are no more than they need."""
  eight, sizes = pipeline(1.0, 2, 4).with_settings(frames_per_chunk=5), []

  def function(params: Any, numbers: Any) -> Any:
    sizes.append(len(numbers))
    return numbers

  every = np.arange(rows, dtype=np.float32)
  np.testing.assert_array_equal(eight._in_chunks("", function, (every,), frames_a_row), every)
  assert sizes == calls


def test_devices_do_not_show(scale, features, whole, assert_same) -> None:
  eight = pipeline(scale, 2, 4)
  assert_same(eight.redraw(features, frame_times=TIMES, labels=LABELS).videos, whole)


def test_devices_show_in_the_last_bit_at_most_where_each_draws_as_many_at_once(features) -> None:
  """Chunks of another size are added in another order, which rounding to pixels may show."""
  two, four = (
    pipeline(1.0, devices).with_settings(frames_per_chunk=2).redraw(features, frame_times=TIMES)
    for devices in (2, 4)
  )
  assert np.abs(four.videos - two.videos).max() <= np.finfo(np.float32).eps / 2


def test_new_clips_depend_on_nothing_but_their_number(pipe, scale, assert_same) -> None:
  """One clip, three clips, and three on eight devices: global features and frames."""
  three = pipe.generate(3, frame_times=TIMES, labels=LABELS, seed=5)
  one = pipe.generate(1, frame_times=TIMES, labels=LABELS[:1], seed=5)
  split = pipeline(scale, 2, 4).generate(3, frame_times=TIMES, labels=LABELS, seed=5)
  assert_same(one.global_features, three.global_features[:1])
  assert_same(one.videos, three.videos[:1])
  last = pipe.generate(1, frame_times=TIMES, labels=LABELS[2:], seed=5, first=2)
  assert_same(last.global_features, three.global_features[2:])
  assert_same(last.videos, three.videos[2:])
  assert_same(split.global_features, three.global_features)
  assert_same(split.videos, three.videos)


def test_everything_that_could_show_matters(pipe, scale, features, whole) -> None:
  """Without this the tests above would hold for networks that ignore what they are given."""

  def change(features, times, labels) -> float:
    drawn = pipe.redraw(features, frame_times=times, labels=labels)
    return float(np.abs(drawn.videos - whole).max())

  frames = whole.reshape(12, -1)
  distances = np.abs(frames[:, None] - frames).max(-1)
  assert distances[~np.eye(12, dtype=bool)].min() > 1e-2  # 12 different frames
  assert change(features[[1, 1, 1]], TIMES, LABELS) > 1e-2  # the control
  assert change(features, TIMES, 1 - LABELS) > 1e-2
  assert change(features, TIMES + np.array([0.02, 0, 0, -0.02]), LABELS) > 1e-2
  if scale == GUIDED:
    settings = {"frame_times": TIMES, "labels": LABELS}
    other = pipe.with_settings(guidance_decoder=1.0).redraw(features, **settings)
    assert np.abs(other.videos - whole).max() > 1e-2
    unguided = pipe.with_settings(guidance_generator=1.0).generate(3, seed=5, **settings)
    guided = pipe.generate(3, seed=5, **settings)
    assert np.abs(unguided.global_features - guided.global_features).max() > 1e-2


def test_guidance_by_text_never_drops_the_video(monkeypatch, features) -> None:
  """e(v, null) + s (e(v, c) - e(v, null)): a single step to x_0 is linear in the prediction."""

  def dropped(*_) -> None:
    raise AssertionError("the null video was asked for")

  monkeypatch.setattr(Drawing, "null_video", dropped)
  monkeypatch.setattr(drawing, "decode_frames", lambda kl_vae, params, statistics, z: z)
  params, config = tiny.sampling_params(), tiny.config()
  config.sample.decoder.num_steps = 1
  keys, times = jax.random.split(jax.random.key(0), 2), np.float32([0.2, 0.7])
  nothing = np.full(2, config.data.num_classes)

  def latents(condition: np.ndarray, form: str, scale: float) -> np.ndarray:
    config.sample.update(guidance_form=form, guidance_decoder=scale)
    drawn_by = make_drawing(config, tiny.networks())

    @jax.jit
    def draw(v: jax.Array, c: jax.Array) -> jax.Array:
      return drawn_by.draw_frames(params, v, times, c, keys)

    return np.asarray(draw(features[:2], condition))

  told, untold = (latents(c, "text", 1.0) for c in (LABELS[:2], nothing))
  assert np.abs(told - untold).max() > 1e-2
  expected = untold + GUIDED * (told - untold)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(latents(LABELS[:2], "text", GUIDED), expected, atol=1e-4 * scale)
  with pytest.raises(AssertionError, match="null video"):
    latents(LABELS[:2], "single", GUIDED)
