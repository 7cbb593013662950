"""Do clips show and do what their prompts say? For GLOBER trained on `captioned_digits`."""

from typing import Any

import numpy as np

from data.sets.captioned_digits import DIRECTIONS, caption, direction
from videodiff_jax.glober.pipeline import Pipeline
from videodiff_jax.metrics import motion
from videodiff_jax.metrics.digit_reader import DigitReader

_PROMPTS = 64
_DEFAULT_SCALE = 3.0  # compared with 1 if the workdir itself samples unguided
# The digit that each prompt names.
_PROMPTED_DIGITS = 3 * np.arange(_PROMPTS) % 10
_TOLD_DIRECTIONS = np.arange(_PROMPTS) % len(DIRECTIONS)
_STANDS_STILL = 0.1  # pixels per frame; slower clips count as still


def prompts() -> list[str]:
  """Returns 64 prompts that name a digit and a direction; neighbours in a strip differ."""
  return [caption(int(digit), int(way)) for digit, way in zip(_PROMPTED_DIGITS, _TOLD_DIRECTIONS)]


def score(
  pipeline: Pipeline, seed: int, reader: DigitReader | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Scores clips of these prompts, with and without guidance of the generator, from the same noise.

  Returns:
    The scores, and the first clips of each set by what to call them on a strip. The scores are, for
    the sets 'guided' and 'unguided': the scale; 'as_told', the number of clips whose centre of
    mass moves in the prompted direction (nearer to it than to the other seven; by chance one in
    eight); 'same_side', the number within 90 degrees of it (by chance one in two). With a reader
    also 'digit_read', the number that read as the prompted digit, and 'both', the number that do
    that and move as prompted.
  """
  scale = pipeline.config.sample.guidance_generator
  scales = {"guided": _DEFAULT_SCALE if scale == 1.0 else scale, "unguided": 1.0}
  scores: dict[str, Any] = {"prompts": _PROMPTS}
  rows = {}
  for name, scale in scales.items():
    drawing = pipeline.with_settings(guidance_generator=scale)
    drawn = drawing.generate(_PROMPTS, seed=seed, prompts=prompts())
    readings = None if reader is None else reader.read(drawn.videos).clips == _PROMPTED_DIGITS
    scores[name] = {"scale": scale, **count(drawn.videos, _TOLD_DIRECTIONS, readings)}
    for i, video in enumerate(drawn.videos[: len(DIRECTIONS)]):
      rows[f"{drawn.prompts[i]} ({name})"] = video
  return scores, dict(sorted(rows.items()))


def count(
  videos: np.ndarray, prompted: np.ndarray, read: np.ndarray | None = None
) -> dict[str, int]:
  """Counts the clips that move in the direction they were prompted with.

  Args:
    videos: uint8 (n, f, h, w, c).
    prompted: (n,) indices of `DIRECTIONS`.
    read: (n,) bool, whether their digits read as prompted; None if digits are not read.
  """
  step = motion.velocity(videos)[..., ::-1]
  moves = np.linalg.norm(step, axis=-1) >= _STANDS_STILL
  angles = prompted * np.pi / 4
  along = step[:, 0] * np.cos(angles) + step[:, 1] * np.sin(angles)
  as_told = moves & (direction(step) == prompted)
  counts = {"as_told": as_told, "same_side": moves & (along > 0)}
  if read is not None:
    counts |= {"digit_read": read, "both": read & as_told}
  return {name: int(which.sum()) for name, which in counts.items()}
