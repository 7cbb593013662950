"""Draws the pictures of docs/glober.md and docs/lgcvd.md from the weights that ship.

  python -m docs.make.pictures

About two minutes on two CPU cores. Needs the extra `demo`, whose digits are the given videos.
"""

import pathlib
import tempfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import videodiff_jax
from data.sets import marching_digits, moving_digits
from videodiff_jax.diffusion.guidance import guide
from videodiff_jax.diffusion.samplers import Denoiser, Sampler, make_sampler
from videodiff_jax.glober import generator
from videodiff_jax.glober.autoencoder import decode_frames
from videodiff_jax.glober.pipeline import Pipeline as Glober
from videodiff_jax.inputs.clips import keyframe_indices
from videodiff_jax.inputs.video_io import write_gif
from videodiff_jax.lgcvd.conditioning import (
  EMPTY,
  empty_fragment,
  frames_at,
  local_condition,
  put_frames,
  split_frames,
  task_positions,
)
from videodiff_jax.lgcvd.pipeline import Pipeline as Lgcvd
from videodiff_jax.models.pixels import to_float, to_uint8

PICTURES = pathlib.Path(__file__).resolve().parents[1] / "pictures"
_GREY, _GIVEN, _BETWEEN = (190, 190, 190), (230, 81, 0), (25, 118, 210)
_SEED, _CLASS = 7, 3
_BOUNCING, _MARCHING = 2, 17  # numbers of the test digits that are shown


