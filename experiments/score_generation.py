"""LGC-VD's --mode=evaluate --protocol=NAME of generated videos, into evaluations/.

What is measured, and on what, says a protocol of videodiff_jax/metrics/clip_protocols.py.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np

from experiments import checks, score_clips, score_files, set_scores, train
from videodiff_jax.lgcvd.pipeline import Pipeline
from videodiff_jax.metrics.clip_protocols import ClipProtocol


def evaluate(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict | None,
  name: str | ClipProtocol,
  reuse: bool = False,
) -> dict[str, Any]:
  """Scores videos drawn from nothing against real ones; arguments as `score_clips.evaluate`.

  Raises:
    UserError: a protocol that this system, data set or machine cannot do.
  """
  settings = {} if config is None else config.sample.to_dict()
  pipeline = Pipeline.from_workdir(workdir, **settings)
  protocol = score_clips.find_protocol(name) if isinstance(name, str) else name
  if protocol.drawn != "generated" or protocol.jpeg_quality is not None:
    raise checks.UserError(f"Protocol {protocol.name!r} is of GLOBER's clips.")
  set_scores.locate()  # told now, not after the drawing
  config = pipeline.config
  stores = [train.open_store(config, split) for split in protocol.splits]
  made_with = score_files.settings(workdir, config, stores[0])
  out = workdir / "evaluations"
  if reuse and (record := score_files.find(out, protocol, made_with)):
    return record
  sampler = train.clip_sampler(config, "clip", num_frames=protocol.num_frames)
  places = score_clips.choose(stores, sampler, protocol)
  first: list[np.ndarray] = []

  def drawn() -> Iterator[np.ndarray]:
    for number, begin in enumerate(range(0, protocol.num_drawn, score_clips.CHUNK)):
      count = min(score_clips.CHUNK, protocol.num_drawn - begin)
      videos = pipeline.generate(protocol.num_frames, count, protocol.seed + number).videos[:, 0]
      if not number:
        first.append(videos)
      yield videos

  real = score_clips.read(places, config.data.stride, protocol)
  reals = set_scores.features(real, protocol.i3d_resize)
  fakes = set_scores.features(drawn(), protocol.i3d_resize)
  scores, spread = score_clips.score(reals, fakes, {}, protocol)
  record = {
    "protocol": dataclasses.asdict(protocol),
    "scores": {protocol.drawn: scores},
    "intervals": {protocol.drawn: spread},
    "settings": {
      **made_with,
      **set_scores.SETTINGS,
      "num_real": len(reals),
      "num_drawn": len(fakes),
      "clips_per_seed": score_clips.CHUNK,
    },
    **score_files.provenance(config),
  }
  shown = next(score_clips.read(places[: len(first[0])], config.data.stride, protocol))
  score_clips.write(out, protocol, record, shown, first[0])
  return record
