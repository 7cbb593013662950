"""The sets of clips that --mode=sweep draws of each system, and the real sets to compare them with.

GLOBER draws clips under the conditions of held-out ones and is scored against training clips, as
in its ladder. LGC-VD predicts from held-out clips and is scored against these, as by its protocol.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ml_collections
import numpy as np

from experiments.measures import digits
from experiments.sampling import glober_samples
from experiments.scoring import lgcvd_prediction, score_files
from experiments.setup import checks, frame_stores
from videodiff_jax import glober, lgcvd
from videodiff_jax.inputs import clips
from videodiff_jax.inputs.frame_store import FrameStore
from videodiff_jax.metrics import prediction
from videodiff_jax.training.checkpoints import fingerprint

P = TypeVar("P", glober.Pipeline, lgcvd.Pipeline)

_SEED = 0
_PARTS = 3  # parts of a set; each is timed


@dataclasses.dataclass(frozen=True)
class Bench(Generic[P]):
  """One system's sets.

  Attributes:
    pipeline: pipeline that draws.
    settings: settings that change a figure beside the sampler; the table's notes quote 'about',
      'part', 'device' and 'weights'.
    reference: () -> real clips (m, f, h, w, c) uint8.
    stages: names of the pipeline's settings that are samplers.
    starts: index of each part's first clip.
    draw: (pipeline, start) -> clips of that part (p, f, h, w, c) uint8; all parts have one size.
    labels: (n,) digits of the drawn clips if digits are read (config.evaluate.digits), else None.
    paired: whether each drawn clip continues the real one of its index, so that n = m.
  """

  pipeline: P
  settings: dict[str, Any]
  reference: Callable[[], np.ndarray]
  stages: tuple[str, ...]
  starts: range
  draw: Callable[[P, int], np.ndarray]
  labels: np.ndarray | None
  paired: bool

  def drawing(self, kind: str, grid: str, steps: int) -> P:
    """Returns the pipeline with this sampler.

    Raises:
      UserError: there is no such sampler.
    """
    settings = {"kind": kind, "grid": grid, "num_steps": steps}
    try:
      found = self.pipeline.with_settings(**dict.fromkeys(self.stages, settings))
    except ValueError as error:
      raise checks.UserError(f"config.sweep, {kind}, {grid}, {steps} steps: {error}") from error
    checks.check_config(ml_collections.ConfigDict(found.config.to_dict()))
    return found


def glober_bench(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, protocol: str | None
) -> Bench:
  if protocol:
    raise checks.UserError("--protocol is not supported by GLOBER's sweep; remove it.")
  pipeline = glober.Pipeline.from_workdir(workdir, **_sample(config))
  counts = (config or pipeline.config).evaluate
  sampler = frame_stores.clip_sampler(pipeline.config, "clip")
  stores = {
    split: frame_stores.open_store(pipeline.config, split, False) for split in ("train", "test")
  }
  part = max(counts.num_fake // _PARTS, 1)
  with checks.as_user_error():
    reference = clips.evaluation_places(stores["train"], sampler, counts.num_real, _SEED)
    held_out = clips.evaluation_places(stores["test"], sampler, part * _PARTS, _SEED)
    labels, prompts = glober_samples.conditions_of(pipeline, stores["test"], held_out.videos)
  conditioned = labels is not None or prompts is not None

  def draw(pipeline: glober.Pipeline, first: int) -> np.ndarray:
    of_labels, of_prompts = (
      None if of is None else of[first : first + part] for of in (labels, prompts)
    )
    return pipeline.generate(
      part, labels=of_labels, prompts=of_prompts, seed=_SEED, first=first
    ).videos

  about = (
    f"{len(held_out)} clips under the conditions of held-out ones, both stages in as many steps, "
    f"against {len(reference)} training clips."
  )
  settings = _settings(workdir, pipeline, stores["train"], about, part)
  return Bench(
    pipeline,
    settings | {"num_real": counts.num_real},
    lambda: reference.read(np.arange(len(reference))),
    ("decoder", "generator"),
    range(0, len(held_out), part),
    draw,
    # Clips drawn without a condition have no right digit.
    digits.labels_of(stores["test"], held_out.videos) if counts.digits and conditioned else None,
    paired=False,
  )


def lgcvd_bench(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None, protocol: str | None
) -> Bench:
  pipeline = lgcvd.Pipeline.from_workdir(workdir, **_sample(config))
  chosen = (config or pipeline.config).evaluate
  wanted = lgcvd_prediction.find_protocol(protocol or chosen.protocol)
  # One trajectory a video; the sampler is the point's.
  wanted = dataclasses.replace(wanted, trajectories=1, sampler=None, fvd_given="true")
  store = frame_stores.open_store(pipeline.config, wanted.split)
  lgcvd_prediction.check(wanted, store)
  pipeline = lgcvd_prediction.follow(pipeline, wanted)
  real, videos = lgcvd_prediction.held_out(pipeline, store, wanted)
  pipeline = pipeline.with_settings(
    videos_per_chunk=max(len(real) // _PARTS // pipeline.mesh.devices.size, 1)
  )
  part = pipeline.chunk_size(len(real))

  def draw(pipeline: lgcvd.Pipeline, first: int) -> np.ndarray:
    given = real[:, : wanted.past]
    chunks = pipeline.predict_chunks(
      given, num_frames=wanted.num_frames, seed=wanted.seed, begin=first
    )
    which, videos = next(chunks)
    return prediction.compared(videos, real[which[:, 0]], wanted)

  about = (
    f"{wanted.num_frames} frames predicted from {wanted.past} of {len(real)} {wanted.split} "
    f"videos, protocol {wanted.name!r}, against these."
  )
  settings = _settings(workdir, pipeline, store, about, part)
  return Bench(
    pipeline,
    settings | {"protocol": wanted.written(), "i3d_kernel_distance": "pairs left out"},
    lambda: real,
    ("sampler",),
    range(0, len(real), part),
    draw,
    digits.labels_of(store, videos) if chosen.digits else None,
    paired=True,
  )


def _sample(config: ml_collections.ConfigDict | None) -> dict[str, Any]:
  return {} if config is None else config.sample.to_dict()


def _settings(
  workdir: pathlib.Path,
  pipeline: glober.Pipeline | lgcvd.Pipeline,
  store: FrameStore,
  about: str,
  part: int,
) -> dict[str, Any]:
  settings = score_files.settings(workdir, pipeline.config, store)
  del settings["code"]  # each point has its own
  return settings | {
    "about": about,
    "part": part,
    "device": checks.local_devices(),
    "weights": fingerprint(pipeline.params),
    "seed": _SEED,
  }