class Sheet:
  """A white page on which frames and words are placed."""

  def __init__(self, width: int, height: int):
    self.image = Image.new("RGB", (width, height), "white")
    self.draw = ImageDraw.Draw(self.image)

  def text(self, x: float, y: float, words: str, anchor: str = "lm", size: int = 17) -> None:
    self.draw.text((x, y), words, "black", ImageFont.load_default(size=size), anchor)

  def frame(
    self, x: int, y: int, picture: np.ndarray, side: int, colour: Sequence[int] = _GREY
  ) -> None:
    """uint8 (h, w, 1 or 3) with an edge; a colour that is not grey gives a thick one."""
    colours = np.broadcast_to(picture, (*picture.shape[:2], 3))
    shown = Image.fromarray(np.ascontiguousarray(colours)).resize((side, side), Image.NEAREST)
    self.image.paste(shown, (x, y))
    thick = 1 if tuple(colour) == _GREY else 3
    self.draw.rectangle((x - thick, y - thick, x + side, y + side), None, tuple(colour), thick)

  def save(self, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    self.image.quantize(256).save(PICTURES / name, optimize=True)


def heat(values: np.ndarray) -> np.ndarray:
  """(h, w) -> uint8 (h, w, 3): blue below zero, white at zero, red above."""
  scaled = np.clip(values / 2.5, -1, 1)[..., None]
  end = np.where(scaled < 0, (33, 102, 172), (178, 24, 43))
  return (255 + np.abs(scaled) * (end - 255.0)).astype(np.uint8)


def trajectory(
  denoise: Denoiser, process: object, sampler: Sampler, x_T: jax.Array, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Every x_t of a reverse process, noisiest first, x_0 last; and each step's estimate of x_0."""

  @jax.jit
  def step(i: jax.Array, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    t = jnp.full(x.shape[:1], jnp.asarray(sampler.timesteps)[i])
    prediction, _ = denoise(x, t, None)
    row = {name: jnp.asarray(table)[i] for name, table in sampler.tables.items()}
    x_0 = process.x0_at(row["alpha"], row["sigma"], x, prediction)
    return sampler.step(process, i, sampler.start(x), prediction, noise).x, x_0

  noisy, estimates = [np.asarray(x_T)], []
  for i in range(sampler.num_steps):
    noise = jax.random.normal(jax.random.key(seed * 1000 + i), x_T.shape)
    x_t, x_0 = step(jnp.int32(i), jnp.asarray(noisy[-1]), noise)
    noisy.append(np.asarray(x_t))
    estimates.append(np.asarray(x_0))
  return noisy, estimates


def bouncing_clip(number: int) -> np.ndarray:
  """(16, 32, 32, 1) uint8 of a digit that no training has seen."""
  corners = moving_digits.bounce(np.random.default_rng(11), 32, 16)
  return moving_digits.render(moving_digits.digits("test")[0][number], corners, 32)[..., None]


def marching_clips(numbers: Sequence[int]) -> np.ndarray:
  """(n, 30, 32, 32, 1) uint8 of digits that no training has seen."""
  options = moving_digits.MovingDigitsOptions(num_frames=30)
  with tempfile.TemporaryDirectory() as folder:
    builder = marching_digits.MarchingDigits(data_dir=f"{folder}/store", options=options)
    videos = [
      moving_digits.render(
        moving_digits.digits("test")[0][i], builder.path(np.random.default_rng(i)), 32
      )
      for i in numbers
    ]
  return np.stack(videos)[..., None]


def glober_samples(pipeline: Glober) -> None:
  drawn = pipeline.generate(num_videos=10, labels=np.arange(10), seed=1).videos
  write_gif(PICTURES / "glober_samples.gif", np.concatenate(drawn, axis=2), fps=8, upscale=3)


def glober_flow(pipeline: Glober, clip: np.ndarray, label: int) -> None:
  """Keyframes -> global feature -> frames at any time."""
  side, step, left = 84, 92, 190
  feature = pipeline.encode(clip[None])
  shown = (0, 4, 8, 11, 14, 18, 22, 25, 28, 30)  # of 30 halves of the time between two frames
  times = [i / 30 for i in shown]
  frames = pipeline.redraw(feature, frame_times=times, labels=[label]).videos[0]
  sheet = Sheet(left + len(shown) * step, 3 * 126)
  keys = keyframe_indices(pipeline.config.data.num_frames, pipeline.config.data.num_keyframes)
  for i, words in enumerate(("K = 4 keyframes", "global feature v", "frames at any time")):
    sheet.text(8, i * 126 + 42, words, size=19)
  for i, index in enumerate(np.asarray(keys)):
    sheet.frame(left + i * step, 6, clip[index], side)
    sheet.text(left + i * step + side / 2, side + 18, f"frame {index}", "mm")
  for i in range(feature.shape[-1]):
    sheet.frame(left + i * step, 132, heat(feature[0, ..., i]), side)
    sheet.text(left + i * step + side / 2, 132 + side + 12, f"channel {i}", "mm")
  for i, (index, frame) in enumerate(zip(shown, frames)):
    between = index % 2
    sheet.frame(left + i * step, 258, frame, side, _BETWEEN if between else _GREY)
    sheet.text(left + i * step + side / 2, 258 + side + 14, f"time {index / 30:.2f}", "mm")
  sheet.save("glober_flow.png")


def glober_any_time(pipeline: Glober, clip: np.ndarray, label: int) -> None:
  """One feature at 16 times, each held, beside 61."""
  feature = pipeline.encode(clip[None])
  every = pipeline.redraw(feature, frame_times=np.linspace(0, 1, 61), labels=[label]).videos[0]
  held = every[np.arange(61) // 4 * 4]
  bar = np.full((61, 32, 2, 1), 255, np.uint8)
  write_gif(
    PICTURES / "glober_any_time.gif", np.concatenate([held, bar, every], axis=2), 20, upscale=6
  )


def glober_denoising(pipeline: Glober, clip: np.ndarray, label: int) -> None:
  """A frame's latent from noise, and what the decoder expects of it."""
  networks, params = pipeline.networks, pipeline.params
  model, weights = networks.autoencoder, params["autoencoder"]
  v = jnp.asarray(pipeline.encode(clip[None]))
  given = model.apply(
    weights, v, jnp.array([0.5]), pipeline.conditions(1, labels=[label]), method="frame_conditions"
  )

  def denoise(x: jax.Array, t: jax.Array, carry: object) -> tuple[jax.Array, object]:
    return model.apply(weights, x, t, given, method="denoise"), carry

  sampler = make_sampler(networks.decoder_process, "ddim", 50)
  x_T = jax.random.normal(jax.random.key(_SEED), (1, *networks.latent_shape))
  noisy, estimates = trajectory(denoise, networks.decoder_process, sampler, x_T)

  @jax.jit
  def pixels(z: jax.Array) -> jax.Array:
    return to_uint8(
      decode_frames(networks.kl_vae, params["kl_vae"], params["latent_statistics"], z)
    )

  side, step, left = 92, 100, 160
  shown = (0, 4, 8, 14, 20, 28, 36, 44, 49)
  sheet = Sheet(left + len(shown) * step, 2 * step + 26)
  sheet.text(8, 50, "noisy latent z_t", size=19)
  sheet.text(8, 50 + step, "estimate of z_0", size=19)
  for i, at in enumerate(shown):
    sheet.frame(left + i * step, 6, np.asarray(pixels(noisy[at]))[0], side)
    sheet.frame(left + i * step, 6 + step, np.asarray(pixels(estimates[at]))[0], side)
    words = f"t = {sampler.timesteps[at]:.0f}"
    sheet.text(left + i * step + side / 2, 2 * step + 12, words, "mm")
  sheet.save("glober_denoising.png")


def glober_generator(pipeline: Glober) -> None:
  """A global feature from noise, and the clip of it."""
  networks, params, settings = pipeline.networks, pipeline.params, pipeline.config.sample
  weights = params["generator"]

  def denoise(
    x: jax.Array, t: jax.Array, given: jax.Array, carry: object
  ) -> tuple[jax.Array, object]:
    return generator.denoise(networks, weights, x, t, given), carry

  condition = jnp.asarray(pipeline.conditions(1, labels=[_CLASS]))
  null = jnp.broadcast_to(networks.condition.null(params), condition.shape)
  guided = guide(denoise, condition, null, settings.guidance_generator)
  sampler = make_sampler(networks.generator_process, "ddim", 50)
  x_T = jax.random.normal(jax.random.key(_SEED), (1, *networks.feature_shape))
  noisy, _ = trajectory(guided, networks.generator_process, sampler, x_T)
  statistics = params["feature_statistics"]
  feature = noisy[-1] * np.asarray(statistics["std"]) + np.asarray(statistics["mean"])
  times = np.linspace(0, 1, 6)
  frames = pipeline.redraw(feature, frame_times=times, labels=[_CLASS]).videos[0]
  side, step, left = 84, 92, 110
  shown = (0, 10, 20, 30, 40, 50)
  sheet = Sheet(left + 6 * step + 40 + 2 * step, 4 * step + 26)
  for row in range(4):
    sheet.text(8, row * step + 46, f"channel {row}")
    for i, at in enumerate(shown):
      sheet.frame(left + i * step, 6 + row * step, heat(noisy[at][0, ..., row]), side)
  for i, at in enumerate(shown):
    words = "v" if at == 50 else f"t = {sampler.timesteps[at]:.0f}"
    sheet.text(left + i * step + side / 2, 4 * step + 12, words, "mm")
  for i, frame in enumerate(frames):
    x, y = left + 6 * step + 40 + i % 2 * step, 6 + (i // 2) * (step + 24)
    sheet.frame(x, y, frame, side)
    sheet.text(x + side / 2, y + side + 12, f"time {times[i]:.1f}", "mm")
  sheet.save("glober_generator.png")


def lgcvd_prediction(pipeline: Lgcvd) -> None:
  """Two rows of a GIF: true digits, and what was predicted from their first two frames."""
  true = marching_clips(range(10, 18))
  drawn = pipeline.predict(true[:, :2], num_frames=28, seed=0).videos.reshape(true.shape)
  rows = [np.concatenate(true, axis=2), np.concatenate(drawn, axis=2)]
  write_gif(PICTURES / "lgcvd_prediction.gif", np.concatenate(rows, axis=1), fps=8, upscale=3)


def lgcvd_fragments(pipeline: Lgcvd, clip: np.ndarray) -> None:
  """A predicted video as the fragments that it was drawn in."""
  total, rollout = 20, pipeline.rollout
  drawn = pipeline.predict(clip[None, :2], num_frames=total - 2).videos.reshape(total, 32, 32, 1)
  side, step, left = 44, 48, 215
  windows = rollout.windows(total)
  sheet = Sheet(left + total * step + 4, (len(windows) + 2) * 66)
  rows = [("true video", 0, total, (0, 1), clip)]
  rows += [
    (f"fragment {i + 1}", w.start, w.start + rollout.num_frames, (0, 1), drawn)
    for i, w in enumerate(windows)
  ]
  rows.append(("predicted video", 0, total, (0, 1), drawn))
  for y, (words, start, end, given, video) in enumerate(rows):
    top = y * 66 + 6
    sheet.text(8, top + 14, words, size=19)
    if words.startswith("fragment"):
      below = "encoder reads U" if y == 1 else f"encoder reads fragment {y - 1}"
      sheet.text(8, top + 34, below, size=15)
    for at in range(start, min(end, total)):
      colour = _GIVEN if at - start in given else _GREY
      sheet.frame(left + at * step, top, video[at], side, colour)
  for at in range(total):
    sheet.text(left + at * step + side / 2, len(rows) * 66 - 8, str(at), "mm", 15)
  sheet.save("lgcvd_fragments.png")


def lgcvd_denoising(pipeline: Lgcvd, clip: np.ndarray) -> None:
  """A fragment's frames together from noise, beside what the network expects."""
  rollout, params = pipeline.rollout, pipeline.params
  num_frames, shape = rollout.num_frames, (1, 32, 32, rollout.num_frames)
  positions = jnp.array([[0, 1]])
  frames = jnp.asarray(to_float(clip[None, :2]))
  context = rollout.model.apply(params, empty_fragment(shape), method="encode")
  condition = local_condition(frames, positions, num_frames)

  def denoise(x: jax.Array, t: jax.Array, carry: object) -> tuple[jax.Array, object]:
    return rollout.model.apply(params, x, t, condition, context, method="denoise"), carry

  sampler = rollout.sampler
  x_T = jax.random.normal(jax.random.key(_SEED), shape)
  noisy, estimates = trajectory(denoise, rollout.process, sampler, x_T)
  side, step, left = 54, 57, 90
  shown = [round(i * (sampler.num_steps - 1) / 6) for i in range(7)]
  width = num_frames * step
  sheet = Sheet(left + 2 * width + 24, 26 + (len(shown) + 1) * step)
  sheet.text(left + width / 2, 12, "fragment x_t", "mm", 19)
  sheet.text(left + 24 + 1.5 * width, 12, "estimate of x_0", "mm", 19)
  for y, at in enumerate(shown):
    top = 26 + y * step
    sheet.text(8, top + side / 2, f"t = {sampler.timesteps[at]:.0f}")
    for part, x in enumerate((noisy[at], estimates[at])):
      pictures = np.asarray(to_uint8(split_frames(jnp.asarray(x), num_frames)))[0]
      for i, picture in enumerate(pictures):
        sheet.frame(left + part * (width + 24) + i * step, top, picture, side)
  last = put_frames(split_frames(jnp.asarray(noisy[-1]), num_frames), frames, positions)
  top = 26 + len(shown) * step
  sheet.text(8, top + side / 2, "drawn")
  for i, picture in enumerate(np.asarray(to_uint8(last))[0]):
    sheet.frame(left + i * step, top, picture, side, _GIVEN if i < 2 else _GREY)
  sheet.save("lgcvd_denoising.png")


def lgcvd_tasks(pipeline: Lgcvd, clip: np.ndarray) -> None:
  """What each task gives, and the mask that stands for its place."""
  num_frames, slots = pipeline.rollout.num_frames, pipeline.rollout.slots
  names = ("prediction", "live_photo", "generation", "interpolation")
  tasks = {name: task_positions(name, num_frames, slots) for name in names}
  tasks |= {"infilling": (2, 7), "random": (1, 4)}
  fragment = jnp.asarray(to_float(clip[None, :num_frames]))
  side, step, left = 72, 78, 140
  sheet = Sheet(left + num_frames * step, len(tasks) * (step + 20) + 4)
  nothing = np.full((1, 1, 3), 225, np.uint8)
  for y, (name, positions) in enumerate(tasks.items()):
    at = jnp.array([positions])
    given = local_condition(frames_at(fragment, at), at, num_frames)
    given = np.asarray(given).reshape(32, 32, slots, 2)
    top = 6 + y * (step + 20)
    sheet.text(8, top + side / 2, name, size=19)
    for j in range(num_frames):
      sheet.frame(left + j * step, top, nothing, side)
    for slot, place in enumerate(positions):
      if place != EMPTY:
        picture = np.asarray(to_uint8(jnp.asarray(given[..., slot, :1])))
        sheet.frame(left + place * step, top, picture, side, _GIVEN)
        words = f"m = {given[0, 0, slot, 1]:.2f}"
        sheet.text(left + place * step + side / 2, top + side + 12, words, "mm")
  sheet.save("lgcvd_tasks.png")


def main() -> None:
  """Draws all of them."""
  PICTURES.mkdir(exist_ok=True)
  clip, label = bouncing_clip(_BOUNCING), moving_digits.digits("test")[1][_BOUNCING]
  pipeline = videodiff_jax.load("glober_digits")
  glober_samples(pipeline)
  glober_flow(pipeline, clip, label)
  glober_any_time(pipeline, clip, label)
  glober_denoising(pipeline, clip, label)
  glober_generator(pipeline)
  pipeline, (clip,) = videodiff_jax.load("lgcvd_digits"), marching_clips([_MARCHING])
  lgcvd_prediction(pipeline)
  lgcvd_fragments(pipeline, clip)
  lgcvd_denoising(pipeline, clip)
  lgcvd_tasks(pipeline, clip)


if __name__ == "__main__":
  main()
